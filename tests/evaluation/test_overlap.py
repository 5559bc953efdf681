"""Overlap of oriented boxes and of predictions with other tracks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.accumulate import MotionMetrics
from evaluation.overlap import boxes_overlap, headings_of_path_rad
from tests.evaluation.examples import one_object, straight_tracks

UNIT = np.array([0.0, 0.0, 2.0, 2.0, 0.0])


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((2.0, 0.0, 2.0, 2.0, 0.0), False),
        ((1.999, 0.0, 2.0, 2.0, 0.0), True),
        ((2.0, 2.0, 2.0, 2.0, 0.0), False),
        ((1 + np.sqrt(2), 0.0, 2.0, 2.0, np.pi / 4), False),
        ((0.999 + np.sqrt(2), 0.0, 2.0, 2.0, np.pi / 4), True),
        ((1.8, 1.8, 2.0, 2.0, np.pi / 4), False),
        ((0.0, 0.0, 0.5, 0.5, 1.0), True),
        ((0.0, 0.0, 0.0, 2.0, 0.3), False),
        ((0.0, 0.0, 10.0, 0.1, 0.7), True),
    ],
    ids=["sides touch", "sides cross", "corners touch", "corner on side", "corner in side", "apart by a diagonal only",
         "inside", "no area", "thin beam through"],
)  # fmt: skip
def test_boxes_share_area(other, expected):
    assert bool(boxes_overlap(UNIT, np.array(other))) is expected
    assert bool(boxes_overlap(np.array(other), UNIT)) is expected


def grid_area(first, second):
    """Whether any point of a fine grid lies deep inside both boxes."""
    points = np.stack(np.meshgrid(np.linspace(-6, 6, 241), np.linspace(-6, 6, 241)), axis=-1).reshape(-1, 2)

    def depth(box):
        cos, sin = np.cos(box[4]), np.sin(box[4])
        local = (points - box[:2]) @ np.array([[cos, -sin], [sin, cos]])
        return np.minimum(0.5 * box[2] - np.abs(local[:, 0]), 0.5 * box[3] - np.abs(local[:, 1]))

    return np.minimum(depth(first), depth(second)).max()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000))
def test_overlap_agrees_with_a_grid_of_points(seed):
    rng = np.random.default_rng(seed)
    first, second = (np.array([*rng.uniform(-2, 2, 2), *rng.uniform(0.3, 4, 2), rng.uniform(-4, 4)]) for _ in range(2))
    deepest = grid_area(first, second)
    if deepest > 0:
        assert boxes_overlap(first, second)
    elif deepest < -0.05:
        assert not boxes_overlap(first, second)


def test_heading_between_two_segments_is_their_circular_mean():
    path = np.array([[0.0, 0.0], [-1.0, 0.1], [-2.0, 0.0]])
    first, middle, last = headings_of_path_rad(path)
    assert first == pytest.approx(np.pi - np.arctan(0.1))
    assert abs(middle) == pytest.approx(np.pi)
    assert last == pytest.approx(-np.pi + np.arctan(0.1))


def rate(scenario, horizon):
    metrics = MotionMetrics()
    metrics.add(scenario)
    return metrics.compute()["VEHICLE"][horizon]["overlap_rate"]


def test_only_the_most_confident_mode_is_tested_for_overlap():
    states = straight_tracks(2, apart_m=10.0)
    into_neighbour, clear = (0.0, 10.0), (0.0, 0.0)
    assert rate(one_object([into_neighbour, clear], [0.6, 0.4], states=states), "3s") == 1.0
    assert rate(one_object([into_neighbour, clear], [0.4, 0.6], states=states), "3s") == 0.0
    assert rate(one_object([into_neighbour, clear], [0.5, 0.5], states=states), "3s") == 1.0


def test_an_overlap_counts_for_its_horizon_and_all_later_ones():
    states = straight_tracks(2, apart_m=10.0)
    offsets = np.zeros((1, 16, 2))
    offsets[0, 7, 1] = 10.0
    scenario = one_object(offsets, [1.0], states=states)
    assert [rate(scenario, horizon) for horizon in ("3s", "5s", "8s")] == [0.0, 1.0, 1.0]


def test_a_predicted_box_has_the_size_of_its_object_at_that_step_known_or_not():
    states = straight_tracks(2, apart_m=10.0)
    states[0, 11:, 3] = 19.0
    assert rate(one_object([(0.0, 0.0)], [1.0], states=states), "3s") == 1.0
    valid = np.ones((2, 91), dtype=bool)
    valid[0, 11:] = False
    assert rate(one_object([(0.0, 0.0)], [1.0], states=states, valid=valid), "3s") == 1.0
    states[0, 11:, 3] = 2.0
    states[0, 10, 3] = 19.0
    assert rate(one_object([(0.0, 0.0)], [1.0], states=states), "3s") == 0.0


def test_tracks_that_are_invalid_now_or_then_are_not_overlapped():
    states = straight_tracks(2, apart_m=10.0)
    valid = np.ones((2, 91), dtype=bool)
    valid[1, 10] = False
    assert rate(one_object([(0.0, 10.0)], [1.0], states=states, valid=valid), "8s") == 0.0
    valid[1, 10] = True
    valid[1, 11:] = False
    assert rate(one_object([(0.0, 10.0)], [1.0], states=states, valid=valid), "8s") == 0.0


def test_an_object_never_overlaps_its_own_truth():
    assert rate(one_object([(0.0, 0.0)], [1.0]), "8s") == 0.0
