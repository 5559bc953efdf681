"""Scoring predictors on scenes: one pass over the data, any number of predictors beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from evaluation.accumulate import MotionMetrics, Values
from evaluation.metric_config import CURRENT_STEP, NUM_TRACK_STEPS, MotionMetricsConfig
from evaluation.scenario_predictions import ScenarioPredictions, pair_with_truth
from limtr.prediction import ScenePrediction
from limtr.predictor import MotionPredictor
from limtr.progress import progress
from limtr.scene import PREDICTED_TYPES, Scene

ScenePredictor = Callable[[Sequence[Scene]], Sequence[ScenePrediction]]
"""Predicts the predictable targets of each scene, in world coordinates."""
Watch = Callable[[str, Scene, ScenarioPredictions], None]
"""Sees what is scored: name of the predictor, scene, and its predictions beside the truth."""


class SceneReader(Protocol):
    """A random-access collection of scenes, such as `preprocessing.shards.SceneSource`."""

    def __len__(self) -> int:
        """How many scenes there are."""

    def __getitem__(self, row: int, /) -> Scene:
        """One scene."""


@dataclass(frozen=True)
class EvaluationResult:
    """What a predictor reached on a set of scenes."""

    values: dict[str, dict[str, Values]]
    """As `MotionMetrics.compute` gives them."""
    counts: dict[str, int]
    """Scored objects per type."""
    num_scenes: int

    def summary(self) -> dict[str, float]:
        """The means over horizons as flat numbers: `minADE` is the mean over types, `minADE/VEHICLE` that of one type."""
        flat: dict[str, float] = {}
        for kind, columns in self.values.items():
            suffix = "" if kind == "mean" else f"/{kind}"
            flat |= {f"{name}{suffix}": value for name, value in columns["mean"].items() if value is not None}
        return flat


def result_of(metrics: MotionMetrics) -> EvaluationResult:
    """The result of everything accumulated."""
    return EvaluationResult(values=metrics.compute(), counts=metrics.counts(), num_scenes=metrics.num_scenarios)


def choose_device(name: str) -> torch.device:
    """The device to predict on: `auto` takes CUDA where it is.

    Raises:
        ValueError: there is no such device, or CUDA was asked for and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name}: no such device; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"--device {name}: {torch.cuda.device_count()} CUDA devices here; use --device cpu, or see `limtr doctor`"
        )
    return device


def require_scorable(scene: Scene) -> Scene:
    """The scene, if it has the future that scoring needs.

    Raises:
        ValueError: it ends at the current step (test split) or has another length.
    """
    if scene.num_steps != NUM_TRACK_STEPS or scene.current_step != CURRENT_STEP:
        raise ValueError(
            f"scenario {scene.scenario_id!r}: scoring needs {NUM_TRACK_STEPS} steps with current step {CURRENT_STEP}, has "
            f"{scene.num_steps} and {scene.current_step}; test scenes cannot be scored here, take --split validation"
        )
    return scene


def best_mode_only(prediction: ScenePrediction) -> ScenePrediction:
    """Only the most confident mode of each object."""
    best = np.argmax(prediction.scores, axis=1)[:, None]
    return replace(
        prediction,
        xy_m=np.take_along_axis(prediction.xy_m, best[:, :, None, None], axis=1),
        scores=np.take_along_axis(prediction.scores, best, axis=1),
    )


def scene_batches(source: SceneReader, rows: Sequence[int], batch_size: int) -> Iterator[list[Scene]]:
    """Scorable scenes in batches."""
    for start in range(0, len(rows), batch_size):
        yield [require_scorable(source[row]) for row in rows[start : start + batch_size]]


def score(
    source: SceneReader, predictors: Mapping[str, ScenePredictor], *, config: MotionMetricsConfig | None = None,
    batch_size: int = 16, rows: Sequence[int] | None = None, title: str = "evaluating", watch: Watch | None = None,
) -> dict[str, MotionMetrics]:  # fmt: skip
    """Run predictors over scenes and accumulate the metrics of each.

    Args:
        source: scenes with a future.
        predictors: what to score, by name.
        config: what is measured.
        batch_size: scenes per call of a predictor.
        rows: which scenes; None takes all.
        title: of the progress bar.
        watch: sees everything that is scored.

    Raises:
        ValueError: there are no scenes, a scene has no future, or a prediction does not fit its scene.
    """
    chosen = range(len(source)) if rows is None else rows
    if len(chosen) == 0:
        raise ValueError("there are no scenes to evaluate: choose another --split or preprocess more data")
    metrics = {name: MotionMetrics(config) for name in predictors}
    with progress(title, len(chosen), "scenes") as advance:
        for scenes in scene_batches(source, chosen, batch_size):
            for name, predict in predictors.items():
                for scene, prediction in zip(scenes, predict(scenes), strict=True):
                    paired = pair_with_truth(scene, prediction)
                    metrics[name].add(paired)
                    if watch is not None:
                        watch(name, scene, paired)
            advance(len(scenes))
    return metrics


def evaluate_model(
    model: MotionPredictor, source: SceneReader, *, config: MotionMetricsConfig | None = None, batch_size: int = 16,
    rows: Sequence[int] | None = None, title: str = "evaluating",
) -> EvaluationResult:  # fmt: skip
    """Waymo's metrics of a model on scenes; the model's mode (training or not) is left as it was. Arguments as for `score`."""
    return result_of(
        score(source, {"model": model.predict}, config=config, batch_size=batch_size, rows=rows, title=title)["model"]
    )


def count_targets(scene: Scene) -> dict[str, int]:
    """How many targets of a scene are scored, and how many are not: invalid at the current step, or of another type."""
    predictable = scene.tracks_to_predict[scene.predictable()]
    scored = int(np.isin(scene.track_type[predictable], [int(kind) for kind in PREDICTED_TYPES]).sum())
    return {
        "scored": scored,
        "invalid_at_current_step": len(scene.tracks_to_predict) - len(predictable),
        "of_another_type": len(predictable) - scored,
    }
