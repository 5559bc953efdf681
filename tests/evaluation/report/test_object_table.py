"""What is kept of every predicted object."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.baselines import constant_velocity, turn_rate_fan
from evaluation.metric_config import MotionMetricsConfig
from evaluation.report.object_table import ObjectCollector
from evaluation.report.time_errors import TIMES_S, TimeErrors
from evaluation.scenario_predictions import pair_with_truth
from limtr.scene import ObjectType
from tests.builders import tiny_scene
from tests.evaluation.examples import one_object

CONFIG = MotionMetricsConfig()


def collected(*scenes, predict=turn_rate_fan):
    collector = ObjectCollector(CONFIG)
    for scene in scenes:
        collector.add(scene, pair_with_truth(scene, predict(scene)))
    return collector.table()


def test_a_row_tells_speed_distance_and_points_at_the_current_step():
    scene = tiny_scene(3)
    table = collected(scene)
    now = scene.track_states[:, 10]
    assert table.object_id.tolist() == [100, 107, 114]
    assert table.scenario_id.tolist() == ["tiny0003"] * 3
    np.testing.assert_allclose(table.speed_mps, np.hypot(now[:3, 7], now[:3, 8]), rtol=1e-6)
    np.testing.assert_allclose(table.distance_m, np.hypot(*(now[:3, :2] - now[5, :2]).T), rtol=1e-6)
    assert table.lidar_points.tolist() == scene.lidar.count_in_box[:, 10].tolist()


def test_what_is_not_known_is_nan():
    scene = replace(tiny_scene(3, with_lidar=False), sdc_track=-1)
    table = collected(scene)
    assert np.isnan(table.distance_m).all()
    assert np.isnan(table.lidar_points).all()


def test_points_are_those_of_the_object_where_an_earlier_target_cannot_be_predicted():
    scene = tiny_scene(4)
    scene.track_valid[0, 10], scene.track_states[0, 10] = False, 0.0
    table = collected(scene)
    assert table.object_id.tolist() == [107, 114]
    assert table.lidar_points.tolist() == scene.lidar.count_in_box[1:, 10].tolist()


def test_nearest_and_likeliest_errors_step_by_step():
    scene = tiny_scene(0, gaps=False, with_lidar=False)
    prediction = constant_velocity(scene)
    truth = scene.track_states[:3, None, 11:, :2] + scene.origin_m[:2]
    likely, near = truth + np.array([0.0, 2.0]), truth + np.array([1.0, 0.0])
    twice = replace(prediction, xy_m=np.concatenate([near, likely], axis=1), scores=np.tile([0.4, 0.6], (3, 1)))
    table = collected(scene, predict=lambda _: twice)
    np.testing.assert_allclose(table.nearest_m, 1.0, atol=1e-3)
    np.testing.assert_allclose(table.likeliest_m, 2.0, atol=1e-3)
    assert table.nearest_mode.tolist() == [0, 0, 0]
    assert table.has_mode.tolist() == [[True, True, False, False, False, False]] * 3
    np.testing.assert_allclose(table.distances[:, :, 0], 1.0, atol=1e-3)


def test_steps_with_unknown_truth_have_no_error():
    scene = tiny_scene(1, gaps=False, with_lidar=False)
    scene.track_valid[0, 11:], scene.track_states[0, 11:] = False, 0.0
    table = collected(scene)
    assert np.isnan(table.nearest_m[0]).all()
    assert table.nearest_mode.tolist()[0] == -1
    assert (table.nearest_mode[1:] >= 0).all()


def test_objects_of_other_types_are_not_kept():
    scene = tiny_scene(2)
    scene.track_type[1] = ObjectType.OTHER
    assert collected(scene).object_id.tolist() == [100, 114]


def test_nothing_predicted_is_an_error():
    with pytest.raises(ValueError, match="nothing to report"):
        collected(tiny_scene(0, num_targets=0))


def test_mean_errors_over_time_by_class():
    errors = TimeErrors()
    errors.add(one_object([[3.0, 0.0], [0.0, 1.0]], [0.5, 0.5], scenario_id="a"), CONFIG)
    valid = np.ones((2, 91), bool)
    valid[0, 20] = False  # 1 s from now: the second prediction step
    errors.add(one_object([[5.0, 0.0]], [1.0], scenario_id="b", valid=valid), CONFIG)
    means = errors.mean_m(ObjectType.VEHICLE)
    assert means[:3] == pytest.approx([3.0, 1.0, 3.0])
    assert errors.mean_m(ObjectType.CYCLIST) == [None] * 16
    assert TIMES_S[0] == 0.5
    assert TIMES_S[-1] == 8.0
