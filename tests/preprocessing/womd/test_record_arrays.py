"""Reading a record's bytes gives what parsing it gives, however the record is written."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.womd import record_arrays, schema
from preprocessing.womd.errors import ScenarioError
from preprocessing.womd.record_arrays import ScenarioArrays, arrays_of, read_arrays
from preprocessing.womd.scenario import may_have_lidar, parse_scenario, record_to_scene, scenario_to_scene
from preprocessing.womd.tfrecord import iter_records
from tests.preprocessing.womd.test_scenario import GOLDEN_CROPS, small_scenario

doubles = st.sampled_from([0.0, 1.5, -7785.25, 1e300, 5e-324]) | st.floats(width=64)
small = st.sampled_from([0.0, 2.0, -0.25])


def varint(value: int, *, padding: int = 0) -> bytes:
    """A varint, longer than needed by `padding` bytes."""
    digits = []
    value &= 2**64 - 1
    while True:
        digits.append(value & 127)
        value >>= 7
        if not value:
            break
    digits += [0] * padding
    return bytes([digit | 128 for digit in digits[:-1]] + [digits[-1]])


def number(field: int, value: float, kind: str = "<d") -> bytes:
    return varint(field << 3 | (1 if kind == "<d" else 5)) + struct.pack(kind, value)


def integer(field: int, value: int, padding: int = 0) -> bytes:
    return varint(field << 3, padding=padding) + varint(value, padding=padding)


def nested(field: int, body: bytes, padding: int = 0) -> bytes:
    return varint(field << 3 | 2) + varint(len(body), padding=padding) + body


# Fields of later versions of the format, of every wire type; and numbers that look like states and points.
unknown = st.sampled_from(
    [
        integer(15, 300), number(14, 1.0), number(15, 1.0, "<f"), nested(13, b"\x1a\x0b" * 9), integer(700, 5),
        nested(901, b"x"),
        varint(12 << 3 | 3) + integer(1, 7) + varint(12 << 3 | 4),  # a group
    ]
)  # fmt: skip


@st.composite
def messages(draw: st.DrawFn, usual: st.SearchStrategy[list[bytes]]) -> bytes:
    """The fields of a message: mostly as they come, at times in another order, with some missing, twice or unknown."""
    fields = draw(usual)
    if draw(st.integers(0, 3)) == 0:
        fields = draw(st.permutations(fields))
        fields = [field for field in fields if draw(st.integers(0, 7))]
        fields += draw(st.lists(unknown, max_size=2)) + draw(st.lists(st.sampled_from(fields or [b""]), max_size=1))
        fields = draw(st.permutations(fields))
    return b"".join(fields)


@st.composite
def full_state(draw: st.DrawFn) -> list[bytes]:
    kinds = ["<d"] * 3 + ["<f"] * 6
    return [number(2 + place, draw(small), kind) for place, kind in enumerate(kinds)] + [integer(11, draw(st.integers(0, 1)))]


short_state = st.builds(lambda z, valid: [number(4, z), integer(11, valid)], doubles, st.integers(0, 1) | st.just(2))
states = messages(full_state()) | messages(short_state)
points = messages(st.builds(lambda x, y, z: [number(1, x), number(2, y), number(3, z)], doubles, small, small))


def repeated(field: int, parts: st.SearchStrategy[bytes], most: int) -> st.SearchStrategy[list[bytes]]:
    padded = st.builds(lambda part, long: nested(field, part, int(long == 9)), parts, st.integers(0, 9))
    return st.lists(padded, max_size=most)


tracks = messages(
    st.builds(lambda name, kind, parts: [integer(1, name), integer(2, kind), *parts],
              st.integers(0, 3000), st.integers(0, 6), repeated(3, states, 6))
)  # fmt: skip
lights = messages(
    st.builds(lambda lane, state, stop: [integer(1, lane), integer(2, state), nested(3, stop)],
              st.integers(0, 3000) | st.sampled_from([-1, 2**40]), st.integers(0, 11), points)
)  # fmt: skip


@st.composite
def features(draw: st.DrawFn) -> bytes:
    kind, field = draw(st.sampled_from([(3, 8), (4, 2), (5, 2), (7, 2), (8, 1), (9, 1), (10, 1), (11, 1)]))
    before = [integer(2, draw(st.integers(0, 9)))] if kind == 3 else [integer(1, draw(st.integers(0, 9)))] if kind < 7 else []
    after = [nested(11, integer(1, 5)), nested(9, b"\x05\x06")] if kind == 3 else []
    if draw(st.integers(0, 7)) == 0:  # a field of a later version, written like the points
        after = [nested(draw(st.sampled_from([1, 2, 8])), draw(points)), *after]
    if kind == 7:
        before, most = [integer(1, 44)], 2
    else:
        most = 5
    body = draw(messages(repeated(field, points, most).map(lambda parts: before + parts + after)))
    parts = [integer(1, draw(st.integers(0, 500))), nested(kind, body)]
    if draw(st.integers(0, 9)) == 0:
        parts.append(nested(draw(st.sampled_from([3, 4, 8])), body))
    return draw(messages(st.just(parts)))


records = messages(
    st.builds(
        lambda times, rows, moments, parts, lasers: [
            *(number(1, time) for time in times), *(nested(2, row) for row in rows), nested(5, b"name"), integer(10, 10),
            *(nested(7, moment) for moment in moments), *(nested(8, part) for part in parts), *lasers,
        ],
        st.lists(small, max_size=2), st.lists(tracks, max_size=3),
        st.lists(messages(repeated(1, lights, 3)), max_size=3), st.lists(features(), max_size=4),
        st.lists(st.just(nested(12, b"")), max_size=1),
    )
)  # fmt: skip


def assert_same(quick: ScenarioArrays, slow: ScenarioArrays) -> None:
    for name in ("num_states", "states", "signals", "stops_m", "has_stop"):
        np.testing.assert_array_equal(getattr(quick, name), getattr(slow, name), err_msg=name, strict=True)
    for field in dataclasses.fields(slow.features):
        np.testing.assert_array_equal(
            getattr(quick.features, field.name), getattr(slow.features, field.name), err_msg=field.name, strict=True
        )
    for row, track in enumerate(slow.message.tracks):
        assert (quick.message.tracks[row].id, quick.message.tracks[row].object_type) == (track.id, track.object_type)
    assert quick.message.scenario_id == slow.message.scenario_id
    assert list(quick.message.timestamps_seconds) == list(slow.message.timestamps_seconds)


@settings(max_examples=400, deadline=None)
@given(data=records)
def test_arrays_of_the_bytes_are_those_of_the_parsed_message(data: bytes) -> None:
    try:
        message = schema.Scenario.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            read_arrays(data)
        return
    assert_same(read_arrays(data), arrays_of(message))
    assert may_have_lidar(data) or not message.compressed_frame_laser_data


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_record_is_read_or_refused_as_protobuf_does(data: st.DataObject) -> None:
    raw = bytearray(small_scenario(11).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(raw[: data.draw(st.integers(1, len(raw)))]) if data.draw(st.booleans()) else bytes(raw)
    try:
        message = schema.Scenario.FromString(damaged)
    except DecodeError:
        with pytest.raises(DecodeError):
            read_arrays(damaged)
        return
    assert_same(read_arrays(damaged), arrays_of(message))


def test_a_usual_record_leaves_nothing_for_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    (_, data), *_ = iter_records(GOLDEN_CROPS)
    data += small_scenario().SerializeToString()  # further tracks, features and steps of the same record

    def never(part: Any) -> Any:
        raise AssertionError("read one by one")

    expected = arrays_of(schema.Scenario.FromString(data))
    for name in ("_state_parts", "_light_rows", "feature_points", "arrays_of"):
        monkeypatch.setattr(record_arrays, name, never)
    assert_same(read_arrays(data), expected)


@pytest.mark.parametrize(("kind", "points_tag"), [(3, 8), (4, 2), (5, 2), (8, 1), (9, 1), (10, 1)])
def test_another_field_written_like_the_points_is_no_point(kind: int, points_tag: int) -> None:
    point = number(1, 1.5) + number(2, 2.0) + number(3, 0.0)
    # Every tag that points have in one of the kinds of features, behind the points and between them.
    for other in {1, 2, 8} - {points_tag}:
        for order in ([points_tag, points_tag, other], [points_tag, other, points_tag], [other, points_tag]):
            body = b"".join(nested(tag, point) for tag in order)
            data = nested(8, integer(1, 7) + nested(kind, body)) + nested(
                8, integer(1, 8) + nested(kind, nested(points_tag, point))
            )
            arrays = read_arrays(data)
            assert arrays.features.length.tolist() == [order.count(points_tag), 1]
            assert_same(arrays, arrays_of(schema.Scenario.FromString(data)))


def test_scenes_and_errors_are_those_of_the_parsed_message() -> None:
    whole = small_scenario()
    quick, slow = record_to_scene(whole.SerializeToString()), scenario_to_scene(whole)
    for field in dataclasses.fields(slow):
        np.testing.assert_array_equal(getattr(quick, field.name), getattr(slow, field.name), err_msg=field.name)
    whole.tracks[1].states[3].center_x = np.nan
    with pytest.raises(ScenarioError) as caught:
        scenario_to_scene(whole, source="file 3")
    with pytest.raises(ScenarioError) as quick_caught:
        record_to_scene(whole.SerializeToString(), source="file 3")
    assert str(quick_caught.value) == str(caught.value)
    with pytest.raises(ScenarioError, match="serialized Scenario, cannot be parsed"):
        record_to_scene(whole.SerializeToString()[:-1], source="file 3")


def test_only_records_with_laser_frames_have_to_be_parsed_for_them() -> None:
    (_, data), *_ = iter_records(GOLDEN_CROPS)
    assert may_have_lidar(data)
    assert parse_scenario(data, source="").compressed_frame_laser_data
    assert not may_have_lidar(small_scenario().SerializeToString())
