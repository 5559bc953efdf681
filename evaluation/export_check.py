"""Whether an exported graph says what the model says, on batches of every awkward size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from evaluation.exported import Arrays
from evaluation.probe_batch import ProbeSize, probe_batch
from limtr.agent_batch import AgentBatch
from limtr.config import ModelConfig
from limtr.export import tensor_inputs
from limtr.predictor import MotionPredictor

TOLERANCE = 1e-4
"""Largest difference that is allowed: metres, metres per second, probabilities."""
POSITION_ROUNDING, NUM_ROUNDINGS = 1e-7, 8
"""Relative size of float32's rounding, and how often it is drawn to see what it changes."""


def probes(config: ModelConfig) -> dict[str, AgentBatch]:
    """Batches by name: more polylines than are collected, fewer, none; one agent; no point; all masked."""
    many = config.decoder.num_base_polylines + config.decoder.num_waypoint_polylines + 8
    sizes = {
        "several targets": ProbeSize(centers=3, agents=9, polylines=many, points=config.view.num_lidar_points),
        "one agent, one target, one polyline": ProbeSize(centers=1, agents=1, polylines=1, points=1),
        "fewer polylines than are collected": ProbeSize(centers=2, agents=4, polylines=5, points=7),
        "no map": ProbeSize(centers=2, agents=3, polylines=0, points=3),
        "no LiDAR points": ProbeSize(centers=4, agents=2, polylines=6, points=0),
    }
    batches = {name: probe_batch(config, size, seed=seed) for seed, (name, size) in enumerate(sizes.items())}
    masked = ProbeSize(centers=2, agents=3, polylines=4, points=4)
    batches["map and LiDAR masked, agents without history"] = probe_batch(config, masked, seed=9, share_valid=0.0)
    return batches


def arrays_of(batch: AgentBatch) -> Arrays:
    """A graph's inputs."""
    return {name: value.numpy() for name, value in tensor_inputs(batch).items()}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far a graph is from the model on one batch."""

    queries: float
    """Largest difference of the queries' trajectories and probabilities, without those of `unsteady` agents."""
    modes: float
    """Largest difference of the graph's modes from those that PyTorch's code makes of the graph's own queries."""
    other_modes: int
    """Agents for which the graph shows other modes than the model, because scores or distances were equal but for rounding."""
    unsteady: int = 0
    """Agents for which PyTorch itself answers otherwise when positions move by their rounding, and so does the graph."""


@torch.no_grad()
def difference(model: MotionPredictor, exported: Callable[[Arrays], Arrays], batch: AgentBatch) -> Difference:
    """Run both on one batch; the model by the code that never was exported.

    Raises:
        ValueError: the graph cannot be run on it.
    """
    outputs = model.decode(batch)
    last = outputs.layers[-1]
    directly = model.select(outputs, batch.center_type)
    inputs = arrays_of(batch)
    try:
        found = {name: torch.from_numpy(value) for name, value in exported(inputs).items()}
    except Exception as error:  # runtimes have types of their own
        shapes = {name: value.shape for name, value in inputs.items()}
        raise ValueError(f"the exported graph cannot be run on {shapes}: {str(error).splitlines()[0]}") from error
    queries, probabilities = found["query_trajectories"], found["query_scores"]
    apart = _by_agent((queries, last.trajectories), (probabilities, last.scores.softmax(dim=-1)))
    beyond = (apart > TOLERANCE) & apart.isfinite()
    unsteady = beyond & (_moved_by_rounding(model, batch) > TOLERANCE) if beyond.any() else beyond
    again = model.modes_of(queries, probabilities, model.nms_distance(batch.center_type))
    other = (found["trajectories"] - directly.trajectories).abs().flatten(start_dim=1).amax(dim=1) > TOLERANCE
    return Difference(
        queries=float(apart[~unsteady].max()) if not unsteady.all() else 0.0,
        modes=float(_by_agent((found["trajectories"], again.trajectories), (found["scores"], again.scores)).max()),
        other_modes=int((other & ~unsteady).sum()),
        unsteady=int(unsteady.sum()),
    )


def differences(
    model: MotionPredictor, exported: Callable[[Arrays], Arrays], batches: Mapping[str, AgentBatch]
) -> dict[str, Difference]:
    """The differences on each batch.

    Queries are compared directly. Of polylines that are as near as the last one that is collected, runtimes take different
    ones: agents for which that alone makes a difference in PyTorch too are counted and not compared. Which queries become modes
    hangs on comparisons in the same way: so modes are compared with what PyTorch makes of the same queries, and agents whose
    modes are others than the model's are counted.

    Raises:
        ValueError: a difference is beyond `TOLERANCE`, or the graph cannot be run on a batch; the message says which.
    """
    found: dict[str, Difference] = {}
    for name, batch in batches.items():
        found[name] = difference(model, exported, batch)
        for part in ("queries", "modes"):
            apart = getattr(found[name], part)
            # Written so that NaN fails too.
            if not apart <= TOLERANCE:
                raise ValueError(
                    f"the exported graph differs from PyTorch by {apart:.2g} in its {part} on the probe {name!r}, "
                    f"{TOLERANCE:g} is allowed; nothing was written"
                )
    return found


def _by_agent(*pairs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """(C,) the largest difference within all pairs (C, ...): NaN if there is any, infinite if shapes differ."""
    apart = [
        (one - other).abs().flatten(start_dim=1).amax(dim=1)
        if one.shape == other.shape
        else one.new_full((len(other),), torch.inf)
        for one, other in pairs
    ]
    return torch.stack(apart).amax(dim=0)  # unlike Python's max, torch's does not lose NaN


def _moved_by_rounding(model: MotionPredictor, batch: AgentBatch) -> torch.Tensor:
    """(C,) how far the queries of each agent move at most in PyTorch when positions move by a rounding or two."""
    generator = torch.Generator().manual_seed(0)

    def rounded(position: torch.Tensor) -> torch.Tensor:
        return position * (1 + POSITION_ROUNDING * torch.randn(position.shape, generator=generator))

    before = model.decode(batch).layers[-1]
    moved = torch.zeros(len(batch.center_type))
    for _ in range(NUM_ROUNDINGS):
        near = replace(
            batch, polyline_center=rounded(batch.polyline_center), agent_last_position=rounded(batch.agent_last_position)
        )
        after = model.decode(near).layers[-1]
        moved = torch.maximum(
            moved,
            _by_agent((after.trajectories, before.trajectories), (after.scores.softmax(-1), before.scores.softmax(-1))),
        )
    return moved
