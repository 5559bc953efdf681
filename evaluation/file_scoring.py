"""Scoring a file of predictions from anyone on the scenes of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from evaluation.accumulate import MotionMetrics
from evaluation.metric_config import MotionMetricsConfig
from evaluation.predictions import read_predictions
from evaluation.scenario_predictions import pair_with_truth
from evaluation.scoring import SceneReader, Watch, require_scorable
from limtr.prediction import ScenePrediction
from limtr.progress import progress
from limtr.scene import PREDICTED_TYPES, Scene


@dataclass(kw_only=True)
class FileScore:
    """The metrics of a file, and where file and scenes do not agree."""

    metrics: MotionMetrics
    bad_scenarios: list[str] = field(default_factory=list)
    """What is wrong with scenarios that were left out."""
    unknown_scenarios: list[str] = field(default_factory=list)
    """In the file, not in the split."""
    missing_scenarios: list[str] = field(default_factory=list)
    """In the split with targets to predict, not in the file."""
    unknown_objects: list[str] = field(default_factory=list)
    """`scenario/object` in the file that are no targets of the scenario: not scored."""
    missing_objects: list[str] = field(default_factory=list)
    """`scenario/object` that should have been predicted."""
    num_invalid_now: int = 0
    """Predicted targets that are not valid at the current step: not scored."""

    @property
    def problems(self) -> list[str]:
        """Sentences about everything that does not agree."""
        named = {
            "scenarios of the file are unusable and were left out": self.bad_scenarios,
            "scenarios of the file are not in the split": self.unknown_scenarios,
            "scenarios of the split are not in the file": self.missing_scenarios,
            "objects of the file are no tracks to predict of their scenario": self.unknown_objects,
            "objects that were to be predicted are not in the file": self.missing_objects,
        }
        return [f"{len(items)} {text}: {_some(items)}" for text, items in named.items() if items]


def score_file(
    path: Path, source: SceneReader, scenario_ids: Sequence[str], config: MotionMetricsConfig, watch: Watch | None = None
) -> FileScore:
    """Score every scenario of a file of predictions that the split holds.

    Args:
        path: Parquet file in the format of `evaluation.predictions`.
        source: the scenes of a split.
        scenario_ids: their ids, in order.
        config: what is measured.
        watch: sees everything that is scored, under the name "predictions".

    Raises:
        ValueError: the file is no file of predictions, or the scenes have no future.
    """
    result = FileScore(metrics=MotionMetrics(config))
    row_of = {scenario_id: row for row, scenario_id in enumerate(scenario_ids)}
    unseen = dict(row_of)
    with progress("scoring", len(row_of), "scenes") as advance:
        for prediction in read_predictions(path, on_error=lambda error: result.bad_scenarios.append(str(error))):
            row = row_of.get(prediction.scenario_id)
            if row is None:
                result.unknown_scenarios.append(prediction.scenario_id)
                continue
            del unseen[prediction.scenario_id]
            scene = require_scorable(source[row])
            paired = pair_with_truth(scene, _only_targets(scene, prediction, result))
            result.metrics.add(paired)
            if watch is not None:
                watch("predictions", scene, paired)
            advance()
        for scenario_id, row in unseen.items():
            wanted = _wanted(source[row])
            if wanted:
                result.missing_scenarios.append(scenario_id)
                result.missing_objects += [f"{scenario_id}/{name}" for name in wanted]
            advance()
    return result


def _wanted(scene: Scene) -> list[int]:
    """Ids of the targets that must be predicted: valid now and of a type that is measured."""
    rows = scene.tracks_to_predict[scene.predictable()]
    measured = np.isin(scene.track_type[rows], [int(kind) for kind in PREDICTED_TYPES])
    found: list[int] = scene.track_id[rows[measured]].tolist()
    return found


def _only_targets(scene: Scene, prediction: ScenePrediction, result: FileScore) -> ScenePrediction:
    """The predictions of predictable targets; what else there is, or is not, is noted in `result`."""
    targets = scene.track_id[scene.tracks_to_predict]
    predictable = scene.track_id[scene.tracks_to_predict[scene.predictable()]]
    given = prediction.object_id
    name = scene.scenario_id
    result.unknown_objects += [f"{name}/{item}" for item in given[~np.isin(given, targets)].tolist()]
    result.missing_objects += [f"{name}/{item}" for item in _wanted(scene) if item not in given]
    result.num_invalid_now += int((np.isin(given, targets) & ~np.isin(given, predictable)).sum())
    keep = np.isin(given, predictable)
    return replace(prediction, object_id=given[keep], xy_m=prediction.xy_m[keep], scores=prediction.scores[keep])


def _some(items: Sequence[str], shown: int = 4) -> str:
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more
