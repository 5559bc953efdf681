"""LiDAR crops seen flat: which agent and step every point belongs to, and crops of only some points."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from limtr.scene import BoolArray, FloatArray, IntArray, LidarCrops


def owners(lidar: LidarCrops) -> tuple[IntArray, IntArray]:
    """(N,) agent and (N,) step of every point."""
    num_agents, num_steps = lidar.count.shape
    flat = np.repeat(np.arange(num_agents * num_steps), lidar.count.ravel())
    return flat // num_steps, flat % num_steps


def keep_points(lidar: LidarCrops, kept: BoolArray) -> LidarCrops:
    """The crops with only the points of the (N,) mask; their order stays."""
    agent, step = owners(lidar)
    return arrange(lidar, lidar.points_m[kept], lidar.features[kept], agent[kept], step[kept])


def arrange(
    lidar: LidarCrops, points_m: npt.NDArray[np.floating[Any]], features: FloatArray, agent: IntArray, step: IntArray
) -> LidarCrops:
    """Crops of other points, brought into the order that crops have; points of one agent and step keep theirs.

    Points found in the box before the cap are those that are stored, and the share of empty agent-frames is the former one:
    which states are valid is not known here.
    """
    num_agents, num_steps = lidar.count.shape
    flat = agent * num_steps + step
    order = np.argsort(flat, kind="stable")
    count = np.bincount(flat, minlength=num_agents * num_steps).reshape(num_agents, num_steps).astype(np.int64)
    return replace(
        lidar,
        points_m=points_m[order].astype(np.float32),
        features=features[order].astype(np.float32),
        count=count,
        count_in_box=count.copy(),
    )
