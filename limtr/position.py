"""Sine codes of positions in metres."""

from __future__ import annotations

import math

import torch

_BASE = 10000.0


def sine_code(xy_m: torch.Tensor, num_channels: int) -> torch.Tensor:
    """Sine code of positions, as MTR's encoder and decoder use it.

    Args:
        xy_m: (..., 2 or more) x, y in metres; further coordinates are ignored.
        num_channels: D, a multiple of 4.

    Returns:
        (..., D): first the code of y, then that of x, each with sines and cosines in turn.
    """
    half = num_channels // 2
    index = torch.arange(half // 2, device=xy_m.device, dtype=xy_m.dtype)
    wavelength = _BASE ** (2 * index / half)
    angle = 2 * math.pi * xy_m[..., [1, 0], None] / wavelength
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(start_dim=-3)
