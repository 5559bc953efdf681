"""Points between the box frames of agents and the scene frame, at many steps at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

_X, _Y, _Z, _LENGTH, _WIDTH, _HEIGHT, _HEADING = range(7)


def _turn(points: Float, angle_rad: Float) -> Float:
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    x, y = points[:, 0], points[:, 1]
    return np.stack((cos * x - sin * y, sin * x + cos * y, points[:, 2]), axis=-1)


def scene_from_box(points_m: Float, states: Float) -> Float:
    """(N, 3) points in the box frames of (N, 9) states (`limtr.scene.STATE_FIELDS`), in the scene frame."""
    return _turn(points_m, states[:, _HEADING]) + states[:, _X : _Z + 1]


def box_from_scene(points_m: Float, states: Float) -> Float:
    """(N, 3) points of the scene frame, in the box frames of (N, 9) states."""
    return _turn(points_m - states[:, _X : _Z + 1], -states[:, _HEADING])


def overhang_m(points_m: Float, states: Float) -> Float:
    """(N,) how far each point in the box frame lies outside of its box, metres; not above 0 inside."""
    half = 0.5 * states[:, _LENGTH : _HEIGHT + 1]
    worst: Float = (np.abs(points_m) - half).max(axis=-1)
    return worst
