from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.synthetic.overlap import overlaps, without_overlaps

SIZE = np.array([[4.0, 2.0], [4.0, 2.0]])


def _count(x: float, y: float, turn: float) -> int:
    center = np.array([[[0.0, 0.0]], [[x, y]]])
    found = overlaps(center, np.array([[0.0], [turn]]), SIZE, np.ones((2, 1), dtype=bool))
    return len(found[0])


CASES = {
    "ahead": (3.9, 0.0, 0.0, 1),
    "clear ahead": (4.1, 0.0, 0.0, 0),
    "beside": (0.0, 1.9, 0.0, 1),
    "clear beside": (0.0, 2.1, 0.0, 0),
    "across": (2.9, 0.0, np.pi / 2, 1),
    "clear across": (3.1, 0.0, np.pi / 2, 0),
    "corner": (3.2, 2.2, np.pi / 4, 1),
    "clear corner": (3.9, 2.9, np.pi / 4, 0),
}


@pytest.mark.parametrize(("x", "y", "turn", "expected"), CASES.values(), ids=CASES.keys())
def test_boxes_overlap_where_geometry_says(x: float, y: float, turn: float, expected: int):
    assert _count(x, y, turn) == expected


@settings(max_examples=40, deadline=None)
@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(-3, 3), st.floats(-3, 3))
def test_overlap_does_not_depend_on_the_frame(x: float, y: float, turn: float, rotation: float):
    """Samples inside both boxes are the judge; near misses of a centimetre are left out."""
    grid = np.stack(np.meshgrid(np.linspace(-2, 2, 81), np.linspace(-1, 1, 41)), axis=-1).reshape(-1, 2)
    gap = grid - np.array([x, y])
    along = gap @ [np.cos(turn), np.sin(turn)]
    across = gap @ [-np.sin(turn), np.cos(turn)]
    sampled = bool(((np.abs(along) < 1.95) & (np.abs(across) < 0.95)).any())
    spin = np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    center = (np.array([[0.0, 0.0], [x, y]]) @ spin.T)[:, None]
    heading = np.array([[rotation], [turn + rotation]])
    found = len(overlaps(center, heading, SIZE, np.ones((2, 1), dtype=bool))[0])
    if sampled:
        assert found == 1
    if not bool(((np.abs(along) < 2.1) & (np.abs(across) < 1.1)).any()):
        assert found == 0


def test_absent_bodies_overlap_nobody():
    there = np.array([[True], [False]])
    assert len(overlaps(np.zeros((2, 1, 2)), np.zeros((2, 1)), SIZE, there)[0]) == 0


def test_the_spared_body_stays():
    kept = without_overlaps(np.zeros((2, 1, 2)), np.zeros((2, 1)), SIZE, np.ones((2, 1), dtype=bool), np.array([0, 1]))
    assert kept.tolist() == [False, True]
