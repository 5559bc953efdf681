"""How a model's metrics sink with the severity of degraded inputs: measured, kept so that an interrupted run goes on, shown."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.corruptions.catalogue import CORRUPTIONS, SEVERITIES, corrupt
from evaluation.metric_config import MotionMetricsConfig
from evaluation.scoring import EvaluationResult, ScenePredictor, SceneReader, result_of, score
from limtr.files import read_json, write_json
from limtr.prediction import ScenePrediction
from limtr.run_report import as_plain
from limtr.scene import Scene

ALL = "all"
FOLDER = "robustness"

Curves = dict[str, dict[int, EvaluationResult]]
"""Results by corruption and severity; severity 0 is the undisturbed input."""


@dataclass(frozen=True, kw_only=True)
class RobustnessPlan:
    """What is measured.

    Attributes:
        names: of `CORRUPTIONS`, in order.
        severities: of `SEVERITIES`, in order.
        seed: of the corruptions' random numbers.
        about: what else the numbers depend on (model, data, split, rule of buckets): plain values.
        folder: where finished corruptions are kept.
    """

    names: tuple[str, ...]
    severities: tuple[int, ...]
    seed: int
    about: Mapping[str, Any]
    folder: Path


def chosen(names: Sequence[str], *, use_lidar: bool) -> tuple[str, ...]:
    """The corruptions that are asked for and that the model can feel; a warning names those it cannot."""
    wanted = tuple(CORRUPTIONS) if ALL in names else tuple(name for name in CORRUPTIONS if name in names)
    unfelt = [name for name in wanted if CORRUPTIONS[name].needs_lidar and not use_lidar]
    if unfelt:
        warnings.warn(f"--corrupt: {', '.join(unfelt)} left out: the model does not read LiDAR", stacklevel=2)
    return tuple(name for name in wanted if name not in unfelt)


def measure(
    plan: RobustnessPlan, predict: ScenePredictor, source: SceneReader, clean: EvaluationResult, *,
    config: MotionMetricsConfig | None = None, batch_size: int = 16,
) -> Curves:  # fmt: skip
    """Score the model on degraded inputs against the undisturbed truth; finished corruptions are read back, not repeated.

    What degrades nothing is left out, with a warning: a curve that stays level would look like robustness.

    Args:
        plan: what to measure, and where it is kept.
        predict: the model.
        source: scenes with a future.
        clean: the result on undisturbed inputs.
        config: what is measured.
        batch_size: scenes per call of the model.
    """
    curves: Curves = {}
    for index, name in enumerate(plan.names):
        found = _stored(plan, name)
        missing = [severity for severity in plan.severities if severity not in found]
        if missing:
            touched: set[str] = set()
            predictors = {str(severity): _degraded(predict, name, severity, plan.seed, touched) for severity in missing}
            title = f"{name} ({index + 1} of {len(plan.names)})"
            metrics = score(source, predictors, config=config, batch_size=batch_size, title=title)
            if not touched:
                warnings.warn(f"--corrupt {name} left out: no scene has LiDAR, so nothing was degraded", stacklevel=2)
                continue
            found |= {int(severity): result_of(item) for severity, item in metrics.items()}
            _store(plan, name, found)
        curves[name] = {0: clean} | {severity: found[severity] for severity in plan.severities}
    return curves


def _degraded(predict: ScenePredictor, name: str, severity: int, seed: int, touched: set[str]) -> ScenePredictor:
    needs_lidar = CORRUPTIONS[name].needs_lidar

    def degrade(scene: Scene) -> Scene:
        if needs_lidar and scene.lidar is None:
            return scene
        touched.add(scene.scenario_id)
        return corrupt(scene, name, severity, seed)

    def degraded(scenes: Sequence[Scene]) -> Sequence[ScenePrediction]:
        return predict([degrade(scene) for scene in scenes])

    return degraded


def _key(plan: RobustnessPlan, name: str) -> dict[str, Any]:
    kind = CORRUPTIONS[name]
    plain: dict[str, Any] = as_plain({"corruption": name, "amounts": kind.amounts, "seed": plan.seed, **plan.about})
    return plain


def _stored(plan: RobustnessPlan, name: str) -> dict[int, EvaluationResult]:
    """What an earlier run measured of the same model on the same data; nothing where anything differs."""
    path = plan.folder / f"{name}.json"
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
        if content["key"] != _key(plan, name):
            return {}
        return {
            int(severity): EvaluationResult(values=item["values"], counts=item["objects"], num_scenes=item["num_scenes"])
            for severity, item in content["severities"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"{path}: not a result of --corrupt ({error}); it is measured again", stacklevel=2)
        return {}


def _store(plan: RobustnessPlan, name: str, found: Mapping[int, EvaluationResult]) -> None:
    severities = {
        str(severity): {"values": item.values, "objects": item.counts, "num_scenes": item.num_scenes}
        for severity, item in found.items()
    }
    write_json(plan.folder / f"{name}.json", as_plain({"key": _key(plan, name), "severities": severities}))


def as_results(curves: Curves) -> dict[str, Any]:
    """The curves for metrics.json: by corruption its amounts and unit, and the values by severity."""
    return {
        name: {
            "unit": CORRUPTIONS[name].unit,
            "amounts": {severity: CORRUPTIONS[name].amounts[severity - 1] for severity in curve if severity},
            "severities": {severity: result.values for severity, result in curve.items()},
        }
        for name, curve in curves.items()
    }


def relative_change(curve: Mapping[int, EvaluationResult], metric: str, kind: str = "mean") -> dict[int, float | None]:
    """By severity, how far a metric is from its undisturbed value, as a share of that; None where there is no value."""
    clean = curve[0].values.get(kind, {}).get("mean", {}).get(metric)
    changes: dict[int, float | None] = {}
    for severity, result in curve.items():
        value = result.values.get(kind, {}).get("mean", {}).get(metric)
        changes[severity] = None if value is None or not clean else value / clean - 1.0
    return changes


def check_severities(severities: Sequence[int]) -> None:
    """Raise ValueError unless all are severities, each once."""
    if not severities or not set(severities) <= set(SEVERITIES) or len(set(severities)) != len(severities):
        raise ValueError(f"--severities must be some of {SEVERITIES}, each once, are {tuple(severities)}")
