from dataclasses import replace

import pytest
import torch

from limtr.config import ModelConfig, tiny
from limtr.kinematics import add_path, constant_velocity_path, intention_path
from limtr.predictor import MotionPredictor
from tests.builders import tiny_scene


def test_constant_velocity_goes_on_as_now() -> None:
    path = constant_velocity_path(torch.tensor([[2.0, -1.0]]), 80)
    assert path.shape == (1, 80, 4)
    torch.testing.assert_close(path[0, 0], torch.tensor([0.2, -0.1, 2.0, -1.0]))
    torch.testing.assert_close(path[0, -1], torch.tensor([16.0, -8.0, 2.0, -1.0]))


def test_an_intention_path_starts_with_the_velocity_and_ends_at_the_point() -> None:
    velocity, intention = torch.tensor([[5.0, 0.0]], dtype=torch.float64), torch.tensor([[[20.0, 10.0], [40.0, 0.0]]])
    path = intention_path(velocity, intention.double(), 80)
    torch.testing.assert_close(path[:, :, -1, :2], intention.double())
    # Constant acceleration: 2 (end - v T) / T^2, so the velocity after T is 2 end / T - v.
    torch.testing.assert_close(path[0, 0, -1, 2:], torch.tensor([0.0, 2.5], dtype=torch.float64))
    torch.testing.assert_close(path[0, 1, :, 2:], velocity.expand(80, 2))  # this point is where constant velocity leads
    steps = path[0, 0, 1:, :2] - path[0, 0, :-1, :2]
    between = 0.5 * (path[0, 0, 1:, 2:] + path[0, 0, :-1, 2:])
    torch.testing.assert_close(steps / 0.1, between)


def test_adding_a_path_moves_positions_and_velocities_only() -> None:
    trajectories, path = torch.randn(2, 3, 80, 7), torch.randn(2, 3, 80, 4)
    moved = add_path(trajectories, path) - trajectories
    torch.testing.assert_close(moved[..., [0, 1, 5, 6]], path)
    assert not moved[..., 2:5].any()


def test_an_untrained_model_with_kinematic_paths_predicts_near_them() -> None:
    torch.manual_seed(0)
    model = MotionPredictor(tiny()).eval()
    scene = tiny_scene(gaps=False)
    prediction = model.predict(scene)
    for row, track in enumerate(scene.tracks_to_predict):
        now = scene.track_states[track, scene.current_step]
        soon = prediction.xy_m[row, :, 4] - scene.origin_m[:2]
        assert abs(soon - (now[:2] + 0.5 * now[7:9])).max() < 3.0


def test_kinematic_paths_need_the_channels_with_velocities() -> None:
    config: ModelConfig = tiny()
    with pytest.raises(ValueError, match="num_agent_channels is 30"):
        replace(config, num_agent_channels=30)
