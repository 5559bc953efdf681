"""Trajectory buckets on both sides of every threshold, for both rules."""

import numpy as np
import pytest

from evaluation.buckets import Bucket, classify, joint_bucket

THIRTY = np.pi / 6
LITTLE = 1e-6


def bucket(rule, end_xy, turn=0.0, speeds=(5.0, 5.0), start_heading=0.0, raw_end_heading=None, valid=None):
    """Bucket of a track whose end lies at `end_xy` in the frame of its start."""
    states = np.zeros((1, 91, 7))
    cos, sin = np.cos(start_heading), np.sin(start_heading)
    states[0, 10, 4] = start_heading
    states[0, 10, 5] = speeds[0]
    states[0, 90, :2] = cos * end_xy[0] - sin * end_xy[1], sin * end_xy[0] + cos * end_xy[1]
    states[0, 90, 4] = start_heading + turn if raw_end_heading is None else raw_end_heading
    states[0, 90, 6] = speeds[1]
    flags = np.zeros((1, 91), dtype=bool)
    flags[0, [10, 90]] = True
    return Bucket(int(classify(states, flags if valid is None else valid, 10, rule)[0]))


@pytest.mark.parametrize(("rule", "limit"), [("2024", 3.0), ("2021", 5.0)])
def test_stationary_needs_little_displacement(rule, limit):
    assert bucket(rule, (limit - LITTLE, 0.0), speeds=(0.0, 0.0)) is Bucket.STATIONARY
    assert bucket(rule, (limit, 0.0), speeds=(0.0, 0.0)) is Bucket.STRAIGHT


@pytest.mark.parametrize("rule", ["2024", "2021"])
@pytest.mark.parametrize("where", [0, 1], ids=["at the start", "at the end"])
def test_stationary_needs_little_speed_at_both_ends(rule, where):
    slow, fast = [0.0, 0.0], [0.0, 0.0]
    slow[where], fast[where] = 2.0 - LITTLE, 2.0
    assert bucket(rule, (1.0, 0.0), speeds=tuple(slow)) is Bucket.STATIONARY
    assert bucket(rule, (1.0, 0.0), speeds=tuple(fast)) is Bucket.STRAIGHT


@pytest.mark.parametrize(("rule", "limit"), [("2024", 2.5), ("2021", 5.0)])
def test_straight_needs_little_lateral_displacement(rule, limit):
    assert bucket(rule, (40.0, limit - LITTLE)) is Bucket.STRAIGHT
    assert bucket(rule, (40.0, -limit + LITTLE)) is Bucket.STRAIGHT
    assert bucket(rule, (40.0, limit + LITTLE)) is Bucket.STRAIGHT_LEFT
    assert bucket(rule, (40.0, -limit - LITTLE)) is Bucket.STRAIGHT_RIGHT


@pytest.mark.parametrize("rule", ["2024", "2021"])
def test_a_change_of_heading_of_thirty_degrees_is_a_turn(rule):
    assert bucket(rule, (40.0, 1.0), turn=THIRTY - LITTLE) is Bucket.STRAIGHT
    assert bucket(rule, (40.0, 1.0), turn=THIRTY + LITTLE) is Bucket.LEFT_TURN
    assert bucket(rule, (40.0, -1.0), turn=-THIRTY + LITTLE) is Bucket.STRAIGHT
    assert bucket(rule, (40.0, -1.0), turn=-THIRTY - LITTLE) is Bucket.RIGHT_TURN


@pytest.mark.parametrize(("rule", "limit"), [("2024", 0.0), ("2021", -5.0)])
def test_u_turns_end_behind_the_start(rule, limit):
    assert bucket(rule, (limit + LITTLE, 8.0), turn=2.5) is Bucket.LEFT_TURN
    assert bucket(rule, (limit - LITTLE, 8.0), turn=2.5) is Bucket.LEFT_U_TURN
    assert bucket(rule, (limit + LITTLE, -8.0), turn=-2.5) is Bucket.RIGHT_TURN
    assert bucket(rule, (limit - LITTLE, -8.0), turn=-2.5) is Bucket.RIGHT_U_TURN


