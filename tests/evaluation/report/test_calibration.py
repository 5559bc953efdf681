"""Reliability of probabilities, worked out by hand."""

import math

import numpy as np
import pytest

from evaluation.report.calibration import hit_reliability, nearest_reliability, probabilities, reliability
from tests.evaluation.report.tables import object_table


def test_probabilities_are_shares_of_the_modes_that_exist():
    has_mode = np.array([[True, True, False], [True, True, True]])
    shares = probabilities(np.array([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), has_mode)
    assert shares.tolist() == [[0.75, 0.25, 0.0], pytest.approx([1 / 3] * 3)]


def test_bins_hold_mean_probability_frequency_and_count():
    found = reliability(np.array([0.11, 0.19, 0.95, 1.0]), np.array([True, False, True, True]))
    assert found.num_modes == (2, 2)
    assert found.mean_probability == pytest.approx((0.15, 0.975))
    assert found.frequency == pytest.approx((0.5, 1.0))
    assert found.expected_error == pytest.approx((2 * 0.35 + 2 * 0.025) / 4)


def test_nothing_measured_has_no_error():
    found = reliability(np.zeros(0), np.zeros(0, bool))
    assert found.num_modes == ()
    assert math.isnan(found.expected_error)


def test_exactly_one_mode_of_a_known_object_is_the_nearest():
    scores = np.zeros((3, 6))
    scores[:, :2] = [[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]
    found = nearest_reliability(object_table(3, scores=scores, nearest_mode=[0, 1, -1]))
    assert sum(found.num_modes) == 4
    assert found.mean_probability == pytest.approx((0.1, 0.9))
    assert found.frequency == pytest.approx((0.5, 0.5))


def test_several_modes_may_hit_and_unknown_truths_do_not_count():
    outcomes = np.full((2, 3, 6), -1, np.int8)
    outcomes[0, 2, :2] = 1, 2
    found = hit_reliability(object_table(2, outcomes=outcomes), 2)
    assert found.num_modes == (2,)
    assert found.frequency == (1.0,)
