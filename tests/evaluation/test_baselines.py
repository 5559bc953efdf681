"""The baselines' paths."""

import numpy as np
import pytest

from evaluation.baselines import FAN_SCORES, FAN_TURN_RATES_RADPS, constant_velocity, turn_rate_fan
from tests.builders import tiny_scene


def test_constant_velocity_goes_straight_on():
    scene = tiny_scene(3)
    prediction = constant_velocity(scene)
    now = scene.track_states[scene.tracks_to_predict, scene.current_step].astype(float)
    assert prediction.xy_m.shape == (3, 1, 80, 2)
    np.testing.assert_allclose(prediction.xy_m[:, 0, 79], now[:, :2] + 8.0 * now[:, 7:9] + scene.origin_m[:2])
    np.testing.assert_allclose(prediction.xy_m[:, 0, 0], now[:, :2] + 0.1 * now[:, 7:9] + scene.origin_m[:2])


def test_the_fan_turns_at_its_rates_and_keeps_each_modes_speed():
    scene = tiny_scene(3)
    prediction = turn_rate_fan(scene)
    now = scene.track_states[scene.tracks_to_predict, scene.current_step].astype(float)
    path = np.concatenate([np.broadcast_to(now[:, None, None, :2] + scene.origin_m[:2], (3, 6, 1, 2)), prediction.xy_m], axis=2)
    steps = np.diff(path, axis=2)
    length = np.linalg.norm(steps, axis=-1)
    np.testing.assert_allclose(length, np.broadcast_to(length[:, :, :1], length.shape), atol=1e-8)
    angle = np.unwrap(np.arctan2(steps[..., 1], steps[..., 0]), axis=-1)
    rate = (angle[..., -1] - angle[..., 0]) / (79 * 0.1)
    np.testing.assert_allclose(rate[:, :5], np.broadcast_to(FAN_TURN_RATES_RADPS[:5], (3, 5)), atol=1e-6)
    np.testing.assert_allclose(length[:, 5], 0.0, atol=1e-8)


def test_the_first_mode_of_the_fan_is_constant_velocity_and_its_scores_sum_to_one():
    scene = tiny_scene(4)
    np.testing.assert_allclose(turn_rate_fan(scene).xy_m[:, :1], constant_velocity(scene).xy_m)
    assert sum(FAN_SCORES) == pytest.approx(1.0)
    assert max(FAN_SCORES) == FAN_SCORES[0]


def test_only_targets_valid_at_the_current_step_are_predicted():
    scene = tiny_scene(5)
    scene.track_valid[1, scene.current_step] = False
    scene.track_states[1, scene.current_step] = 0.0
    assert constant_velocity(scene).object_id.tolist() == scene.track_id[[0, 2]].tolist()


def test_a_scene_without_targets_gives_an_empty_prediction():
    assert turn_rate_fan(tiny_scene(6, num_targets=0)).xy_m.shape == (0, 6, 80, 2)
