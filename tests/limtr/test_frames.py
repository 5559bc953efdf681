from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limtr.frames import agent_from_world, rotate, world_from_agent, wrap_angle_rad

angles = st.floats(-20.0, 20.0)
coordinates = st.floats(-200.0, 200.0)
few = settings(max_examples=25, deadline=None)


def frame(x: float, y: float, z: float, heading: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[x, y, z]], dtype=torch.float64), torch.tensor([heading], dtype=torch.float64)


def points(dimensions: int = 3) -> torch.Tensor:
    return torch.randn(1, 4, 5, dimensions, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 50


@few
@given(coordinates, coordinates, coordinates, angles)
def test_into_a_frame_and_back_changes_nothing(x: float, y: float, z: float, heading: float) -> None:
    position, angle = frame(x, y, z, heading)
    back = world_from_agent(agent_from_world(points(), position, angle), position, angle)
    torch.testing.assert_close(back, points(), rtol=0, atol=1e-9)


@few
@given(angles, angles)
def test_two_turns_are_one_turn_by_the_sum(first: float, second: float) -> None:
    one, two = torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)
    torch.testing.assert_close(rotate(rotate(points(), one), two), rotate(points(), one + two), rtol=0, atol=1e-9)


@few
@given(coordinates, coordinates, angles, angles)
def test_frames_compose(x: float, y: float, outer: float, inner: float) -> None:
    """A frame given inside another frame is the same as that frame given in the world."""
    position, angle = frame(x, y, 1.0, outer)
    inner_position, inner_angle = frame(3.0, -4.0, 0.5, inner)
    nested = agent_from_world(agent_from_world(points(), position, angle), inner_position, inner_angle)
    in_world = world_from_agent(inner_position, position, angle)
    torch.testing.assert_close(nested, agent_from_world(points(), in_world, angle + inner_angle), rtol=0, atol=1e-9)


@few
@given(st.floats(-100.0, 100.0))
def test_wrapped_angles_are_the_same_direction_within_one_turn(angle: float) -> None:
    wrapped = float(wrap_angle_rad(torch.tensor(angle, dtype=torch.float64)))
    assert -math.pi <= wrapped < math.pi
    assert math.cos(wrapped - angle) == pytest.approx(1.0, abs=1e-12)


def test_a_point_ahead_lies_on_the_x_axis() -> None:
    position, angle = frame(10.0, 20.0, 3.0, math.pi / 2)
    ahead = torch.tensor([[[10.0, 25.0, 4.0]]], dtype=torch.float64)
    torch.testing.assert_close(agent_from_world(ahead, position, angle), torch.tensor([[[5.0, 0.0, 1.0]]]).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shape_and_type_are_kept_and_each_row_has_its_own_frame(dtype: torch.dtype) -> None:
    many = points(2).to(dtype).expand(3, -1, -1, -1)
    position, angle = torch.randn(3, 2).to(dtype), torch.tensor([0.0, 1.0, 2.0], dtype=dtype)
    turned = agent_from_world(many, position, angle)
    assert turned.shape == many.shape
    assert turned.dtype == dtype
    torch.testing.assert_close(turned[1:2], agent_from_world(many[1:2], position[1:2], angle[1:2]))
