"""What a variant costs: parameters and links, operations of a prediction, time and memory of its trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from evaluation.prediction_cost import PredictionCost, count_links, prediction_cost
from limtr.files import read_json
from limtr.predictor import MotionPredictor
from preprocessing.shards import SceneSource

METRICS_FILE = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Costs of one variant; links, operations and times are means over its runs.

    Attributes:
        parameters: of the model.
        links: those of them that are not zeros of a sparse layer; of a dense variant all.
        flops_per_agent: of the matrix products and of attention of one agent's prediction (a multiplication and an addition are
            two), zeros included.
        sparse_flops_per_agent: of the links alone.
        training_cpu_s: CPU-seconds of `limtr train`, which other work on the machine changes little.
        training_wall_s: time of the training loop as it was here, beside whatever else ran.
        peak_rss_bytes: largest memory of a `limtr train` process (of the GPU's memory it tells nothing).
        steps: optimizer steps.
    """

    parameters: int
    links: int
    flops_per_agent: float
    sparse_flops_per_agent: float
    training_cpu_s: float
    training_wall_s: float
    peak_rss_bytes: int
    steps: int

    @property
    def is_sparse(self) -> bool:
        """Whether there are fewer links than parameters."""
        return self.links < self.parameters


@dataclass(frozen=True)
class RunFolders:
    """Where the costs of one run are found: its training, its evaluation, and what its `finished.json` tells."""

    training: Path
    evaluation: Path
    finished: Mapping[str, Any]


def cost_of(runs: Sequence[RunFolders], data: Path, split: str) -> Cost:
    """Costs of a variant from all its runs: those of predicting are of each run's own links."""
    trains = [run.finished["cost"]["train"] for run in runs]
    predictions = [told_cost(run) or counted_cost(run, data, split) for run in runs]
    positions = [run.finished["position"] for run in runs]
    return Cost(
        parameters=predictions[0].parameters,
        links=round(_mean([each.links for each in predictions])),
        flops_per_agent=_mean([each.flops for each in predictions]),
        sparse_flops_per_agent=_mean([each.sparse_flops for each in predictions]),
        training_cpu_s=_mean([item["cpu_s"] for item in trains]),
        training_wall_s=_mean([item["elapsed_s"] for item in positions]),
        peak_rss_bytes=int(max(item["peak_rss_bytes"] for item in trains)),
        steps=int(positions[0]["step"]),
    )


def told_cost(run: RunFolders) -> PredictionCost | None:
    """What `limtr evaluate` counted when it evaluated the run; None if it had no agent to predict, or did not count yet."""
    path = run.evaluation / METRICS_FILE
    content = read_json(path).get("cost") if path.exists() else None
    names = {field.name for field in fields(PredictionCost)}
    return PredictionCost(**content) if isinstance(content, dict) and content.keys() == names else None


def counted_cost(run: RunFolders, data: Path, split: str) -> PredictionCost:
    """The cost of the run's model, counted now; without any agent to predict there are no operations."""
    model = MotionPredictor.load(run.training, device="cpu")
    found = prediction_cost(model, SceneSource(data, split))
    if found is not None:
        return found
    parameters, links = count_links(model)
    return PredictionCost(parameters=parameters, links=links, flops=0.0, sparse_flops=0.0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
