"""Average precision: outcomes of predictions and the area under the curve."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.accumulate import MotionMetrics
from evaluation.average_precision import Outcome, average_precision, outcomes
from tests.evaluation.examples import one_object, straight_tracks


def test_the_most_confident_match_is_the_hit_and_others_are_further_matches():
    scores = np.array([[0.2, 0.5, 0.9, 0.5]])
    matched = np.array([[True, True, False, True]])
    assert outcomes(scores, matched, np.array([True])).tolist() == [
        [Outcome.FURTHER_MATCH, Outcome.TRUE_POSITIVE, Outcome.FALSE_POSITIVE, Outcome.FURTHER_MATCH]
    ]
    assert outcomes(scores, matched, np.array([False])).tolist() == [[Outcome.UNKNOWN] * 4]


@pytest.mark.parametrize(
    ("scores", "hits", "objects", "expected"),
    [
        ([0.9], [1], 1, 1.0),
        ([0.9], [0], 1, 0.0),
        ([], [], 1, 0.0),
        ([0.9, 0.8], [0, 1], 1, 0.5),
        ([0.9, 0.8], [1, 0], 1, 1.0),
        ([0.9, 0.8], [1, 0], 2, 0.5),
        ([0.9, 0.8, 0.7], [1, 0, 1], 2, 0.5 + 0.5 * 2 / 3),
        ([0.9, 0.8, 0.7, 0.6], [0, 1, 1, 1], 3, 0.75),
        ([0.5, 0.5], [1, 0], 1, 0.5),
    ],
    ids=["hit", "miss", "nothing", "second is right", "first is right", "one never found", "late hit", "precision rises",
         "equal scores: the false one first"],
)  # fmt: skip
def test_area_worked_out_by_hand(scores, hits, objects, expected):
    assert average_precision(np.array(scores), np.array(hits, dtype=bool), objects) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=20), st.integers(0, 3), st.randoms())
def test_area_does_not_depend_on_order_and_stays_within_zero_and_the_recall(samples, never_found, random):
    hits = sum(hit for _, hit in samples)
    shuffled = list(samples)
    random.shuffle(shuffled)
    areas = [
        average_precision(np.array([s for s, _ in part]) / 5, np.array([h for _, h in part]), hits + never_found + 1)
        for part in (samples, shuffled)
    ]
    assert areas[0] == areas[1]
    assert 0 <= areas[0] <= hits / (hits + never_found + 1) + 1e-12


def value(scenarios, name, horizon="8s"):
    metrics = MotionMetrics()
    for scenario in scenarios:
        metrics.add(scenario)
    return metrics.compute()["VEHICLE"][horizon][name]


def test_soft_mean_average_precision_forgives_further_matches():
    # The duplicate is more confident than the hit of another object, so that it costs precision there.
    first = one_object([(0.0, 0.0), (0.1, 0.0)], [0.9, 0.8], scenario_id="a")
    second = one_object([(0.0, 0.0)], [0.7], scenario_id="b")
    assert value([first, second], "mAP") == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert value([first, second], "soft_mAP") == pytest.approx(1.0)


def test_confidences_are_ranked_across_objects_as_they_are():
    miss = one_object([(0.0, 40.0), (0.0, -40.0)], [0.3, 0.3], scenario_id="a")
    unsure = one_object([(0.0, 0.0)], [0.2], scenario_id="b")
    sure = one_object([(0.0, 0.0)], [0.4], scenario_id="b")
    assert value([miss, unsure], "mAP") == pytest.approx(0.5 / 3)
    assert value([miss, sure], "mAP") == pytest.approx(0.5)


def test_buckets_weigh_the_same_however_many_objects_they_hold():
    standing = straight_tracks(1, speed_mps=0.0)
    moving = [one_object([(0.0, 0.0)], [0.5], scenario_id=str(index)) for index in range(3)]
    still = one_object([(0.0, 40.0)], [0.5], states=standing, scenario_id="still")
    assert value([*moving, still], "mAP") == pytest.approx(0.5)
