"""Scene: one scenario as the whole project sees it - tracks, map, signals and LiDAR crops.

Everything spatial is float32 in the *scene frame*: world axes, translated so that `origin_m` (float64, world) is zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NUM_HISTORY_STEPS = 11  # ten past steps and the current one
NUM_FUTURE_STEPS = 80
STEP_S = 0.1
POINTS_PER_POLYLINE = 20

STATE_FIELDS = ("x", "y", "z", "length", "width", "height", "heading", "vx", "vy")
LIDAR_FEATURES = ("range", "intensity", "elongation")


class ObjectType(IntEnum):
    """Track types with WOMD's own numbers."""

    UNSET = 0
    VEHICLE = 1
    PEDESTRIAN = 2
    CYCLIST = 3
    OTHER = 4


PREDICTED_TYPES = (ObjectType.VEHICLE, ObjectType.PEDESTRIAN, ObjectType.CYCLIST)


class SceneError(ValueError):
    """A scene whose fields contradict each other; the message names scenario, field and expectation."""


@dataclass(frozen=True, kw_only=True)
class LidarCrops:
    """LiDAR points inside the (grown) box of each track to predict, in the box frame of each history step.

    Agents follow `Scene.tracks_to_predict`, frames the 11 history steps; points are stored agent by agent, frame by frame.
    """

    points_m: FloatArray
    """(N, 3) x forward, y left, z up from the box centre of that step."""
    features: FloatArray
    """(N, 3) range (m), intensity, elongation: `LIDAR_FEATURES`."""
    count: IntArray
    """(C, 11) stored points per agent and frame; sums to N."""
    count_in_box: IntArray
    """(C, 11) points found in the box before the cap."""
    empty_share: float
    """Share of agent-frames with a valid state but no point; NaN if no agent-frame is valid."""
    best_shift: int
    """Frame shift (-10..10) between boxes and LiDAR that catches most points; 0 means aligned."""

    def frame(self, agent: int, frame: int) -> tuple[FloatArray, FloatArray]:
        """Points (n, 3) and features (n, 3) of one agent at one history step."""
        flat = agent * self.count.shape[1] + frame
        start = int(self.count.ravel()[:flat].sum())
        stop = start + int(self.count[agent, frame])
        return self.points_m[start:stop], self.features[start:stop]

    def keep_agents(self, positions: IntArray) -> LidarCrops:
        """The crops of these agents only, in this order."""
        if np.array_equal(positions, np.arange(len(self.count))):
            return self
        stop = np.cumsum(self.count.sum(axis=1))
        start = stop - self.count.sum(axis=1)
        pieces = [slice(start[agent], stop[agent]) for agent in positions.tolist()]
        return replace(
            self,
            points_m=np.concatenate([self.points_m[:0], *(self.points_m[piece] for piece in pieces)]),
            features=np.concatenate([self.features[:0], *(self.features[piece] for piece in pieces)]),
            count=self.count[positions],
            count_in_box=self.count_in_box[positions],
        )


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One scenario.

    T is 91 (11 for the test split). States of invalid steps are all zero. `validate()` raises `SceneError`.
    """

    scenario_id: str
    origin_m: npt.NDArray[np.float64]
    """(3,) world position of the scene frame's zero."""
    timestamps_s: npt.NDArray[np.float64]
    """(T,)"""
    current_step: int
    sdc_track: int
    """Row of the autonomous vehicle, -1 if the record names none."""

    track_id: IntArray
    """(A,) object ids as in the record."""
    track_type: IntArray
    """(A,) `ObjectType` numbers."""
    track_states: FloatArray
    """(A, T, 9) `STATE_FIELDS`: metres, radians, metres per second."""
    track_valid: BoolArray
    """(A, T)"""
    tracks_to_predict: IntArray
    """(C,) rows of the tracks to predict, in the record's order."""
    difficulty: IntArray
    """(C,) 0 none, 1 level 1, 2 level 2."""
    objects_of_interest: IntArray
    """(n,) object ids of the interactive group."""

    map_points_m: FloatArray
    """(M, 3) every map point once, feature after feature."""
    feature_length: IntArray
    """(E,) points of each map feature; sums to M."""
    feature_type: IntArray
    """(E,) MTR's polyline type ids (motion_model 1.1), driveway 20."""
    feature_id: IntArray
    """(E,) ids of the record."""
    polyline_length: IntArray
    """(P,) points (1..20) of each polyline, cut from `map_points_m` in order; sums to M."""

    signal_step: IntArray
    """(G,) time step of each traffic-light observation."""
    signal_lane: IntArray
    """(G,) map feature id of the controlled lane."""
    signal_state: IntArray
    """(G,) WOMD's TrafficSignalLaneState.State, 0..8."""
    signal_stop_m: FloatArray
    """(G, 3) stop point."""

    lidar: LidarCrops | None
    """None where the scene has no LiDAR."""

    @property
    def num_tracks(self) -> int:
        """A."""
        return int(self.track_id.shape[0])

    @property
    def num_steps(self) -> int:
        """T."""
        return int(self.timestamps_s.shape[0])

    @property
    def has_future(self) -> bool:
        """Whether steps after the current one are present (they are not in the test split)."""
        return self.num_steps > self.current_step + 1

    def predictable(self) -> IntArray:
        """Positions within `tracks_to_predict` whose track is valid at the current step: only these can be centred."""
        valid_now = self.track_valid[self.tracks_to_predict, self.current_step]
        return np.flatnonzero(valid_now).astype(np.int64)

    def keep_targets(self, positions: IntArray) -> Scene:
        """The scene with only these positions of `tracks_to_predict` (and their LiDAR points) left as targets."""
        return replace(
            self,
            tracks_to_predict=self.tracks_to_predict[positions],
            difficulty=self.difficulty[positions],
            lidar=None if self.lidar is None else self.lidar.keep_agents(positions),
        )

    def validate(self) -> Scene:
        """Check shapes, ranges and finiteness; return self so that calls chain."""
        num_tracks, num_steps = self.num_tracks, self.num_steps
        num_points, num_features = self.map_points_m.shape[0], self.feature_length.shape[0]
        num_targets, num_signals = self.tracks_to_predict.shape[0], self.signal_step.shape[0]
        shapes: dict[str, tuple[int, ...]] = {
            "origin_m": (3,),
            "track_type": (num_tracks,),
            "track_states": (num_tracks, num_steps, len(STATE_FIELDS)),
            "track_valid": (num_tracks, num_steps),
            "difficulty": (num_targets,),
            "map_points_m": (num_points, 3),
            "feature_type": (num_features,),
            "feature_id": (num_features,),
            "signal_lane": (num_signals,),
            "signal_state": (num_signals,),
            "signal_stop_m": (num_signals, 3),
        }
        for name, expected in shapes.items():
            self._require(getattr(self, name).shape == expected, name, f"shape {expected}, has {getattr(self, name).shape}")
        for name in ("origin_m", "timestamps_s", "track_states", "map_points_m", "signal_stop_m"):
            self._require(bool(np.isfinite(getattr(self, name)).all()), name, "finite numbers only")
        self._require(0 <= self.current_step < num_steps, "current_step", f"0..{num_steps - 1}, is {self.current_step}")
        self._require(-1 <= self.sdc_track < num_tracks, "sdc_track", f"-1..{num_tracks - 1}, is {self.sdc_track}")
        targets = self.tracks_to_predict
        in_range = bool(((targets >= 0) & (targets < num_tracks)).all())
        self._require(in_range, "tracks_to_predict", f"rows below {num_tracks}, has {targets.tolist()}")
        self._require(len(set(targets.tolist())) == len(targets), "tracks_to_predict", "no row twice")
        self._require(int(self.feature_length.sum()) == num_points, "feature_length", f"a sum of {num_points}")
        self._require(int(self.polyline_length.sum()) == num_points, "polyline_length", f"a sum of {num_points}")
        fits = bool(((self.polyline_length >= 1) & (self.polyline_length <= POINTS_PER_POLYLINE)).all())
        self._require(fits, "polyline_length", f"1..{POINTS_PER_POLYLINE} points each")
        self._require(not self.track_states[~self.track_valid].any(), "track_states", "zeros where invalid")
        if self.lidar is not None:
            self._validate_lidar(self.lidar)
        return self

    def _validate_lidar(self, lidar: LidarCrops) -> None:
        expected = (self.tracks_to_predict.shape[0], NUM_HISTORY_STEPS)
        total = int(lidar.count.sum())
        self._require(lidar.count.shape == expected, "lidar.count", f"shape {expected}, has {lidar.count.shape}")
        self._require(lidar.count_in_box.shape == expected, "lidar.count_in_box", f"shape {expected}")
        self._require(lidar.points_m.shape == (total, 3), "lidar.points_m", f"{total} points, has {lidar.points_m.shape}")
        self._require(lidar.features.shape == (total, 3), "lidar.features", f"{total} rows, has {lidar.features.shape}")
        finite = bool(np.isfinite(lidar.points_m).all() and np.isfinite(lidar.features).all())
        self._require(finite, "lidar", "finite numbers only")

    def _require(self, condition: bool, field: str, expectation: str) -> None:
        if not condition:
            raise SceneError(f"scenario {self.scenario_id!r}: field {field} must have {expectation}")
