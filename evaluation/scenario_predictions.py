"""ScenarioPredictions: what is scored - the truth of one scenario and predictions for groups of its tracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.metric_config import CURRENT_STEP, NUM_PREDICTION_STEPS, NUM_TRACK_STEPS, STEPS_PER_PREDICTION
from limtr.prediction import ScenePrediction
from limtr.scene import NUM_FUTURE_STEPS, STATE_FIELDS, Scene

TRUTH_FIELDS = ("x", "y", "length", "width", "heading", "vx", "vy")
_TRUTH_COLUMNS = [STATE_FIELDS.index(name) for name in TRUTH_FIELDS]


@dataclass(frozen=True, kw_only=True)
class ScenarioPredictions:
    """Predictions of one scenario beside its truth: all tracks belong to it, since any may be overlapped.

    Raises:
        ValueError: on construction, if shapes contradict each other or a prediction is not finite; names the scenario.
    """

    scenario_id: str
    track_type: npt.NDArray[np.int64]
    """(A,) `ObjectType` numbers."""
    track_states: npt.NDArray[np.float64]
    """(A, 91, 7) `TRUTH_FIELDS`, in any fixed frame."""
    track_valid: npt.NDArray[np.bool_]
    """(A, 91)"""
    group_rows: npt.NDArray[np.int64]
    """(G, N) track rows of each predicted group (N is 1 for objects alone), -1 in empty slots."""
    xy_m: npt.NDArray[np.float64]
    """(G, K, N, 16, 2) predictions at 2 Hz in the frame of the tracks, the first 0.5 s after the current step."""
    scores: npt.NDArray[np.float64]
    """(G, K) raw confidences."""

    def __post_init__(self) -> None:
        """Validate."""
        tracks = self.track_type.shape[0]
        self._require(self.track_states.shape == (tracks, NUM_TRACK_STEPS, len(TRUTH_FIELDS)), "track_states",
                      f"shape {(tracks, NUM_TRACK_STEPS, len(TRUTH_FIELDS))}, has {self.track_states.shape}")  # fmt: skip
        self._require(self.track_valid.shape == (tracks, NUM_TRACK_STEPS), "track_valid", f"shape {(tracks, NUM_TRACK_STEPS)}")
        self._require(self.group_rows.ndim == 2 and self.scores.ndim == 2, "group_rows and scores", "two axes")
        groups, members = self.group_rows.shape
        modes = self.scores.shape[1]
        self._require(self.scores.shape[0] == groups, "scores", f"{groups} rows, has {self.scores.shape[0]}")
        self._require(modes >= 1, "scores", "at least one mode")
        expected = (groups, modes, members, NUM_PREDICTION_STEPS, 2)
        self._require(self.xy_m.shape == expected, "xy_m", f"shape {expected}, has {self.xy_m.shape}")
        rows = self.group_rows
        self._require(bool(((rows >= -1) & (rows < tracks)).all()), "group_rows", f"rows below {tracks} or -1")
        scored = np.isfinite(self.scores) | np.asarray((rows < 0).all(axis=1))[:, None]
        self._require(bool(scored.all()), "scores", "finite numbers only")
        finite = np.isfinite(self.xy_m).all(axis=(1, 3, 4)) | (rows < 0)
        self._require(bool(finite.all()), "xy_m", "finite numbers only")

    @property
    def num_modes_and_slots(self) -> tuple[int, int]:
        """Modes of a group and slots for its members: scenarios that share them can be scored together."""
        return self.scores.shape[1], self.group_rows.shape[1]

    def _require(self, condition: bool, field: str, expectation: str) -> None:
        if not condition:
            raise ValueError(f"scenario {self.scenario_id!r}: predictions' field {field} must have {expectation}")


def challenge_steps(xy_m: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The 16 steps at 2 Hz that Waymo measures, out of 80 at 10 Hz: (..., 80, 2) -> (..., 16, 2).

    Raises:
        ValueError: the prediction has another length.
    """
    if xy_m.shape[-2] != NUM_FUTURE_STEPS:
        raise ValueError(f"predictions must have {NUM_FUTURE_STEPS} steps at 10 Hz, have {xy_m.shape[-2]}")
    return xy_m[..., STEPS_PER_PREDICTION - 1 :: STEPS_PER_PREDICTION, :]


def pair_with_truth(scene: Scene, prediction: ScenePrediction) -> ScenarioPredictions:
    """Put world predictions of objects alone beside the truth of their scene, in the scene frame.

    Raises:
        ValueError: the scene has no future or another length, the scenario ids differ, or an object is not in the scene.
    """
    if prediction.scenario_id != scene.scenario_id:
        raise ValueError(f"predictions of scenario {prediction.scenario_id!r} cannot be scored on {scene.scenario_id!r}")
    if scene.num_steps != NUM_TRACK_STEPS or scene.current_step != CURRENT_STEP:
        raise ValueError(
            f"scenario {scene.scenario_id!r} has {scene.num_steps} steps and current step {scene.current_step}, scoring needs "
            f"{NUM_TRACK_STEPS} and {CURRENT_STEP}: the test split cannot be scored, take the validation split"
        )
    row_of = {object_id: row for row, object_id in enumerate(scene.track_id.tolist())}
    missing = [object_id for object_id in prediction.object_id.tolist() if object_id not in row_of]
    if missing:
        raise ValueError(f"scenario {scene.scenario_id!r}: predicted objects {missing} are not among its tracks")
    rows = np.array([row_of[object_id] for object_id in prediction.object_id.tolist()], dtype=np.int64)
    return ScenarioPredictions(
        scenario_id=scene.scenario_id,
        track_type=scene.track_type,
        track_states=scene.track_states[..., _TRUTH_COLUMNS].astype(np.float64),
        track_valid=scene.track_valid,
        group_rows=rows[:, None],
        xy_m=challenge_steps(prediction.xy_m - scene.origin_m[:2])[:, :, None],
        scores=prediction.scores,
    )
