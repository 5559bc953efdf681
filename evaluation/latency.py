"""`limtr benchmark latency`: time, memory and cost of predicting, in every way in which the model can be run here."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from evaluation.latency_layers import as_rows, by_part, layers_table
from evaluation.latency_variants import Allowed, Runnable, SkippedError, Variant, VariantMaker, reference_of
from evaluation.probe_batch import ProbeSize, probe_batch
from evaluation.sparse_layout import make_sparse
from evaluation.timing import Times, interleaved_times, peak_memory_bytes
from evaluation.zero_weights import zero_masks
from limtr import config as presets
from limtr.agent_batch import AgentBatch
from limtr.files import write_json
from limtr.predictor import MotionPredictor
from limtr.progress import progress
from limtr.run_report import as_plain, package_versions


@dataclass(frozen=True, kw_only=True)
class LatencyConfig:
    """Options of `limtr benchmark latency`: give either --checkpoint or --preset."""

    checkpoint: Path | None = None
    """Training run or model folder."""
    preset: Literal["tiny", "mtr", "limtr"] | None = None
    """An untrained model of this architecture."""
    batch_size: int = 8
    """N: centre agents at a time, beside 1."""
    agents: int = 32
    """Agents around each centre agent."""
    polylines: int | None = None
    """Map polylines of each centre agent [default: what the model's view keeps]."""
    points: int | None = None
    """LiDAR points per frame [default: what the model's view keeps]."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the CPU, and the GPU if there is one."""
    rounds: int = 30
    """How often each variant is timed."""
    warm_up: int = 3
    """Calls of each variant before that."""
    compile: bool = False
    """Time torch.compile too (on a CPU it compiles for some minutes per variant)."""
    exported: bool = True
    """Time the exported graphs too (tracing and converting takes one to some minutes)."""
    density: float | None = None
    """Make a dense model sparse first, as trainings begin: to time sparse layers; its predictions are worth nothing."""
    include: tuple[str, ...] | None = None
    """With --density: which weights, as --sparsity.include of `limtr train` [default: '*', all; limtr-sparse: 'encoder.*']."""
    threads: int | None = None
    """Threads on the CPU [default: torch's own choice]."""
    seed: int = 0
    """Of the batches and the order of the calls."""
    out: Path = Path("latency.json")
    """File for every number."""

    def __post_init__(self) -> None:
        """Validate."""
        if (self.checkpoint is None) == (self.preset is None):
            raise ValueError("give either --checkpoint or --preset")
        for name in ("batch_size", "agents", "rounds", "warm_up", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, is {value}")
        if self.include is not None and self.density is None:
            raise ValueError("--include says which weights --density makes sparse: give both or neither")
        if self.density is not None and not 0.0 < self.density < 1.0:
            raise ValueError(f"--density must be between 0 and 1, is {self.density}")


def run(config: LatencyConfig) -> int:
    """Time everything that can be run, print the table, write the file; 130 if it was interrupted with results."""
    before = torch.get_num_threads()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        return _run(config)
    finally:
        torch.set_num_threads(before)


def _run(config: LatencyConfig) -> int:
    devices = _devices(config.device)
    model = _model(config)
    masks = zero_masks(model)
    batches = _batches(config, model)
    rows: list[dict[str, Any]] = []
    made: list[Runnable] = []
    skipped: dict[str, list[str]] = defaultdict(list)
    interrupted = False
    parameters = active = 0
    for device in devices:
        maker = VariantMaker(model, masks, batches, device, Allowed(compiled=config.compile, exported=config.exported))
        parameters, active = maker.cost(1).parameters, maker.cost(1).active
        runnable = _make(maker, skipped)
        made += runnable
        memory = {str(item.variant): peak_memory_bytes(item.measured_call, device) for item in runnable}
        wait = torch.cuda.synchronize if device.type == "cuda" else _nothing
        calls = {str(item.variant): item.call for item in runnable}
        times = interleaved_times(calls, rounds=config.rounds, warm_up=config.warm_up, seed=config.seed, wait=wait)
        rows += [_row(item, times, memory[str(item.variant)]) for item in runnable]
        interrupted |= times.interrupted
        if interrupted:
            break
    if config.device == "auto" and len(devices) == 1:
        skipped["there is no CUDA device here"].append("everything on a GPU")
    content = {
        "config": config,
        "machine": {"processor": _processor(), "threads": torch.get_num_threads(),
                    "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None},
        "versions": package_versions(),
        "model": {"parameters": parameters, "active_parameters": active, "fingerprint": model.fingerprint()},
        "sizes": {"agents": config.agents, "polylines": batches[1].polylines.shape[1], "points": _points(config, model)},
        "interrupted": interrupted,
        "variants": rows,
        "skipped": skipped,
    }  # fmt: skip
    write_json(config.out, as_plain(content))
    _print(config, content, made)
    return 130 if interrupted else 0


def _devices(wanted: str) -> list[torch.device]:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: there is no CUDA device here; use --device cpu, or see `limtr doctor`")
    names = ["cpu", "cuda"] if wanted == "auto" and torch.cuda.is_available() else ["cpu" if wanted == "auto" else wanted]
    return [torch.device(name) for name in names]


def _model(config: LatencyConfig) -> MotionPredictor:
    if config.checkpoint is not None:
        model = MotionPredictor.load(config.checkpoint)
    else:
        torch.manual_seed(config.seed)
        preset = {"tiny": presets.tiny, "mtr": presets.mtr, "limtr": presets.limtr}[str(config.preset)]
        model = MotionPredictor(preset())
    if config.density is not None:
        if zero_masks(model):
            raise ValueError(f"--density: {config.checkpoint} is sparse already; leave it out")
        make_sparse(model, config.density, config.include or ("*",), seed=config.seed)
    return model.eval().requires_grad_(False)


def _points(config: LatencyConfig, model: MotionPredictor) -> int:
    """LiDAR points per frame, 0 for a model without LiDAR."""
    view = model.config.view
    return 0 if not view.use_lidar else view.num_lidar_points if config.points is None else config.points


def _batches(config: LatencyConfig, model: MotionPredictor) -> dict[int, AgentBatch]:
    polylines = model.config.view.num_polylines if config.polylines is None else config.polylines
    points = _points(config, model)
    return {
        centers: probe_batch(
            model.config, ProbeSize(centers=centers, agents=config.agents, polylines=polylines, points=points), seed=config.seed
        )
        for centers in sorted({1, config.batch_size})
    }


def _make(maker: VariantMaker, skipped: dict[str, list[str]]) -> list[Runnable]:
    """What can be run; the rest goes to `skipped`, by reason."""
    runnable = []
    variants = maker.variants()
    with progress("preparing", len(variants), "variants") as advance:
        for variant in variants:
            try:
                runnable.append(maker.make(variant))
            except SkippedError as reason:
                skipped[str(reason)].append(str(variant))
            advance(note=str(variant))
    return runnable


def _row(item: Runnable, times: Times, memory: int | None) -> dict[str, Any]:
    variant: Variant = item.variant
    name = str(variant)
    reference = str(reference_of(variant))
    p50 = times.percentile(name, 50)
    return {
        "device": variant.device,
        "batch": variant.batch,
        "precision": variant.precision,
        "way": variant.way,
        "weights": "sparse" if variant.sparse else "dense",
        "p50_s": p50,
        "p95_s": times.percentile(name, 95),
        "agents_per_s": variant.batch / p50,
        "times_faster": times.ratio(name, reference),
        "times_faster_quartiles": times.ratio_quartiles(name, reference),
        "peak_memory_bytes": memory,
        "flops": item.flops,
        "rounds": times.rounds,
        "seconds": times.seconds[name][: times.rounds],
        "layers": as_rows(item.layers),
    }


def _ratio(row: Mapping[str, Any]) -> str:
    low, high = row["times_faster_quartiles"]
    return f"{row['times_faster']:.2f} ({low:.2f}-{high:.2f})"


def _print(config: LatencyConfig, content: Mapping[str, Any], runnable: Sequence[Runnable]) -> None:
    model, sizes, machine = content["model"], content["sizes"], content["machine"]
    title = (
        f"{config.checkpoint or config.preset}: {model['parameters']:,} parameters, {model['active_parameters']:,} active; "
        f"{sizes['agents']} agents, {sizes['polylines']} polylines, {sizes['points']} points a frame; "
        f"{machine['processor']}, {machine['threads']} threads"
    )
    table = Table(title=title, title_justify="left")
    for name in ("device", "batch", "precision", "way", "weights"):
        table.add_column(name)
    for name in ("p50 ms", "p95 ms", "agents/s", "times faster", "peak MiB", "GFLOP"):
        table.add_column(name, justify="right")
    previous = None
    for row in content["variants"]:
        group = (row["device"], row["batch"])
        if previous not in (None, group):
            table.add_section()
        previous = group
        memory = "?" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 2**20:.1f}"
        table.add_row(
            row["device"], str(row["batch"]), row["precision"], row["way"], row["weights"], f"{1e3 * row['p50_s']:.2f}",
            f"{1e3 * row['p95_s']:.2f}", f"{row['agents_per_s']:.1f}", _ratio(row), memory,
            f"{row['flops'] / 1e9:.3f}",
        )  # fmt: skip
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    console.print(table)
    console.print(
        "times faster: than dense, eager, fp32 on the same device and batch; median and quartiles of pairs within a round",
        markup=False,
    )
    for item in runnable:
        if item.layers:
            title = f"sparse weights, batch {item.variant.batch}: each layer alone, all its calls"
            console.print(layers_table(by_part(item.layers), title))
    for reason, variants in content["skipped"].items():
        console.print(f"not run ({reason}): {'; '.join(variants)}", markup=False)
    console.print(f"every number is in {config.out}", markup=False)


def _processor() -> str:
    """The CPU's name, as far as the system tells."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _nothing() -> None:
    """Wait for nothing: a CPU is done when it returns."""
