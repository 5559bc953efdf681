"""Bulk reading gives what protobuf gives, whatever fields are set."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.womd import schema
from preprocessing.womd.wire import PartReader

DOUBLES = ("center_x", "center_y", "center_z")
FLOATS = ("length", "width", "height", "heading", "velocity_x", "velocity_y")
NAMES = (*DOUBLES, *FLOATS, "valid")

states = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.floats(width=64) for name in DOUBLES},
        **{name: st.floats(width=32) for name in FLOATS},
        "valid": st.booleans(),
    },
)
full_states = st.fixed_dictionaries({**{name: st.floats(-1e4, 1e4, width=32) for name in NAMES[:-1]}, "valid": st.booleans()})
short_states = st.fixed_dictionaries({"center_z": st.floats(width=64), "valid": st.booleans()})


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.one_of(states, full_states, short_states), max_size=12))
def test_rows_equal_the_fields_of_the_messages(values: list[dict[str, float]]) -> None:
    messages = [schema.ObjectState(**value) for value in values]
    reader = PartReader(schema.ObjectState, ("center_z", "valid"))
    assert reader.names == NAMES
    rows = reader.read([message.SerializeToString() for message in messages])
    expected = [[getattr(message, name) for name in NAMES] for message in messages]
    np.testing.assert_array_equal(rows, np.array(expected, dtype=np.float64).reshape(-1, len(NAMES)))


def test_same_size_with_other_fields_is_not_taken_for_the_usual_layout() -> None:
    parts = [schema.ObjectState(center_x=3.0, valid=True).SerializeToString()]
    row = PartReader(schema.ObjectState, ("center_z", "valid")).read(parts)[0]
    assert (row[0], row[2], row[9]) == (3.0, 0.0, 1.0)


def test_fields_of_a_later_version_do_not_disturb() -> None:
    part = schema.MapPoint(x=1.0, y=2.0, z=math.pi).SerializeToString() + bytes.fromhex("7801")
    np.testing.assert_array_equal(PartReader(schema.MapPoint).read([part, part]), [[1.0, 2.0, math.pi]] * 2)


def test_a_message_without_a_fixed_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="tracks has no fixed layout"):
        PartReader(schema.Scenario)
