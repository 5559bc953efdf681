"""Where the time and memory of a training step go, and what the eager step gains over a straightforward one.

    python benchmarks/train_step.py SHARDS [--preset mtr limtr tiny] [--scenes 2] [--targets 4] [--precision bf16] [--compile]
    python benchmarks/train_step.py SHARDS --straightforward

SHARDS is a dataset of `limtr preprocess`. Times on a CPU are CPU times of one thread (set OMP_NUM_THREADS=1), on a GPU those of
the device. The straightforward step, baseline of `--straightforward`, gives the same results: PointNets work on padded points,
attention masks the weights of all tokens, distances of waypoints to polylines are one array, dropout is torch's, AdamW is not
fused. Both take turns in one process.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from limtr import decoder_layer, encoder
from limtr.agent_view import build_agent_batch
from limtr.attention import split_heads
from limtr.batch import SceneBatch
from limtr.config import ModelConfig, limtr, mtr, tiny
from limtr.dropout import Dropout
from limtr.loss import compute_loss
from limtr.map_collection import MAX_BUFFER_ELEMENTS
from limtr.polyline_encoder import PointNet
from limtr.predictor import MotionPredictor
from limtr.scene import PREDICTED_TYPES
from preprocessing.shards import SceneSource, scene_index
from training.data import SelectedScenes, epoch_batches, load_batches, select

PRESETS = {"mtr": mtr, "limtr": limtr, "tiny": tiny}
PEAK_TFLOPS = {
    "H100": {"fp32": 67.0, "bf16": 989.0},
    "H200": {"fp32": 67.0, "bf16": 989.0},
    "A100": {"fp32": 19.5, "bf16": 312.0},
}
"""Dense peaks of the makers' data sheets, SXM; fp32 without TF32."""


class Clock:
    """Seconds by part; parts may lie within each other."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    def now(self) -> float:
        """CPU time of this process, or the time when the device is done."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block."""
        start = self.now()
        yield
        self.seconds.setdefault(name, []).append(self.now() - start)

    def watch(self, module: nn.Module | None, name: str) -> None:
        """Time every forward pass of a module."""
        if module is None:
            return
        work: Callable[..., Any] = module.forward

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.part(name):
                return work(*arguments, **options)

        module.forward = timed  # type: ignore[method-assign]


class Step:
    """One training step of a preset, as `limtr train` does it."""

    def __init__(self, config: ModelConfig, device: torch.device, precision: str) -> None:
        torch.manual_seed(0)
        self.config, self.device, self.precision = config, device, precision
        self.model = MotionPredictor(config).to(device).train()
        self.decode: Callable[..., Any] = self.model.decode
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.plain_optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.clock = Clock(device)

    def watch_parts(self) -> None:
        """Time the encoder's and the decoder's parts too (not of a compiled model)."""
        encoding, decoding = self.model.encoder, self.model.decoder
        self.clock.watch(encoding, "encoder")
        self.clock.watch(encoding.agent_encoder, "  agents")
        self.clock.watch(encoding.polyline_encoder, "  polylines")
        self.clock.watch(encoding.lidar_encoder, "  LiDAR")
        for layer in encoding.layers:
            self.clock.watch(layer, "  attention layers")
        self.clock.watch(decoding, "decoder")
        self.clock.watch(decoding.dense_future, "  dense future")
        for layer in decoding.agent_layers:
            self.clock.watch(layer, "  agent branches")
        for layer in decoding.map_layers:
            self.clock.watch(layer, "  map branches")

    def __call__(self, batch: SceneBatch) -> None:
        """Forward, backward, optimizer."""
        part = self.clock.part
        with part("transfer"):
            batch = batch.to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            with part("agent view"):
                agents = build_agent_batch(batch, self.config.view)
            with part("forward"):
                outputs = self.decode(agents)
            with part("loss"):
                total = compute_loss(outputs, agents, self.config).total
        with part("backward"):
            total.backward()
        with part("optimizer"):
            nn.utils.clip_grad_norm_(self.model.parameters(), 1000.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)


def plain_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, allowed: torch.Tensor, *, num_heads: int, dropout: float = 0.0,
    path: str = "dense", max_keys: int | None = None,
) -> torch.Tensor:  # fmt: skip
    """`masked_attention` by torch's function alone."""
    sees_any = allowed.any(dim=-1, keepdim=True)
    heads = [split_heads(x, num_heads).transpose(1, 2) for x in (query, key, value)]
    mixed = nn.functional.scaled_dot_product_attention(*heads, attn_mask=(allowed | ~sees_any).unsqueeze(1), dropout_p=dropout)
    return torch.where(sees_any, mixed.transpose(1, 2).flatten(start_dim=2), 0.0)


@contextlib.contextmanager
def straightforward(step: Step) -> Iterator[None]:
    """PointNets over padding, attention and distances over everything, torch's dropout, AdamW not fused: in the block."""
    layers = [layer.self_attn for layer in step.model.encoder.layers]
    with (
        patch.object(step, "optimizer", step.plain_optimizer),
        patch.object(PointNet, "forward", PointNet._padded),
        patch.object(Dropout, "forward", lambda self, x: nn.functional.dropout(x, self.p, self.training)),
        patch.object(encoder, "masked_attention", plain_attention),
        patch.object(decoder_layer, "masked_attention", plain_attention),
        patch.dict(MAX_BUFFER_ELEMENTS, dict.fromkeys(MAX_BUFFER_ELEMENTS, 1 << 62)),
    ):
        for layer in layers:
            layer.path = "dense"
        try:
            yield
        finally:
            for layer in layers:
                layer.path = step.config.attention


