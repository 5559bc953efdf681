"""Where the recording vehicle is at any moment, between its steps too: what a rolling shutter needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocessing.synthetic.scan_geometry import REAR_AXLE_SHARE
from preprocessing.synthetic.world import World

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class EgoPath:
    """Poses of the vehicle frame (rear axle, on the ground; level) in the world's local frame."""

    position_m: Float
    """(T, 3)"""
    yaw_rad: Float
    """(T,) unwrapped"""

    def at(self, moment: npt.ArrayLike) -> tuple[Float, Float]:
        """Positions (n, 3) and yaws (n,) at `moment` (n,) in steps; half a step beyond either end is extrapolated."""
        wanted = np.atleast_1d(np.asarray(moment, np.float64))
        steps = np.arange(-1, len(self.yaw_rad) + 1, dtype=np.float64)
        columns = np.concatenate([self.position_m, self.yaw_rad[:, None]], axis=1)
        step = np.diff(columns, axis=0) if len(columns) > 1 else np.zeros_like(columns)
        padded = np.concatenate([columns[:1] - step[:1], columns, columns[-1:] + step[-1:]])
        x, y, z, yaw = (np.interp(wanted, steps, padded[:, channel]) for channel in range(4))
        return np.stack([x, y, z], axis=-1), yaw

    def sweep(self, step: int, num_columns: int) -> tuple[Float, Float]:
        """Poses of a sweep's columns: one turn from back to back takes one step and looks ahead at the step's own time."""
        return self.at(step + (np.arange(num_columns) + 0.5) / num_columns - 0.5)


def ego_path(world: World) -> EgoPath:
    """The path of the world's recording vehicle."""
    yaw = np.unwrap(world.heading_rad[world.ego])
    size = world.size_m[world.ego]
    forward = np.stack([np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)], axis=-1)
    offset = REAR_AXLE_SHARE * size[0] * forward + np.array([0.0, 0.0, size[2] / 2])
    return EgoPath(position_m=world.position_m[world.ego] - offset, yaw_rad=yaw)


def pose_matrix(position_m: Float, yaw_rad: float) -> Float:
    """(4, 4) world from vehicle for a level vehicle."""
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw_rad), -np.sin(yaw_rad)], [np.sin(yaw_rad), np.cos(yaw_rad)]]
    matrix[:3, 3] = position_m
    return matrix
