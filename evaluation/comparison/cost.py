"""What a variant costs: parameters, operations of a prediction, time and memory of its trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limtr.predictor import MotionPredictor
from preprocessing.shards import SceneSource

SCENES_FOR_FLOPS = 8


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Costs of one variant; times are means over its runs.

    Attributes:
        parameters: trainable ones.
        flops_per_agent: of the matrix products of one agent's prediction (a multiplication and an addition are two).
        training_cpu_s: CPU-seconds of `limtr train`, which other work on the machine changes little.
        training_wall_s: time of the training loop as it was here, beside whatever else ran.
        peak_rss_bytes: largest memory of a `limtr train` process (of the GPU's memory it tells nothing).
        steps: optimizer steps.
    """

    parameters: int
    flops_per_agent: float
    training_cpu_s: float
    training_wall_s: float
    peak_rss_bytes: int
    steps: int


def cost_of(training: Path, data: Path, split: str, finished: Sequence[Mapping[str, Any]]) -> Cost:
    """Costs of a variant, from one of its trainings (for the model) and all its `finished.json` (for what was measured)."""
    model = MotionPredictor.load(training, device="cpu")
    trains = [item["cost"]["train"] for item in finished]
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        flops_per_agent=flops_per_agent(model, SceneSource(data, split)),
        training_cpu_s=sum(item["cpu_s"] for item in trains) / len(trains),
        training_wall_s=sum(item["position"]["elapsed_s"] for item in finished) / len(finished),
        peak_rss_bytes=int(max(item["peak_rss_bytes"] for item in trains)),
        steps=int(finished[0]["position"]["step"]),
    )


def flops_per_agent(model: MotionPredictor, source: SceneSource) -> float:
    """Operations of the matrix products of a prediction, per agent, on the first scenes of a split; 0 without any target."""
    from torch.utils.flop_counter import FlopCounterMode

    scenes = [source[row] for row in range(min(len(source), SCENES_FOR_FLOPS))]
    with FlopCounterMode(display=False) as counter:
        predictions = model.predict(scenes)
    agents = sum(len(prediction.object_id) for prediction in predictions)
    return counter.get_total_flops() / agents if agents else 0.0