def test_an_end_on_the_right_with_a_turn_to_the_left_is_right_today_and_was_left():
    assert bucket("2024", (20.0, -8.0), turn=1.0) is Bucket.RIGHT_TURN
    assert bucket("2021", (20.0, -8.0), turn=1.0) is Bucket.LEFT_TURN
    assert bucket("2021", (-20.0, -8.0), turn=1.0) is Bucket.LEFT_U_TURN


def test_an_end_on_the_left_with_a_turn_to_the_right_is_a_left_turn():
    assert bucket("2024", (20.0, 8.0), turn=-1.0) is Bucket.LEFT_TURN
    assert bucket("2021", (20.0, 8.0), turn=-1.0) is Bucket.LEFT_TURN


def test_the_border_between_left_and_right_is_an_end_straight_ahead():
    assert bucket("2024", (20.0, 0.0), turn=-1.0) is Bucket.LEFT_TURN
    assert bucket("2024", (20.0, -LITTLE), turn=-1.0) is Bucket.RIGHT_TURN
    assert bucket("2021", (20.0, 0.0), turn=-1.0) is Bucket.LEFT_TURN
    assert bucket("2021", (20.0, -LITTLE), turn=-1.0) is Bucket.RIGHT_TURN


def test_headings_across_half_a_turn_are_wrapped_today_and_were_not():
    path = {"end_xy": (40.0, 1.0), "start_heading": np.pi - 0.1, "raw_end_heading": -np.pi + 0.1}
    assert bucket("2024", **path) is Bucket.STRAIGHT
    assert bucket("2021", **path) is Bucket.LEFT_TURN
    right = {"end_xy": (40.0, -1.0), "start_heading": np.pi - 0.1, "raw_end_heading": -np.pi + 0.1}
    assert bucket("2021", **right) is Bucket.RIGHT_TURN


@pytest.mark.parametrize("rule", ["2024", "2021"])
def test_the_last_valid_state_ends_the_path(rule):
    states = np.zeros((1, 91, 7))
    states[0, :, 0] = np.arange(91)
    states[0, 60:, 1] = 30.0
    states[0, :, 5] = 10.0
    valid = np.ones((1, 91), dtype=bool)
    assert classify(states, valid, 10, rule)[0] == Bucket.STRAIGHT_LEFT
    valid[0, 60:] = False
    assert classify(states, valid, 10, rule)[0] == Bucket.STRAIGHT


def test_without_valid_start_or_future_there_is_no_bucket():
    flags = np.ones((1, 91), dtype=bool)
    flags[0, 10] = False
    assert bucket("2024", (40.0, 0.0), valid=flags) is Bucket.NONE
    flags[0, 10] = True
    flags[0, 11:] = False
    assert bucket("2024", (40.0, 0.0), valid=flags) is Bucket.NONE


def test_a_group_has_the_bucket_of_highest_priority_among_the_members_that_have_one():
    groups = np.array([
        [Bucket.STRAIGHT_LEFT, Bucket.STRAIGHT_RIGHT],
        [Bucket.RIGHT_TURN, Bucket.LEFT_TURN],
        [Bucket.RIGHT_U_TURN, Bucket.LEFT_U_TURN],
        [Bucket.STATIONARY, Bucket.NONE],
        [Bucket.NONE, Bucket.LEFT_TURN],
        [Bucket.STATIONARY, Bucket.LEFT_TURN],
        [Bucket.NONE, Bucket.LEFT_TURN],
        [Bucket.NONE, Bucket.NONE],
        [Bucket.STRAIGHT, Bucket.STRAIGHT],
    ])  # fmt: skip
    member = np.ones((9, 2), dtype=bool)
    member[5:7, 1] = False
    member[8] = False
    expected = [Bucket.STRAIGHT_LEFT, Bucket.LEFT_TURN, Bucket.RIGHT_U_TURN, Bucket.STATIONARY, Bucket.LEFT_TURN,
                Bucket.STATIONARY, Bucket.NONE, Bucket.NONE, Bucket.NONE]  # fmt: skip
    assert joint_bucket(groups, member).tolist() == expected
