"""A Scenario record as arrays: states, map points and traffic lights by the thousand, and a message for what is left.

`arrays_of` reads a parsed message. `read_arrays` reads the bytes: it cuts the runs of parts in known layouts out of the
record and lets protobuf parse the rest, so that whatever is written differently is still read by protobuf, and equally.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from limtr.scene import BoolArray, IntArray
from preprocessing.womd import schema
from preprocessing.womd.fields import UnusualError, after_field, after_length, find_tag, length_prefix, top_fields
from preprocessing.womd.layouts import Layout, layout_of, varint_values
from preprocessing.womd.map_features import POINT_READER, MapFeatures, feature_points, feature_type, has_points, read_map
from preprocessing.womd.runs import find_runs
from preprocessing.womd.wire import PartReader

Float64Array = npt.NDArray[np.float64]
_Number = TypeVar("_Number", bound=np.generic)

# Real records write invalid states as their height and the flag alone.
STATE_READER = PartReader(schema.ObjectState, ("center_z", "valid"))

_TRACKS, _SIGNALS, _FEATURES = 2 << 3 | 2, 7 << 3 | 2, 8 << 3 | 2
_TAG_BYTE = {tag: bytes([tag]) for tag in (_TRACKS, _SIGNALS, _FEATURES)}
_STATES, _LIGHTS = 3 << 3 | 2, 1 << 3 | 2
_Run = tuple[int, int, int]
"""A run of parts: its first row, the row after the last one, and where it ends."""
_Owner = tuple[_Run | None, int, int]
"""A track, step or feature of the record: the run that was cut out of it, and where it stands."""

_LANE, _STOP_SIGN = 3 << 3 | 2, 7 << 3 | 2
_POINTS_OF_FEATURE = {
    _LANE: 8 << 3 | 2, 4 << 3 | 2: 2 << 3 | 2, 5 << 3 | 2: 2 << 3 | 2, _STOP_SIGN: 2 << 3 | 2,
    8 << 3 | 2: 1 << 3 | 2, 9 << 3 | 2: 1 << 3 | 2, 10 << 3 | 2: 1 << 3 | 2,
}  # fmt: skip
"""Tag of the kind of feature -> tag of its points: lane, road line and edge, stop sign, crosswalk, speed bump, driveway."""
_POINT_TAGS = tuple(set(_POINTS_OF_FEATURE.values()))

_POINT_LAYOUT = layout_of(schema.MapPoint.DESCRIPTOR.fields)


def _light_layout(lane_bytes: int) -> Layout:
    lane, state, stop = (
        schema.TrafficSignalLaneState.DESCRIPTOR.fields_by_name[name] for name in ("lane", "state", "stop_point")
    )
    highest = max(value.number for value in state.enum_type.values)
    return Layout().varint(lane, lane_bytes).varint(state, 1, highest=highest).part(stop, _POINT_LAYOUT)


_LIGHT_LAYOUTS = tuple(map(_light_layout, range(1, 4)))


@dataclass(frozen=True, kw_only=True)
class ScenarioArrays:
    """What a record says, in world coordinates; nothing is checked yet."""

    message: Any
    """The Scenario; from `read_arrays` without the parts that are in the arrays."""
    num_states: IntArray
    """(A,) states of each track."""
    states: Float64Array
    """(sum of num_states, 10) `STATE_READER.names`, track after track."""
    features: MapFeatures
    signals: IntArray
    """(G, 3) step, lane id and state of every traffic-light observation."""
    stops_m: Float64Array
    """(G, 3) stop points; what the record leaves out is zero."""
    has_stop: BoolArray
    """(G,)"""


def arrays_of(message: Any) -> ScenarioArrays:
    """The arrays of a `schema.Scenario`."""
    parts = [_state_parts(track) for track in message.tracks]
    lights = [_light_rows(map_state) for map_state in message.dynamic_map_states]
    keys, stops, has_stop = _light_tables([row for rows in lights for row in rows])
    return ScenarioArrays(
        message=message,
        num_states=np.array(list(map(len, parts)), dtype=np.int64),
        states=STATE_READER.read([part for track in parts for part in track]),
        features=read_map(message.map_features),
        signals=np.column_stack([np.repeat(np.arange(len(lights)), list(map(len, lights))), keys]),
        stops_m=stops,
        has_stop=has_stop,
    )


def read_arrays(data: bytes) -> ScenarioArrays:
    """The arrays of a serialized Scenario: those of `arrays_of` for the parsed message, several times as fast.

    Raises:
        DecodeError: the bytes are no Scenario message.
    """
    try:
        cut = _Cut(data)
    except UnusualError:
        return arrays_of(schema.Scenario.FromString(data))
    message = schema.Scenario.FromString(cut.rest)
    num_states, states = _collect_states(cut, message)
    signals, stops, has_stop = _collect_lights(cut, message)
    return ScenarioArrays(
        message=message,
        num_states=num_states,
        states=states,
        features=_collect_features(cut, message),
        signals=signals,
        stops_m=stops,
        has_stop=has_stop,
    )


class _Cut:
    """A record cut into runs of known parts and the rest, which is a Scenario message too."""

    def __init__(self, data: bytes) -> None:
        fields = list(top_fields(data))
        view = np.frombuffer(data, dtype=np.uint8)
        self.data, self.view = data, view
        self.owners: dict[int, list[_Owner]] = {_TRACKS: [], _SIGNALS: [], _FEATURES: []}
        spans: dict[int, tuple[int, int]] = {}
        for tag, _, value, after in fields:
            if tag in self.owners:
                spans[tag] = (spans[tag][0] if tag in spans else value, after)
        nowhere = (0, 0)
        self.states = find_runs(view, spans.get(_TRACKS, nowhere), (_STATES,), STATE_READER.layouts)
        self.lights = find_runs(view, spans.get(_SIGNALS, nowhere), (_LIGHTS,), _LIGHT_LAYOUTS)
        self.points = find_runs(view, spans.get(_FEATURES, nowhere), _POINT_TAGS, (_POINT_LAYOUT,))
        rest = []
        tracks, lights = self.states.by_start, self.lights.by_start
        for tag, place, value, after in fields:
            if tag == _FEATURES:
                run, body = self._cut_feature(value, after)
            elif tag == _TRACKS:
                run, body = _cut_part(data, value, after, tracks, _STATES)
            elif tag == _SIGNALS:
                run, body = _cut_part(data, value, after, lights, _LIGHTS)
            else:
                rest.append(data[place:after])
                continue
            self.owners[tag].append((run, value, after))
            rest += (_TAG_BYTE[tag], length_prefix(len(body)), body)
        self.rest = b"".join(rest)

    def _cut_feature(self, begin: int, stop: int) -> tuple[_Run | None, bytes]:
        """As `_cut_part` for a map feature, whose points are one level deeper."""
        data, place = self.data, begin
        while place < stop and (part_tag := _POINTS_OF_FEATURE.get(data[place])) is None:
            place = after_field(data, place, stop)
        if place >= stop or part_tag is None:  # a kind that is not known
            return None, data[begin:stop]
        value, end = after_length(data, place + 1, stop)
        if end != stop:  # perhaps a second kind follows, which protobuf merges or puts in the place of the first
            return None, data[begin:stop]
        first = find_tag(data, value, stop, part_tag)
        run = self.points.by_start.get(first)
        if run is None or first >= stop or run[2] > stop:
            return None, data[begin:stop]
        if data[place] == _STOP_SIGN and run[1] - run[0] > 1:  # protobuf merges the points into one
            return None, data[begin:stop]
        left = first - value + stop - run[2]
        return run, data[begin : place + 1] + length_prefix(left) + data[value:first] + data[run[2] : stop]


def _cut_part(
    data: bytes, begin: int, stop: int, by_start: dict[int, tuple[int, int, int]], part_tag: int
) -> tuple[_Run | None, bytes]:
    """The run that a message's parts begin with, and the message without it; what is left there is for protobuf."""
    place = find_tag(data, begin, stop, part_tag)
    run = by_start.get(place)
    if run is None or place >= stop or run[2] > stop:
        return None, data[begin:stop]
    return run, data[begin:place] + data[run[2] : stop]


