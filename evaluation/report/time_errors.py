"""How the error grows over the eight seconds: sums per class and prediction step, whatever the size of the data set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evaluation.metric_config import NUM_PREDICTION_STEPS, STEPS_PER_PREDICTION, TRACK_STEPS, MotionMetricsConfig
from evaluation.motion import best_mode, displacements_m
from evaluation.scenario_predictions import ScenarioPredictions
from limtr.scene import PREDICTED_TYPES, STEP_S, ObjectType

TIMES_S = tuple(STEPS_PER_PREDICTION * STEP_S * (step + 1) for step in range(NUM_PREDICTION_STEPS))
"""Time of each prediction step after the current one."""
_MEASURED = slice(TRACK_STEPS[0], None, STEPS_PER_PREDICTION)


class TimeErrors:
    """Mean distance of the nearest mode from the truth at every prediction step, per class."""

    def __init__(self) -> None:
        self._sums = {kind: np.zeros(NUM_PREDICTION_STEPS) for kind in PREDICTED_TYPES}
        self._counts = {kind: np.zeros(NUM_PREDICTION_STEPS, np.int64) for kind in PREDICTED_TYPES}

    def add(self, paired: ScenarioPredictions, config: MotionMetricsConfig) -> None:
        """Count the predictions of one scene, whose groups are objects alone."""
        rows = paired.group_rows[:, 0]
        if len(rows) == 0:
            return
        truth = paired.track_states[rows[:, None], _MEASURED, :2]
        known = paired.track_valid[rows[:, None], _MEASURED]
        distance = np.where(known[:, None], displacements_m(paired.xy_m[:, : config.max_predictions], truth), np.nan)[:, :, 0]
        nearest = np.stack([best_mode(distance[..., step]) for step in range(NUM_PREDICTION_STEPS)], axis=-1)
        for kind in PREDICTED_TYPES:
            self.add_rows(kind, nearest[paired.track_type[rows] == kind])

    def add_rows(self, kind: ObjectType, error_m: npt.NDArray[np.floating]) -> None:
        """Count objects of one class by their errors (n, 16); NaN is not counted."""
        self._sums[kind] += np.nansum(error_m, axis=0, dtype=np.float64)
        self._counts[kind] += (~np.isnan(error_m)).sum(axis=0)

    def mean_m(self, kind: ObjectType) -> list[float | None]:
        """The mean error at each of `TIMES_S`; None where nothing was measured."""
        pairs = zip(self._sums[kind].tolist(), self._counts[kind].tolist(), strict=True)
        return [total / count if count else None for total, count in pairs]
