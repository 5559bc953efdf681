"""ObjectTable: what the report keeps of every predicted object, and the collector that fills it while a model is scored."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from evaluation.group_scores import score_groups
from evaluation.metric_config import CURRENT_STEP, STEPS_PER_PREDICTION, TRACK_STEPS, MotionMetricsConfig
from evaluation.motion import average_displacement_m, best_mode, displacements_m
from evaluation.scenario_predictions import ScenarioPredictions
from limtr.scene import PREDICTED_TYPES, STATE_FIELDS, Scene

Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_MEASURED = slice(TRACK_STEPS[0], None, STEPS_PER_PREDICTION)
_VELOCITY = [STATE_FIELDS.index("vx"), STATE_FIELDS.index("vy")]


@dataclass(frozen=True, kw_only=True)
class ObjectTable:
    """One row per predicted object of a measured class: n rows, H horizons, K modes (the first six). NaN: not known."""

    scenario_id: npt.NDArray[Any]
    """(n,) text"""
    object_id: Index
    """(n,)"""
    kind: Index
    """(n,) `ObjectType` numbers"""
    bucket: Index
    """(n,) `Bucket` numbers"""
    speed_mps: Float
    """(n,) at the current step"""
    distance_m: Float
    """(n,) from the recording vehicle at the current step"""
    lidar_points: Float
    """(n,) points found in the object's box at the current step; NaN where the scene has no LiDAR"""
    nearest_m: npt.NDArray[np.float32]
    """(n, 16) distance of the nearest mode from the truth at each prediction step"""
    likeliest_m: npt.NDArray[np.float32]
    """(n, 16) distance of the mode with the highest score"""
    nearest_mode: Index
    """(n,) the mode with the smallest average distance over all known steps; -1 where the truth is never known"""
    distances: Float
    """(n, H, 4) `group_scores.DISTANCES`"""
    scores: Float
    """(n, K) as given; 0 where there is no such mode"""
    has_mode: npt.NDArray[np.bool_]
    """(n, K) whether there is such a mode"""
    outcomes: npt.NDArray[np.int8]
    """(n, H, K) `Outcome` numbers"""

    def __len__(self) -> int:
        """n."""
        return len(self.object_id)

    def keep(self, chosen: npt.NDArray[np.bool_] | Index) -> Self:
        """The rows of a mask or of an index."""
        return type(self)(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


class ObjectCollector:
    """Fills a table: `add` every scene with its predictions beside the truth, then `table()`."""

    def __init__(self, config: MotionMetricsConfig) -> None:
        self._config = config
        self._parts: list[dict[str, npt.NDArray[Any]]] = []

    def add(self, scene: Scene, paired: ScenarioPredictions) -> None:
        """Keep the rows of one scene, whose groups are objects alone."""
        rows = paired.group_rows[:, 0]
        kept = np.isin(paired.track_type[rows], [int(kind) for kind in PREDICTED_TYPES])
        if kept.any():
            part = self._rows(scene, paired, rows)
            self._parts.append({name: values[kept] for name, values in part.items()})

    def _rows(self, scene: Scene, paired: ScenarioPredictions, rows: Index) -> dict[str, npt.NDArray[Any]]:
        most = self._config.max_predictions
        scored = score_groups([paired], self._config)
        truth, known = paired.track_states[rows[:, None], _MEASURED, :2], paired.track_valid[rows[:, None], _MEASURED]
        displacement = displacements_m(paired.xy_m[:, :most], truth)
        average = average_displacement_m(displacement, known, np.ones((len(rows), 1), np.bool_), displacement.shape[-1] - 1)
        at_step = np.where(known[:, None], displacement, np.nan)[:, :, 0]
        likeliest = np.argmax(paired.scores[:, :most], axis=1)
        num_modes = min(most, paired.scores.shape[1])
        now = scene.track_states[rows, CURRENT_STEP]
        velocity = now[:, _VELOCITY].astype(np.float64)
        return {
            "scenario_id": np.full(len(rows), scene.scenario_id, dtype=object),
            "object_id": scene.track_id[rows],
            "kind": scene.track_type[rows],
            "bucket": scored["bucket"],
            "speed_mps": np.hypot(velocity[:, 0], velocity[:, 1]),
            "distance_m": _distance_from_recorder_m(scene, rows),
            "lidar_points": _lidar_points(scene, rows),
            "nearest_m": np.stack([best_mode(step) for step in np.moveaxis(at_step, -1, 0)], axis=-1).astype(np.float32),
            "likeliest_m": at_step[np.arange(len(rows)), likeliest].astype(np.float32),
            "nearest_mode": np.where(np.isnan(average).all(axis=1), -1, np.argmin(np.nan_to_num(average, nan=np.inf), axis=1)),
            "distances": scored["distances"],
            "scores": scored["scores"],
            "has_mode": np.tile(np.arange(most) < num_modes, (len(rows), 1)),
            "outcomes": scored["outcomes"],
        }  # fmt: skip

    def table(self) -> ObjectTable:
        """Everything added so far.

        Raises:
            ValueError: nothing was.
        """
        if not self._parts:
            raise ValueError("no object of a measured class was predicted: there is nothing to report")
        return ObjectTable(**{name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]})


def _distance_from_recorder_m(scene: Scene, rows: Index) -> Float:
    sdc = scene.sdc_track
    if sdc < 0 or not scene.track_valid[sdc, CURRENT_STEP]:
        return np.full(len(rows), np.nan)
    offset = (scene.track_states[rows, CURRENT_STEP, :2] - scene.track_states[sdc, CURRENT_STEP, :2]).astype(np.float64)
    return np.hypot(offset[:, 0], offset[:, 1])


def _lidar_points(scene: Scene, rows: Index) -> Float:
    if scene.lidar is None:
        return np.full(len(rows), np.nan)
    position = {row: index for index, row in enumerate(scene.tracks_to_predict.tolist())}
    count = scene.lidar.count_in_box[:, CURRENT_STEP]
    return np.array([float(count[position[row]]) if row in position else np.nan for row in rows.tolist()])
