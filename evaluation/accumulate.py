"""MotionMetrics: Waymo's motion metrics over a whole data set, from parts that may be merged in any order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from evaluation.average_precision import Outcome, average_precision, outcomes
from evaluation.buckets import Bucket, classify, joint_bucket
from evaluation.metric_config import CURRENT_STEP, METRIC_NAMES, TRACK_STEPS, MotionMetricsConfig
from evaluation.motion import (
    average_displacement_m,
    best_mode,
    displacements_m,
    final_displacement_m,
    matches,
)
from evaluation.overlap import headings_of_path_rad, overlaps_others
from evaluation.scenario_predictions import ScenarioPredictions
from limtr.scene import PREDICTED_TYPES, ObjectType

Float = npt.NDArray[np.float64]
State = dict[str, npt.NDArray[Any]]
Values = dict[str, float | None]

_DISTANCES = ("minADE", "minFDE", "miss_rate", "overlap_rate")
_TYPE_PRIORITY = (ObjectType.UNSET, ObjectType.OTHER, ObjectType.VEHICLE, ObjectType.PEDESTRIAN, ObjectType.CYCLIST)


class MotionMetrics:
    """Accumulates scenarios and computes minADE, minFDE, miss rate, overlap rate, mAP and soft mAP.

    Every predicted object (or joint group) leaves one row: its type, bucket, distances and the outcome of its predictions.
    Nothing is averaged before `compute`, because average precision ranks the predictions of all objects against each
    other; sums are rounded once (`math.fsum`), so that neither order nor partition of the data changes a digit.
    """

    def __init__(self, config: MotionMetricsConfig | None = None) -> None:
        self.config = config or MotionMetricsConfig()
        self._parts: list[State] = [self._empty()]
        self._scenarios: set[str] = set()

    def _empty(self) -> State:
        horizons, modes = len(self.config.horizons), self.config.max_predictions
        return {
            "object_type": np.zeros(0, np.int64),
            "bucket": np.zeros(0, np.int64),
            "distances": np.zeros((0, horizons, len(_DISTANCES))),
            "scores": np.zeros((0, modes)),
            "outcomes": np.zeros((0, horizons, modes), np.int8),
        }

    @property
    def num_scenarios(self) -> int:
        """Scenarios added."""
        return len(self._scenarios)

    @property
    def scenario_ids(self) -> frozenset[str]:
        """Ids of the scenarios added."""
        return frozenset(self._scenarios)

    def add(self, scenario: ScenarioPredictions) -> None:
        """Score one scenario.

        Raises:
            ValueError: the scenario was added before.
        """
        self.add_rows(scenario.scenario_id, score_groups(scenario, self.config))

    def add_rows(self, scenario_id: str, rows: State) -> None:
        """Take over the rows of one scenario that `score_groups` made with this configuration.

        Raises:
            ValueError: the scenario was added before.
        """
        if scenario_id in self._scenarios:
            raise ValueError(f"scenario {scenario_id!r} was scored before: every scenario may come once")
        self._parts.append(rows)
        self._scenarios.add(scenario_id)

    def merge(self, other: MotionMetrics) -> None:
        """Take over everything that `other` has accumulated.

        Raises:
            ValueError: other configuration, or a scenario that both have.
        """
        if self.config != other.config:
            raise ValueError(f"metrics of different configurations cannot be merged: {self.config} and {other.config}")
        both = self._scenarios & other._scenarios
        if both:
            raise ValueError(f"{len(both)} scenario(s) are in both parts, such as {min(both)!r}: every scenario may come once")
        self._parts += other._parts
        self._scenarios |= other._scenarios

    def state(self) -> State:
        """Everything accumulated as plain arrays, to be sent or stored; `from_state` takes it back."""
        merged = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        self._parts = [merged]
        return {**merged, "scenario_ids": np.array(sorted(self._scenarios), dtype=np.str_)}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]], config: MotionMetricsConfig | None = None) -> Self:
        """Metrics that go on from a state.

        Raises:
            ValueError: the state lacks an array or has one of another configuration's shape.
        """
        metrics = cls(config)
        part: State = {}
        for name, expected in metrics._parts[0].items():
            if name not in state or state[name].shape[1:] != expected.shape[1:]:
                raise ValueError(
                    f"metrics state: array {name!r} must have shape (n, {expected.shape[1:]}) for this configuration"
                )
            part[name] = state[name]
        metrics._parts = [part]
        metrics._scenarios = set(state["scenario_ids"].tolist())
        return metrics

    def counts(self) -> dict[str, int]:
        """Scored objects (or joint groups) per type."""
        types = self.state()["object_type"]
        return {kind.name: int((types == kind).sum()) for kind in PREDICTED_TYPES}

    def compute(self) -> dict[str, dict[str, Values]]:
        """All values: `result["VEHICLE"]["8s"]["minADE"]`.

        Under `"mean"` of each type is the mean over horizons, under `result["mean"]` the mean over the types that occur:
        Waymo's numbers are unweighted means over horizons and then types. A value without any measurement is None; types
        without any object are left out.
        """
        state = self.state()
        result: dict[str, dict[str, Values]] = {}
        for kind in PREDICTED_TYPES:
            chosen = state["object_type"] == kind
            if not chosen.any():
                continue
            part = {name: values[chosen] for name, values in state.items() if name != "scenario_ids"}
            result[kind.name] = {
                horizon.name: {
                    **{name: _mean(part["distances"][:, index, column]) for column, name in enumerate(_DISTANCES)},
                    "mAP": _mean_average_precision(part, index, soft=False),
                    "soft_mAP": _mean_average_precision(part, index, soft=True),
                }
                for index, horizon in enumerate(self.config.horizons)
            }
            result[kind.name]["mean"] = _mean_values(list(result[kind.name].values()))
        if result:
            columns = next(iter(result.values())).keys()
            result["mean"] = {column: _mean_values([values[column] for values in result.values()]) for column in columns}
        return result


def score_groups(scenario: ScenarioPredictions, config: MotionMetricsConfig) -> State:
    """A row for every group of a scenario that has members: type, bucket, distances, scores and outcomes of its predictions."""
    occupied = np.asarray((scenario.group_rows >= 0).any(axis=1))
    rows = scenario.group_rows[occupied]
    member = rows >= 0
    rows = np.where(member, rows, 0)
    predicted = scenario.xy_m[occupied][:, : config.max_predictions]
    scores = scenario.scores[occupied][:, : config.max_predictions]
    truth = scenario.track_states[rows][:, :, list(TRACK_STEPS)]
    valid = scenario.track_valid[rows][:, :, list(TRACK_STEPS)]
    speed = np.hypot(*np.moveaxis(scenario.track_states[rows, CURRENT_STEP, 5:7], -1, 0))
    displacement = displacements_m(predicted, truth[..., :2])
    overlap = _overlap_steps(scenario, rows, member, predicted, scores)

    distances = np.full((len(rows), len(config.horizons), len(_DISTANCES)), np.nan)
    outcome = np.full((len(rows), len(config.horizons), config.max_predictions), Outcome.UNKNOWN, np.int8)
    for index, horizon in enumerate(config.horizons):
        step = horizon.step
        known = np.asarray((valid[:, :, step] | ~member).all(axis=1))
        matched = matches(predicted[..., step, :], truth[:, :, step, :2], truth[:, :, step, 4], speed, member, horizon, config)
        distances[:, index, 0] = best_mode(average_displacement_m(displacement, valid, member, step))
        distances[:, index, 1] = best_mode(final_displacement_m(displacement, valid, member, step))
        distances[:, index, 2] = np.where(known, ~matched.any(axis=1), np.nan)
        distances[:, index, 3] = overlap[:, : step + 1].any(axis=1)
        outcome[:, index, : scores.shape[1]] = outcomes(scores, matched, known)

    padded = np.zeros((len(rows), config.max_predictions))
    padded[:, : scores.shape[1]] = scores
    priority = np.array([_TYPE_PRIORITY.index(kind) for kind in ObjectType])
    ranks = np.where(member, priority[scenario.track_type[rows]], 0).max(axis=1)
    buckets = classify(scenario.track_states, scenario.track_valid, CURRENT_STEP, config.bucketing)
    return {
        "object_type": np.array(_TYPE_PRIORITY, dtype=np.int64)[ranks],
        "bucket": joint_bucket(buckets[rows], member),
        "distances": distances,
        "scores": padded,
        "outcomes": outcome,
    }


def _overlap_steps(
    scenario: ScenarioPredictions, rows: npt.NDArray[np.int64], member: npt.NDArray[np.bool_], predicted: Float, scores: Float
) -> npt.NDArray[np.bool_]:
    """(G, 16) whether a member of the most confident prediction overlaps another object at each step."""
    steps = list(TRACK_STEPS)
    states, valid = scenario.track_states, scenario.track_valid
    top = predicted[np.arange(len(rows)), np.argmax(scores, axis=1)]
    group, slot = np.nonzero(member)
    path, own = top[group, slot], rows[group, slot]
    size = states[own][:, steps, 2:4]
    boxes = np.concatenate([path, size, headings_of_path_rad(path)[..., None]], axis=-1)
    others_valid = valid[:, steps] & valid[:, [CURRENT_STEP]]
    hit = overlaps_others(boxes, states[:, steps, :5], others_valid, own)
    result = np.zeros((len(rows), len(steps)), dtype=np.bool_)
    np.logical_or.at(result, group, hit)
    return result


def _mean(values: Float) -> float | None:
    measured = values[~np.isnan(values)]
    return math.fsum(measured.tolist()) / len(measured) if len(measured) else None


def _mean_values(rows: list[Values]) -> Values:
    present = {name: [row[name] for row in rows if row[name] is not None] for name in METRIC_NAMES}
    return {name: math.fsum(v for v in values if v is not None) / len(values) if values else None
            for name, values in present.items()}  # fmt: skip


def _mean_average_precision(part: State, horizon: int, *, soft: bool) -> float | None:
    """Mean of the average precisions of all buckets that hold objects; None if none does."""
    # Waymo counts right U-turns among right turns.
    buckets = np.where(part["bucket"] == Bucket.RIGHT_U_TURN, int(Bucket.RIGHT_TURN), part["bucket"])
    outcome = part["outcomes"][:, horizon]
    sampled = outcome != Outcome.UNKNOWN
    values = []
    for bucket in np.unique(buckets[buckets != Bucket.NONE]):
        inside = sampled & (buckets == bucket)[:, None]
        num_objects = int(inside.any(axis=1).sum())
        if num_objects == 0:
            continue
        if soft:
            inside = inside & (outcome != Outcome.FURTHER_MATCH)
        hit = outcome[inside] == Outcome.TRUE_POSITIVE
        values.append(average_precision(part["scores"][inside], hit, num_objects))
    return math.fsum(values) / len(values) if values else None
