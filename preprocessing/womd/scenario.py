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
from preprocessing.womd.fields import UnusualError, top_fields
from preprocessing.womd.map_features import MapFeatures
from preprocessing.womd.record_arrays import STATE_READER, ScenarioArrays, arrays_of, read_arrays

__all__ = ["ScenarioError", "may_have_lidar", "parse_scenario", "record_to_scene", "scenario_to_scene"]

_LASER_FRAMES_TAG = 12 << 3 | 2

Float64Array = npt.NDArray[np.float64]


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


def record_to_scene(data: bytes, *, source: str = "") -> Scene:
    """The scene of a record, without LiDAR: that of `scenario_to_scene(parse_scenario(data))`, without parsing all of it.

    Raises:
        ScenarioError: as those two.
    """
    try:
        return _to_scene(read_arrays(data), source)
    except (DecodeError, ScenarioError):
        # The plain way says what is wrong.
        return scenario_to_scene(parse_scenario(data, source=source), source=source)


def may_have_lidar(data: bytes) -> bool:
    """Whether a record has laser frames, or is written so that only parsing it can tell."""
    try:
        return any(tag in (0, _LASER_FRAMES_TAG) for tag, *_ in top_fields(data))
    except UnusualError:
        return True


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
    return _to_scene(arrays_of(message), source)


def _to_scene(arrays: ScenarioArrays, source: str) -> Scene:
    message, features = arrays.message, arrays.features
    scenario_id = message.scenario_id
    if not scenario_id or not isinstance(scenario_id, str):  # protobuf hands out text that is not UTF-8 as bytes
        expected = f"a text, is {scenario_id!r}; give the scenario files, not the tf_example ones"
        raise scenario_error(source, "", "scenario_id", expected)
    current = message.current_time_index
    if current != NUM_HISTORY_STEPS - 1:
        expected = f"{NUM_HISTORY_STEPS - 1} (ten history steps, as in every WOMD record), is {current}"
        raise scenario_error(source, scenario_id, "current_time_index", expected)
    num_steps, num_tracks = _num_steps(arrays, source), len(message.tracks)
    sdc = message.sdc_track_index if message.HasField("sdc_track_index") else -1
    if message.HasField("sdc_track_index"):
        _require_row(sdc, num_tracks, source, scenario_id, "sdc_track_index")
    targets = [target.track_index for target in message.tracks_to_predict]
    for position, row in enumerate(targets):
        _require_row(row, num_tracks, source, scenario_id, f"tracks_to_predict[{position}].track_index")

    states, valid = _read_states(arrays, num_steps, source)
    _require_finite_map(features, source, scenario_id)
    origin_m = _origin(states, valid, sdc, current, features)
    states[..., :3] -= np.where(valid[..., None], origin_m, 0.0)
    observed = arrays.signals[:, 0] < num_steps
    signals = arrays.signals[observed]
    stops_m = np.where(arrays.has_stop[observed, None], arrays.stops_m[observed], origin_m) - origin_m
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
            signal_step=signals[:, 0],
            signal_lane=signals[:, 1],
            signal_state=signals[:, 2],
            signal_stop_m=_float32(stops_m),
            lidar=None,
        ).validate()
    except SceneError as error:
        raise ScenarioError(f"{source or 'record'}: {error}") from error


def _num_steps(arrays: ScenarioArrays, source: str) -> int:
    """T: the number of timestamps, or of history steps if the tracks end there while the timestamps go on."""
    message, lengths = arrays.message, arrays.num_states.tolist()
    num_timestamps = len(message.timestamps_seconds)
    num_steps = NUM_HISTORY_STEPS if lengths and set(lengths) == {NUM_HISTORY_STEPS} else num_timestamps
    if not NUM_HISTORY_STEPS <= num_steps <= num_timestamps:
        expected = f"at least {NUM_HISTORY_STEPS} (the history), has {num_timestamps} values; is this a motion record?"
        raise scenario_error(source, message.scenario_id, "timestamps_seconds", expected)
    for row, length in enumerate(lengths):
        if length != num_steps:
            expected = f"{num_steps} states long (one per timestamp), has {length}"
            raise scenario_error(source, message.scenario_id, f"tracks[{row}] (id {message.tracks[row].id})", expected)
    return num_steps


def _read_states(arrays: ScenarioArrays, num_steps: int, source: str) -> tuple[Float64Array, BoolArray]:
    """(A, T, 9) `STATE_FIELDS` in world coordinates, zero where invalid; (A, T) validity."""
    # The record's field numbers rise in the order of STATE_FIELDS, `valid` last.
    table = arrays.states.reshape(len(arrays.num_states), num_steps, len(STATE_FIELDS) + 1)
    states, valid = table[..., :-1], table[..., -1] != 0
    states[~valid] = 0.0
    broken = np.argwhere(~np.isfinite(states))
    if len(broken):
        row, step, column = broken[0].tolist()
        message = arrays.message
        field = f"tracks[{row}] (id {message.tracks[row].id}) states[{step}].{STATE_READER.names[column]}"
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
