"""Gaussian mixtures over trajectories: parameters and negative log-likelihood."""

from __future__ import annotations

import torch

NUM_PARAMETERS = 7
"""x, y, log sigma x, log sigma y, rho, vx, vy per step: `limtr.prediction.TRAJECTORY_FIELDS`."""

LOG_SIGMA_RANGE = (-1.609, 5.0)
"""0.2 m to 148 m."""
RHO_LIMIT = 0.5


def full_precision(like: torch.Tensor) -> torch.autocast:
    """A block in which autocast is off on the device of `like`."""
    return torch.autocast(like.device.type, enabled=False)


def step_nll(trajectory: torch.Tensor, target_xy: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each step under its bivariate Gaussian, without the constant log 2 pi.

    Args:
        trajectory: (..., T, 7); log sigma and rho are clipped to `LOG_SIGMA_RANGE` and `RHO_LIMIT`.
        target_xy: (..., T, 2).

    Returns:
        (..., T).
    """
    log_sigma = trajectory[..., 2:4].clamp(*LOG_SIGMA_RANGE)
    rho = trajectory[..., 4].clamp(-RHO_LIMIT, RHO_LIMIT)
    scaled = (target_xy - trajectory[..., :2]) * torch.exp(-log_sigma)
    decorrelation = 1 - rho.square()
    squares = scaled.square().sum(dim=-1) - 2 * rho * scaled[..., 0] * scaled[..., 1]
    return log_sigma.sum(dim=-1) + 0.5 * torch.log(decorrelation) + 0.5 * squares / decorrelation


def trajectory_losses(
    trajectory: torch.Tensor, target: torch.Tensor, target_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Position likelihood and velocity error of a trajectory, each summed over its valid steps.

    Args:
        trajectory: (..., T, 7).
        target: (..., T, 4) x, y, vx, vy; finite where masked.
        target_mask: (..., T) bool.

    Returns:
        negative log-likelihood (...) and L1 error of the velocity (...).
    """
    nll = torch.where(target_mask, step_nll(trajectory, target[..., :2]), 0.0).sum(dim=-1)
    velocity_error = (target[..., 2:4] - trajectory[..., 5:7]).abs().sum(dim=-1)
    return nll, torch.where(target_mask, velocity_error, 0.0).sum(dim=-1)
