"""Curves of precision over recall: their areas are the mAP of the table."""

import numpy as np
import pytest

from evaluation.accumulate import MotionMetrics
from evaluation.average_precision import average_precision
from evaluation.baselines import turn_rate_fan
from evaluation.metric_config import MotionMetricsConfig
from evaluation.report.object_table import ObjectCollector
from evaluation.report.precision_recall import area, curve_of, mean_curve, precision_recall, staircase
from evaluation.scenario_predictions import pair_with_truth
from limtr.scene import PREDICTED_TYPES
from tests.builders import tiny_scene
from tests.evaluation.report.tables import object_table


def test_a_curve_worked_out_by_hand():
    # By score: hit, miss, hit, miss; four objects. Precision at the hits: 1/1 and 2/3.
    recall, precision = precision_recall(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False]), 4)
    assert recall.tolist() == [0.25, 0.5]
    assert precision.tolist() == pytest.approx([1.0, 2 / 3])


def test_steps_of_equal_height_become_one():
    recall, precision = precision_recall(np.array([0.9, 0.8]), np.array([True, True]), 2)
    assert (recall.tolist(), precision.tolist()) == ([1.0], [1.0])


def test_no_hit_gives_an_empty_curve_without_area():
    curve = precision_recall(np.array([0.9]), np.array([False]), 3)
    assert len(curve[0]) == 0
    assert area(curve) == 0.0
    assert [values.tolist() for values in staircase(curve)] == [[0.0], [0.0]]


def test_the_area_is_the_average_precision():
    rng = np.random.default_rng(0)
    scores, hit = rng.integers(0, 8, 60) / 8, rng.random(60) < 0.4
    assert area(precision_recall(scores, hit, 40)) == pytest.approx(average_precision(scores, hit, 40), abs=1e-12)


def test_beyond_its_end_a_curve_counts_as_zero_in_the_mean():
    whole = np.array([1.0]), np.array([0.8])
    short = np.array([0.5]), np.array([0.4])
    recall, precision = mean_curve([whole, short])
    assert recall.tolist() == [0.5, 1.0]
    assert precision.tolist() == pytest.approx([0.6, 0.4])
    assert area((recall, precision)) == pytest.approx((area(whole) + area(short)) / 2)


def test_the_staircase_has_the_corners_of_the_curve():
    x, y = staircase((np.array([0.25, 0.5]), np.array([1.0, 0.5])))
    assert x.tolist() == [0.0, 0.25, 0.25, 0.5, 0.5]
    assert y.tolist() == [1.0, 1.0, 0.5, 0.5, 0.0]


def test_a_long_staircase_is_thinned_and_keeps_its_end():
    curve = np.linspace(0.001, 1.0, 1000), np.linspace(1.0, 0.2, 1000)
    x, _ = staircase(curve, most=50)
    assert len(x) == 101
    assert x[-1] == 1.0


def test_areas_of_scored_scenes_are_the_map_of_the_table():
    config = MotionMetricsConfig()
    metrics, collector = MotionMetrics(config), ObjectCollector(config)
    for seed in range(12):
        scene = tiny_scene(seed, with_lidar=False)
        paired = pair_with_truth(scene, turn_rate_fan(scene))
        metrics.add(paired)
        collector.add(scene, paired)
    table, values = collector.table(), metrics.compute()
    compared = 0
    for kind in PREDICTED_TYPES:
        for index, horizon in enumerate(config.horizons):
            curve = curve_of(table.keep(table.kind == kind), index)
            assert curve is not None
            assert area(curve) == pytest.approx(values[kind.name][horizon.name]["mAP"], abs=1e-12)
            compared += values[kind.name][horizon.name]["mAP"] > 0
    assert compared > 3


def test_right_u_turns_count_among_right_turns():
    outcomes = np.full((2, 3, 6), -1, np.int8)
    outcomes[0, 2, 0], outcomes[1, 2, 0] = 1, 0
    curve = curve_of(object_table(2, bucket=[6, 7], outcomes=outcomes), 2)
    assert area(curve) == pytest.approx(0.25)  # one bucket of two objects: half of the recall, false alarm of equal score first


def test_without_any_measurement_there_is_no_curve():
    assert curve_of(object_table(2), 0) is None
