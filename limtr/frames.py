"""SE(2) words: points, vectors and angles between the scene (or world) and the frames of agents.

All functions take any leading shape, any device, float32 or float64. Positions and headings of frames have the leading axes
of the points that they move: frames (C, 2) and (C,) move points (C, A, T, 2). Points may carry z, which is only translated.
"""

from __future__ import annotations

import math

import torch


def wrap_angle_rad(angle: torch.Tensor) -> torch.Tensor:
    """Angles brought into [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def rotate(vectors: torch.Tensor, angle_rad: torch.Tensor) -> torch.Tensor:
    """Vectors turned counter-clockwise about z.

    Args:
        vectors: (..., D) with x, y first; what comes after y is kept.
        angle_rad: as many leading axes of `vectors` as it has itself (or axes that broadcast with them).
    """
    angle = _with_trailing_axes(angle_rad, vectors.ndim - 1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = vectors[..., 0], vectors[..., 1]
    turned = torch.stack((cos * x - sin * y, sin * x + cos * y), dim=-1)
    return torch.cat((turned, vectors[..., 2:]), dim=-1) if vectors.shape[-1] > 2 else turned


def agent_from_world(points: torch.Tensor, position: torch.Tensor, heading_rad: torch.Tensor) -> torch.Tensor:
    """Points in the frame that has its zero at `position` and its x axis along `heading_rad`.

    Args:
        points: (..., 2) or (..., 3).
        position: (leading axes of points, 2 or 3).
        heading_rad: (leading axes of points).
    """
    return rotate(points - _with_trailing_axes(position, points.ndim, keep=1), -heading_rad)


def world_from_agent(points: torch.Tensor, position: torch.Tensor, heading_rad: torch.Tensor) -> torch.Tensor:
    """The inverse of `agent_from_world`, with the same shapes."""
    return rotate(points, heading_rad) + _with_trailing_axes(position, points.ndim, keep=1)


def _with_trailing_axes(value: torch.Tensor, ndim: int, *, keep: int = 0) -> torch.Tensor:
    """`value` with axes of size 1 put in before its last `keep` axes until it has `ndim`."""
    leading = value.ndim - keep
    missing = ndim - value.ndim
    return value.reshape(*value.shape[:leading], *(1,) * missing, *value.shape[leading:])