class _Rows:
    """Which rows of a table belong to which owner: rows of runs, and further rows that protobuf reads."""

    def __init__(self, num_in_runs: int) -> None:
        self.count: list[int] = []
        self._order: list[tuple[int, int]] = []
        self._next = num_in_runs

    def add_run(self, run: _Run | None) -> None:
        """The next owner has this run, or no rows at all."""
        if run is None:
            self.count.append(0)
            return
        first, stop, _ = run
        self.count.append(stop - first)
        order = self._order
        if order and order[-1][1] == first:
            order[-1] = (order[-1][0], stop)
        else:
            order.append((first, stop))

    def add_slow(self, number: int) -> None:
        """The next owner has so many further rows."""
        self._order.append((self._next, self._next + number))
        self.count.append(number)
        self._next += number

    def ordered(self, in_runs: npt.NDArray[_Number], slow: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
        """The rows of all owners, one after another."""
        if self._order == [(0, len(in_runs))]:  # all of a usual record
            return in_runs
        border = len(in_runs)
        pieces = [slow[a - border : b - border] if a >= border else in_runs[a:b] for a, b in self._order]
        return np.concatenate([in_runs[:0], *pieces])


def _collect_states(cut: _Cut, message: Any) -> tuple[IntArray, Float64Array]:
    table = np.zeros((cut.states.num_places, len(STATE_READER.names)))
    for layout, (where, start) in zip(STATE_READER.layouts, cut.states.parts, strict=True):
        STATE_READER.fill(table, where, layout, cut.view, start)
    rows, slow = _Rows(len(table)), list[bytes]()
    for track, (run, begin, end) in zip(message.tracks, cut.owners[_TRACKS], strict=True):
        if track.states:
            parts = _state_parts(schema.Track.FromString(cut.data[begin:end]))
            slow += parts
            rows.add_slow(len(parts))
        else:
            rows.add_run(run)
    return np.array(rows.count, dtype=np.int64), rows.ordered(table, STATE_READER.read(slow))


def _collect_lights(cut: _Cut, message: Any) -> tuple[IntArray, Float64Array, BoolArray]:
    keys = np.zeros((cut.lights.num_places, 2), dtype=np.int64)
    stops = np.zeros((len(keys), 3))
    for layout, (where, start) in zip(_LIGHT_LAYOUTS, cut.lights.parts, strict=True):
        if len(where):
            keys[where, 0] = varint_values(layout.values(cut.view, start, "lane"))
            keys[where, 1] = layout.values(cut.view, start, "state")[:, 0]
            for column, axis in enumerate("xyz"):
                stops[where, column] = layout.values(cut.view, start, f"stop_point.{axis}")
    rows, slow = _Rows(len(keys)), []
    for map_state, (run, begin, end) in zip(message.dynamic_map_states, cut.owners[_SIGNALS], strict=True):
        if map_state.lane_states:
            lights = _light_rows(schema.DynamicMapState.FromString(cut.data[begin:end]))
            slow += lights
            rows.add_slow(len(lights))
        else:
            rows.add_run(run)
    slow_keys, slow_stops, slow_has_stop = _light_tables(slow)
    step = np.repeat(np.arange(len(rows.count)), rows.count)
    return (
        np.column_stack([step, rows.ordered(keys, slow_keys)]),
        rows.ordered(stops, slow_stops),
        rows.ordered(np.ones(len(keys), dtype=np.bool_), slow_has_stop),
    )


def _collect_features(cut: _Cut, message: Any) -> MapFeatures:
    ((where, start),) = cut.points.parts
    table = np.empty((len(where), 3))
    POINT_READER.fill(table, where, _POINT_LAYOUT, cut.view, start)
    rows, slow = _Rows(len(table)), list[bytes]()
    kinds, ids = list[int](), list[int]()
    for feature, (run, begin, end) in zip(message.map_features, cut.owners[_FEATURES], strict=True):
        # Behind a run that ends with its feature there are no further points.
        if (run is None or run[2] != end) and has_points(feature):
            parts = feature_points(schema.MapFeature.FromString(cut.data[begin:end]))
            slow += parts
            rows.add_slow(len(parts))
        else:
            rows.add_run(run)
        kinds.append(feature_type(feature))
        ids.append(feature.id)
    length = np.array(rows.count, dtype=np.int64)
    kept = length > 0
    return MapFeatures(
        points_m=rows.ordered(table, POINT_READER.read(slow)),
        length=length[kept],
        type=np.array(kinds, dtype=np.int64)[kept],
        id=np.array(ids, dtype=np.int64)[kept],
    )


def _state_parts(track: Any) -> Sequence[bytes]:
    """The serialized states of a track."""
    parts: Sequence[bytes] = schema.TrackParts.FromString(track.SerializeToString()).states
    return parts


def _light_rows(map_state: Any) -> list[tuple[int, int, bool, float, float, float]]:
    """Lane, state, whether there is a stop point, and the stop point of each light."""
    return [
        (light.lane, light.state, light.HasField("stop_point"), light.stop_point.x, light.stop_point.y, light.stop_point.z)
        for light in map_state.lane_states
    ]


def _light_tables(
    lights: Sequence[tuple[int, int, bool, float, float, float]],
) -> tuple[IntArray, Float64Array, BoolArray]:
    keys = np.array([row[:2] for row in lights], dtype=np.int64).reshape(-1, 2)
    stops = np.array([row[3:] for row in lights], dtype=np.float64).reshape(-1, 3)
    return keys, stops, np.array([row[2] for row in lights], dtype=np.bool_)
