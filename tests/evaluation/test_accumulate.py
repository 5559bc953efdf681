"""MotionMetrics: merging, state, averages, and the values of Waymo's official op."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.accumulate import MotionMetrics
from evaluation.metric_config import MotionMetricsConfig
from evaluation.verify_metrics import case_scenarios
from tests.evaluation.examples import GOLDEN, one_object, straight_tracks


@pytest.fixture(scope="module")
def golden_scenarios():
    with np.load(GOLDEN / "waymo_metrics_golden.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return [*case_scenarios(arrays, "case1"), *case_scenarios(arrays, "case4")]


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_any_partition_merged_in_any_order_gives_the_same_digits(golden_scenarios, random, parts):
    whole = MotionMetrics()
    for scenario in golden_scenarios:
        whole.add(scenario)
    shuffled = list(golden_scenarios)
    random.shuffle(shuffled)
    pieces = [MotionMetrics() for _ in range(parts)]
    for scenario in shuffled:
        random.choice(pieces).add(scenario)
    merged = MotionMetrics()
    for piece in pieces:
        merged.merge(MotionMetrics.from_state(piece.state()))
    assert merged.compute() == whole.compute()
    assert merged.counts() == whole.counts()


def test_merging_leaves_the_other_part_as_it_was(golden_scenarios):
    first, second = MotionMetrics(), MotionMetrics()
    first.add(golden_scenarios[0])
    second.add(golden_scenarios[1])
    before = second.compute()
    first.merge(second)
    first.add(golden_scenarios[2])
    assert second.compute() == before


def test_a_scenario_counts_once():
    metrics, other = MotionMetrics(), MotionMetrics()
    metrics.add(one_object([(0.0, 0.0)], [1.0]))
    other.add(one_object([(0.0, 0.0)], [1.0]))
    with pytest.raises(ValueError, match="'s' was scored before"):
        metrics.add(one_object([(0.0, 0.0)], [1.0]))
    with pytest.raises(ValueError, match=r"in both parts.*'s'"):
        metrics.merge(other)


def test_parts_of_different_rules_are_not_mixed():
    with pytest.raises(ValueError, match="different configurations"):
        MotionMetrics().merge(MotionMetrics(MotionMetricsConfig(bucketing="2021")))


def test_a_state_of_another_shape_is_refused():
    state = MotionMetrics().state()
    state["scores"] = np.zeros((0, 3))
    with pytest.raises(ValueError, match="'scores'"):
        MotionMetrics.from_state(state)


def test_means_weigh_horizons_and_then_classes_the_same():
    metrics = MotionMetrics()
    for index in range(3):
        metrics.add(one_object([(0.0, 1.0)], [1.0], scenario_id=f"vehicle{index}"))
    metrics.add(one_object([(0.0, 3.0)], [1.0], scenario_id="cyclist", kind=3))
    values = metrics.compute()
    assert set(values) == {"VEHICLE", "CYCLIST", "mean"}
    assert values["mean"]["mean"]["minADE"] == pytest.approx(2.0)
    assert metrics.counts() == {"VEHICLE": 3, "PEDESTRIAN": 0, "CYCLIST": 1}


def test_a_joint_prediction_takes_the_type_of_highest_priority_and_all_members_must_match():
    states = straight_tracks(2)
    path = states[:, 15::5, :2]
    modes = np.stack([path + np.array([[[0.0, 0.0]], [[0.0, 9.0]]]), path + np.array([[[0.0, 9.0]], [[0.0, 0.0]]])])
    single = one_object([(0.0, 0.0)], [1.0], states=states)
    joint = dataclasses.replace(
        single, track_type=np.array([1, 2]), group_rows=np.array([[0, 1]]), xy_m=modes[None], scores=np.array([[0.6, 0.4]])
    )
    metrics = MotionMetrics()
    metrics.add(joint)
    values = metrics.compute()
    assert list(values) == ["PEDESTRIAN", "mean"]
    assert values["PEDESTRIAN"]["8s"]["minADE"] == pytest.approx(4.5)
    assert values["PEDESTRIAN"]["8s"]["miss_rate"] == 1.0


def test_nothing_added_gives_nothing():
    assert MotionMetrics().compute() == {}
