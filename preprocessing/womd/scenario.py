"""Scenario records to scenes: tracks, map, traffic lights and what is to be predicted (LiDAR is added elsewhere)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from limtr.scene import NUM_HISTORY_STEPS, STATE_FIELDS, BoolArray, IntArray, Scene, SceneError
from preprocessing.polylines import cut_polylines
from preprocessing.womd import schema
from preprocessing.womd.errors import ScenarioError, scenario_error
from preprocessing.womd.map_features import MapFeatures, read_map
from preprocessing.womd.wire import PartReader

__all__ = ["ScenarioError", "parse_scenario", "scenario_to_scene"]

Float64Array = npt.NDArray[np.float64]

# Real records write invalid states as their height and the flag alone.
_STATES = PartReader(schema.ObjectState, ("center_z", "valid"))


def parse_scenario(data: bytes, *, source: str) -> Any:
    """The Scenario message of one record.

    Args:
        data: a record of the motion files, or of a per-scenario LiDAR file.
        source: where the data came from (file and record), for error messages.

    Raises:
        ScenarioError: the bytes are no Scenario message.
    """
    try:
        message = schema.Scenario.FromString(data)
    except DecodeError as error:
        reason = f"a serialized Scenario, cannot be parsed ({error}); give the scenario files, not the tf_example ones"
        raise scenario_error(source, "", "the data", reason) from error
    if not message.ListFields():
        raise scenario_error(source, "", "the data", f"a serialized Scenario, has {len(data)} bytes and no known field")
    return message


def scenario_to_scene(message: Any, *, source: str = "") -> Scene:
    """The scene of a Scenario message, without LiDAR.

    The scene frame's zero is the recording vehicle's position at the current step; where the record names no such vehicle
    or its state is invalid, the mean position of the tracks that are valid at that step, then of the map points, and the
    world's zero if there is neither. Differences are taken in float64, so that float32 is enough for the rest.

    States are zero where the record calls them invalid, whatever it holds there. A record may end at the current step (test
    split). Map features without points are left out. A traffic light without a stop point has it at the scene frame's zero.

    Args:
        message: a `schema.Scenario`.
        source: where the record came from (file and record), for error messages.

    Raises:
        ScenarioError: a field is missing, out of range or not finite.
    """
    scenario_id = message.scenario_id
    if not scenario_id or not isinstance(scenario_id, str):  # protobuf hands out text that is not UTF-8 as bytes
        expected = f"a text, is {scenario_id!r}; give the scenario files, not the tf_example ones"
        raise scenario_error(source, "", "scenario_id", expected)
    current = message.current_time_index
    if current != NUM_HISTORY_STEPS - 1:
        expected = f"{NUM_HISTORY_STEPS - 1} (ten history steps, as in every WOMD record), is {current}"
        raise scenario_error(source, scenario_id, "current_time_index", expected)
    num_steps, num_tracks = _num_steps(message, source), len(message.tracks)
    sdc = message.sdc_track_index if message.HasField("sdc_track_index") else -1
    if message.HasField("sdc_track_index"):
        _require_row(sdc, num_tracks, source, scenario_id, "sdc_track_index")
    targets = [target.track_index for target in message.tracks_to_predict]
    for position, row in enumerate(targets):
        _require_row(row, num_tracks, source, scenario_id, f"tracks_to_predict[{position}].track_index")

    states, valid = _read_states(message, num_steps, source)
    features = read_map(message.map_features)
    _require_finite_map(features, source, scenario_id)
    origin_m = _origin(states, valid, sdc, current, features)
    states[..., :3] -= np.where(valid[..., None], origin_m, 0.0)
    signal_keys, signal_stop_m = _read_signals(message, num_steps, origin_m)
    try:
        return Scene(
            scenario_id=scenario_id,
            origin_m=origin_m,
            timestamps_s=np.array(message.timestamps_seconds[:num_steps], dtype=np.float64),
            current_step=current,
            sdc_track=sdc,
            track_id=_integers(track.id for track in message.tracks),
            track_type=_integers(track.object_type for track in message.tracks),
            track_states=_float32(states),
            track_valid=valid,
            tracks_to_predict=_integers(targets),
            difficulty=_integers(target.difficulty for target in message.tracks_to_predict),
            objects_of_interest=_integers(message.objects_of_interest),
            map_points_m=_float32(features.points_m - origin_m),
            feature_length=features.length,
            feature_type=features.type,
            feature_id=features.id,
            polyline_length=cut_polylines(features.points_m),
            signal_step=signal_keys[:, 0],
            signal_lane=signal_keys[:, 1],
            signal_state=signal_keys[:, 2],
            signal_stop_m=_float32(signal_stop_m),
            lidar=None,
        ).validate()
    except SceneError as error:
        raise ScenarioError(f"{source or 'record'}: {error}") from error


def _num_steps(message: Any, source: str) -> int:
    """T: the number of timestamps, or of history steps if the tracks end there while the timestamps go on."""
    num_timestamps = len(message.timestamps_seconds)
    lengths = [len(track.states) for track in message.tracks]
    num_steps = NUM_HISTORY_STEPS if lengths and set(lengths) == {NUM_HISTORY_STEPS} else num_timestamps
    if not NUM_HISTORY_STEPS <= num_steps <= num_timestamps:
        expected = f"at least {NUM_HISTORY_STEPS} (the history), has {num_timestamps} values; is this a motion record?"
        raise scenario_error(source, message.scenario_id, "timestamps_seconds", expected)
    for row, length in enumerate(lengths):
        if length != num_steps:
            expected = f"{num_steps} states long (one per timestamp), has {length}"
            raise scenario_error(source, message.scenario_id, f"tracks[{row}] (id {message.tracks[row].id})", expected)
    return num_steps


def _read_states(message: Any, num_steps: int, source: str) -> tuple[Float64Array, BoolArray]:
    """(A, T, 9) `STATE_FIELDS` in world coordinates, zero where invalid; (A, T) validity."""
    num_tracks = len(message.tracks)
    parts = [part for track in message.tracks for part in schema.TrackParts.FromString(track.SerializeToString()).states]
    # The record's field numbers rise in the order of STATE_FIELDS, `valid` last.
    table = _STATES.read(parts).reshape(num_tracks, num_steps, len(STATE_FIELDS) + 1)
    states, valid = table[..., :-1], table[..., -1] != 0
    states[~valid] = 0.0
    broken = np.argwhere(~np.isfinite(states))
    if len(broken):
        row, step, column = broken[0].tolist()
        field = f"tracks[{row}] (id {message.tracks[row].id}) states[{step}].{_STATES.names[column]}"
        expected = f"finite in a valid state, is {states[row, step, column]}; leave the record out or mark the state invalid"
        raise scenario_error(source, message.scenario_id, field, expected)
    return states, valid


def _origin(states: Float64Array, valid: BoolArray, sdc: int, current: int, features: MapFeatures) -> Float64Array:
    """(3,) world position of the scene frame's zero, see `scenario_to_scene`."""
    if sdc >= 0 and valid[sdc, current]:
        return states[sdc, current, :3].copy()
    for positions in (states[valid[:, current], current, :3], features.points_m):
        if len(positions):
            return np.asarray(positions.mean(axis=0), dtype=np.float64)
    return np.zeros(3)


