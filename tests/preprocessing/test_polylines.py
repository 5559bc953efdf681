"""MTR's cutting rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.polylines import cut_polylines


def along(*positions: float) -> np.ndarray:
    """Points on the x axis, far from the world's zero."""
    x = np.array(positions, dtype=np.float64)
    return np.stack([x + 4096.0, np.zeros_like(x), np.zeros_like(x)], axis=-1)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (along(), []),
        (along(3.0), [1]),
        (along(*np.arange(20) * 0.5), [20]),
        (along(*np.arange(41) * 0.5), [20, 20, 1]),
        (along(0.0, 1.0, 2.0), [3]),  # exactly the break distance is no break
        (along(0.0, 1.0, 2.25), [2, 1]),
        (along(0.0, 0.5, 9.0, 9.5, 10.0), [2, 3]),
        (along(*np.arange(21) * 0.5, 50.0, 50.5), [20, 1, 2]),
        (along(0.0, 0.0, 0.0), [3]),
        (along(5.0, 4.5, 4.0), [3]),
    ],
    ids=["none", "one", "full", "chopped", "at-1m", "past-1m", "gap", "chop-then-gap", "repeated", "backwards"],
)
def test_cuts(points: np.ndarray, expected: list[int]) -> None:
    assert cut_polylines(points).tolist() == expected


def test_height_does_not_cut() -> None:
    points = along(0.0, 0.5, 1.0)
    points[1, 2] = 100.0
    assert cut_polylines(points).tolist() == [3]


def test_the_gap_is_measured_on_float32_world_coordinates_as_mtr_does() -> None:
    # 4096 + 1.0001 rounds to 4097 in float32, where neighbours are half a millimetre apart.
    assert cut_polylines(along(0.0, 1.0001)).tolist() == [2]
    assert cut_polylines(along(0.0, 1.0001) - [[4096.0, 0, 0]]).tolist() == [1, 1]


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 30.0]), max_size=120),
    size=st.integers(1, 25),
)
def test_pieces_equal_the_rule_walked_point_by_point(steps: list[float], size: int) -> None:
    points = along(*np.cumsum([0.0, *steps]))
    expected = [1]
    for step in steps:
        if step > 1.0 or expected[-1] == size:
            expected.append(1)
        else:
            expected[-1] += 1
    lengths = cut_polylines(points, points_per_polyline=size)
    assert lengths.tolist() == expected
    assert lengths.dtype == np.int64
