"""Distances and misses against answers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.accumulate import MotionMetrics
from evaluation.metric_config import CHALLENGE_HORIZONS, MotionMetricsConfig
from evaluation.motion import matches, miss_scale
from tests.evaluation.examples import one_object, straight_tracks


def values_of(scenario, horizon="8s", config=None):
    metrics = MotionMetrics(config)
    metrics.add(scenario)
    return metrics.compute()["VEHICLE"][horizon]


def test_minimum_distance_is_that_of_the_nearest_mode():
    values = values_of(one_object([(3.0, 4.0), (0.0, 1.5)], [0.9, 0.1]))
    assert values["minADE"] == pytest.approx(1.5)
    assert values["minFDE"] == pytest.approx(1.5)


def test_average_counts_valid_steps_up_to_the_horizon_only():
    offsets = np.zeros((1, 16, 2))
    offsets[0, :, 1] = np.arange(1, 17)
    valid = np.ones((2, 91), dtype=bool)
    valid[0, 15] = valid[0, 25] = False  # prediction steps 0 and 2
    values = values_of(one_object(offsets, [1.0], valid=valid), "3s")
    assert values["minADE"] == pytest.approx(np.mean([2, 4, 5, 6]))
    assert values["minFDE"] == pytest.approx(6.0)


def test_final_distance_and_miss_have_no_value_where_the_truth_is_unknown():
    valid = np.ones((2, 91), dtype=bool)
    valid[0, 90] = False
    values = values_of(one_object([(0.0, 0.0)], [1.0], valid=valid), "8s")
    assert values["minFDE"] is None
    assert values["miss_rate"] is None
    assert values["mAP"] is None
    assert values["minADE"] == pytest.approx(0.0)


def test_only_the_first_six_modes_count_in_the_order_given():
    far, exact = [(30.0, 30.0)] * 6, [(0.0, 0.0)]
    values = values_of(one_object(far + exact, [0.1] * 6 + [0.9]))
    assert values["minADE"] == pytest.approx(np.hypot(30, 30))
    assert values["miss_rate"] == 1.0
    assert values_of(one_object(far + exact, [0.1] * 7), config=MotionMetricsConfig(max_predictions=7))["minADE"] == 0.0


@pytest.mark.parametrize(
    ("speed", "scale"),
    [(0.0, 0.5), (1.4, 0.5), (6.2, 0.75), (11.0, 1.0), (30.0, 1.0)],
    ids=["standing", "lower bound", "halfway", "upper bound", "fast"],
)
def test_thresholds_grow_with_speed(speed, scale):
    assert miss_scale(np.array(speed), MotionMetricsConfig()) == pytest.approx(scale)


@pytest.mark.parametrize("horizon", CHALLENGE_HORIZONS, ids=lambda item: item.name)
@pytest.mark.parametrize("heading", [0.0, 2.1])
def test_a_prediction_on_the_threshold_matches_and_beyond_it_misses(horizon, heading):
    forward = np.array([np.cos(heading), np.sin(heading)])
    left = np.array([-forward[1], forward[0]])

    def match(along, across):
        point = (along * forward + across * left)[None, None, None]
        one = np.array([[True]])
        return bool(
            matches(point, np.zeros((1, 1, 2)), np.array([[heading]]), np.array([[11.0]]), one, horizon, MotionMetricsConfig())[
                0, 0
            ]
        )

    inside, outside = 1 - 1e-9, 1 + 1e-9
    assert match(horizon.longitudinal_m * inside, horizon.lateral_m * inside)
    assert not match(horizon.longitudinal_m * outside, 0.0)
    assert not match(0.0, -horizon.lateral_m * outside)
    if heading == 0.0:
        assert match(horizon.longitudinal_m, -horizon.lateral_m)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_turning_and_moving_the_world_changes_no_distance(seed):
    rng = np.random.default_rng(seed)
    states = straight_tracks(3, apart_m=6.0)
    offsets = rng.normal(size=(6, 16, 2))
    scores = rng.random(6)
    angle, shift = rng.uniform(-np.pi, np.pi), rng.uniform(-500, 500, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = states.copy()
    turned[..., :2] = states[..., :2] @ turn.T + shift
    turned[..., 4] += angle
    turned[..., 5:7] = states[..., 5:7] @ turn.T
    first = values_of(one_object(offsets, scores, states=states))
    second = values_of(one_object(offsets @ turn.T, scores, states=turned))
    assert second == pytest.approx(first, abs=1e-9)


def test_predictions_that_are_not_finite_are_refused_by_name():
    with pytest.raises(ValueError, match=r"scenario 's'.*xy_m.*finite"):
        one_object([(np.nan, 0.0)], [1.0])