def _read_signals(message: Any, num_steps: int, origin_m: Float64Array) -> tuple[IntArray, Float64Array]:
    """(G, 3) step, lane id and state of every traffic-light observation; (G, 3) stop points in the scene frame."""
    keys, stops = [], []
    for step, map_state in enumerate(message.dynamic_map_states[:num_steps]):
        for light in map_state.lane_states:
            point = light.stop_point
            keys.append((step, light.lane, light.state))
            stops.append((point.x, point.y, point.z) if light.HasField("stop_point") else origin_m)
    return np.array(keys, dtype=np.int64).reshape(-1, 3), np.array(stops, dtype=np.float64).reshape(-1, 3) - origin_m


def _require_row(row: int, num_tracks: int, source: str, scenario_id: str, field: str) -> None:
    if not 0 <= row < num_tracks:
        raise scenario_error(source, scenario_id, field, f"the index of one of its {num_tracks} tracks, is {row}")


def _require_finite_map(features: MapFeatures, source: str, scenario_id: str) -> None:
    broken = np.flatnonzero(~np.isfinite(features.points_m).all(axis=1))
    if len(broken):
        feature = int(np.searchsorted(np.cumsum(features.length), broken[0], side="right"))
        expected = f"made of finite points, has {features.points_m[broken[0]].tolist()}"
        raise scenario_error(source, scenario_id, f"the map feature of id {features.id[feature]}", expected)


def _integers(values: Iterable[int]) -> IntArray:
    return np.fromiter(values, dtype=np.int64)


def _float32(values: Float64Array) -> npt.NDArray[np.float32]:
    # What is beyond float32 becomes infinite, and Scene.validate() then names the field.
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