def read_batches(folder: Path, config: ModelConfig, options: argparse.Namespace, clock: Clock) -> list[SceneBatch]:
    """The first batches of an epoch; their reading is timed as the loader's part (in this process, no workers)."""
    index = scene_index(folder, "train")
    chosen = select(index, range(len(index)), PREDICTED_TYPES, None)
    if options.targets:
        kept = [targets[: options.targets] for targets in chosen.targets]
        chosen = replace(chosen, targets=tuple(kept), types=tuple(types[: options.targets] for types in chosen.types))
    scenes = SelectedScenes(SceneSource(folder, "train"), chosen)
    rows = [row for epoch in range(8) for row in epoch_batches(len(scenes), options.scenes, 0, epoch)]
    rows = [row for row in rows if len(row) == options.scenes][: options.steps + 1]
    if not rows:
        raise SystemExit(f"{folder}: {len(scenes)} scenes, which is fewer than --scenes {options.scenes}")
    points = config.view.lidar_points_to_load
    reader = load_batches(scenes, rows, num_lidar_points=points, workers=0, pin_memory=False)
    batches = [next(reader)]
    for _ in rows[1:]:
        with clock.part("loader"):
            batches.append(next(reader))
    return batches


def describe(batches: list[SceneBatch]) -> str:
    """What the steps work on."""
    points = [int(batch.lidar_mask.sum()) for batch in batches if batch.lidar_mask is not None]
    shapes = ", ".join(f"{statistics.mean(value):.0f} {name}" for name, value in {
        "targets": [batch.num_centers for batch in batches],
        "tracks": [batch.track_states.shape[1] for batch in batches],
        "polylines": [batch.polylines.shape[1] for batch in batches],
        "LiDAR points": points or [0],
    }.items())  # fmt: skip
    return f"{len(batches[0].scenario_ids)} scenes a step, on average {shapes}"


def report(step: Step, batches: list[SceneBatch], flops: float) -> None:
    """A row per part, the rate and the memory."""
    measured = {name: sum(values) / (len(batches) - 1) for name, values in step.clock.seconds.items()}
    whole = sum(value for name, value in measured.items() if name in WHOLE)
    for name in [*WHOLE[:3], "encoder", *ENCODER, "decoder", *DECODER, *WHOLE[3:]]:
        if name in measured:
            print(f"  {name:20s} {1e3 * measured[name]:9.1f} ms   {measured[name] / whole:6.1%}")
    print(f"  {'whole step':20s} {1e3 * whole:9.1f} ms   {len(batches[0].scenario_ids) / whole:.2f} scenes/s")
    if step.device.type == "cpu":
        print(f"  largest memory of this process so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")
        return
    print(f"  largest memory {torch.cuda.max_memory_allocated(step.device) / 2**30:.1f} GB")
    name = torch.cuda.get_device_name(step.device)
    peak = next((rates[step.precision] for key, rates in PEAK_TFLOPS.items() if key in name), None)
    if peak is not None:
        print(f"  {flops / whole / 1e12:.1f} TFLOP/s, {flops / whole / 1e12 / peak:.1%} of {peak:g} ({name})")


WHOLE = ("loader", "transfer", "agent view", "forward", "loss", "backward", "optimizer")
ENCODER = ("  agents", "  polylines", "  LiDAR", "  attention layers")
DECODER = ("  dense future", "  agent branches", "  map branches")


def measure(preset: str, precision: str, compiled: bool, options: argparse.Namespace, device: torch.device) -> None:
    """Print the table of one configuration."""
    step = Step(PRESETS[preset](), device, precision)
    batches = read_batches(options.shards, step.config, options, step.clock)
    print(f"{preset}, {precision}, {'compiled' if compiled else 'eager'}: {describe(batches)}")
    loader = step.clock.seconds.get("loader", [0.0])
    with FlopCounterMode(display=False) as counter:
        step(batches[0])
    if compiled:
        step.decode = torch.compile(step.model.decode)
        step(batches[0])
    else:
        step.watch_parts()
    step.clock.seconds = {"loader": loader}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for batch in batches[1:]:
        step(batch)
    report(step, batches, float(counter.get_total_flops()))


def compare(preset: str, precision: str, options: argparse.Namespace, device: torch.device) -> None:
    """Print how many times longer the straightforward step takes."""
    step = Step(PRESETS[preset](), device, precision)
    batches = read_batches(options.shards, step.config, options, step.clock)
    print(f"{preset}, {precision}: {describe(batches)}")
    seconds: dict[str, list[float]] = {"eager": [], "straightforward": []}
    for batch in batches:
        for name in seconds:
            with straightforward(step) if name == "straightforward" else contextlib.nullcontext():
                start = step.clock.now()
                step(batch)
                seconds[name].append(step.clock.now() - start)
    ratios = [slow / quick for quick, slow in zip(*(values[1:] for values in seconds.values()), strict=True)]
    middle = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    print(
        f"  straightforward {middle['straightforward']:.3f} s, now {middle['eager']:.3f} s a step: "
        f"{statistics.median(ratios):.2f} times faster ({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} pairs)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--scenes", type=int, default=2, help="a step")
    parser.add_argument("--targets", type=int, default=0, help="at most so many of each scene (0: all)")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32"])
    parser.add_argument("--compile", action="store_true", help="the compiled step too")
    parser.add_argument("--straightforward", action="store_true", help="compare with the straightforward step")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for preset in options.preset:
        for precision in options.precision:
            if options.straightforward:
                compare(preset, precision, options, device)
                continue
            for compiled in (False, True) if options.compile else (False,):
                measure(preset, precision, compiled, options, device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
