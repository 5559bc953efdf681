"""MotionMetrics: Waymo's motion metrics over a whole data set, from parts that may be merged in any order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from evaluation.average_precision import Outcome, average_precision
from evaluation.buckets import Bucket
from evaluation.group_scores import DISTANCES, State, empty_rows, score_groups
from evaluation.metric_config import METRIC_NAMES, MotionMetricsConfig
from evaluation.scenario_predictions import ScenarioPredictions
from limtr.scene import PREDICTED_TYPES

Float = npt.NDArray[np.float64]
Values = dict[str, float | None]

SCENARIOS_AT_ONCE = 32
"""So many wait until they are scored together, which is faster; what is held does not grow with the data set."""


class MotionMetrics:
    """Accumulates scenarios and computes minADE, minFDE, miss rate, overlap rate, mAP and soft mAP.

    Every predicted object (or joint group) leaves one row: its type, bucket, distances and the outcome of its predictions.
    Nothing is averaged before `compute`, because average precision ranks the predictions of all objects against each
    other; sums are rounded once (`math.fsum`), so that neither order nor partition of the data changes a digit.
    """

    def __init__(self, config: MotionMetricsConfig | None = None) -> None:
        self.config = config or MotionMetricsConfig()
        self._parts: list[State] = [empty_rows(self.config)]
        self._waiting: list[ScenarioPredictions] = []
        self._scenarios: set[str] = set()

    @property
    def num_scenarios(self) -> int:
        """Scenarios added."""
        return len(self._scenarios)

    @property
    def scenario_ids(self) -> frozenset[str]:
        """Ids of the scenarios added."""
        return frozenset(self._scenarios)

    def add(self, scenario: ScenarioPredictions) -> None:
        """Score one scenario. Its arrays are read later, when some wait to be scored together: leave them as they are.

        Raises:
            ValueError: the scenario was added before.
        """
        self._claim(scenario.scenario_id)
        if self._waiting and self._waiting[0].num_modes_and_slots != scenario.num_modes_and_slots:
            self._score_waiting()
        self._waiting.append(scenario)
        if len(self._waiting) == SCENARIOS_AT_ONCE:
            self._score_waiting()

    def _claim(self, scenario_id: str) -> None:
        if scenario_id in self._scenarios:
            raise ValueError(f"scenario {scenario_id!r} was scored before: every scenario may come once")
        self._scenarios.add(scenario_id)

    def _score_waiting(self) -> None:
        if self._waiting:
            self._parts.append(score_groups(self._waiting, self.config))
        self._waiting = []

    def add_rows(self, scenario_id: str, rows: State) -> None:
        """Take over the rows of one scenario that `score_groups` made with this configuration.

        Raises:
            ValueError: the scenario was added before.
        """
        self._claim(scenario_id)
        self._score_waiting()
        self._parts.append(rows)

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
        self._score_waiting()
        other._score_waiting()
        self._parts += other._parts
        self._scenarios |= other._scenarios

    def state(self) -> State:
        """Everything accumulated as plain arrays, to be sent or stored; `from_state` takes it back."""
        self._score_waiting()
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
                    **{name: _mean(part["distances"][:, index, column]) for column, name in enumerate(DISTANCES)},
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
