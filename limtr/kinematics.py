"""Paths that need no learning: where an agent gets with its current velocity, alone or bent towards an intention point."""

from __future__ import annotations

import torch

from limtr.scene import STEP_S


def constant_velocity_path(velocity: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Displacement and velocity of going on as now.

    Args:
        velocity: (..., 2) metres per second.
        num_steps: T, at 10 Hz; the first is 0.1 s ahead.

    Returns:
        (..., T, 4) x, y relative to the start, vx, vy.
    """
    time_s = STEP_S * torch.arange(1, num_steps + 1, dtype=velocity.dtype, device=velocity.device).unsqueeze(-1)
    now = velocity.unsqueeze(-2)
    return torch.cat((now * time_s, now.expand(*now.shape[:-2], num_steps, 2)), dim=-1)


def intention_path(velocity: torch.Tensor, intention: torch.Tensor, num_steps: int) -> torch.Tensor:
    """The path of constant acceleration that begins with the current velocity and ends at the intention point.

    Args:
        velocity: (C, 2) metres per second.
        intention: (C, Q, 2) metres.
        num_steps: T, at 10 Hz; the last is at the intention point.

    Returns:
        (C, Q, T, 4) x, y, vx, vy.
    """
    going_on = constant_velocity_path(velocity, num_steps).unsqueeze(1)
    share = torch.arange(1, num_steps + 1, dtype=velocity.dtype, device=velocity.device)[:, None] / num_steps
    bend = intention.unsqueeze(2) - going_on[:, :, -1:, :2]
    return torch.cat(
        (going_on[..., :2] + bend * share**2, going_on[..., 2:] + bend * (2 * share / (num_steps * STEP_S))), dim=-1
    )


def add_path(trajectories: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
    """`trajectories` (..., T, 7) (`limtr.prediction.TRAJECTORY_FIELDS`) as offsets from `path` (..., T, 4) x, y, vx, vy."""
    return torch.cat(
        (trajectories[..., :2] + path[..., :2], trajectories[..., 2:5], trajectories[..., 5:] + path[..., 2:]), dim=-1
    )
