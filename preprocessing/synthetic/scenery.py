"""Buildings and poles beside the roads: they hide pedestrians from the sensor, and nothing else."""

from __future__ import annotations

import numpy as np

from preprocessing.synthetic.network import RoadNetwork
from preprocessing.synthetic.world import Float

SETBACK_M = 4.2


def add_scenery(network: RoadNetwork, rng: np.random.Generator) -> tuple[Float, Float]:
    """Buildings (B, 6) along the sidewalks and poles (P, 4) between sidewalk and road."""
    buildings: list[list[float]] = []
    poles: list[list[float]] = []
    for arm in network.arms:
        for side in (-1, 1):
            x = arm.corner_m + float(rng.uniform(8.0, 14.0))
            while x < arm.length_m - 12.0:
                length, depth = float(rng.uniform(9.0, 20.0)), float(rng.uniform(8.0, 14.0))
                y = arm.edge_m(side) + side * (SETBACK_M + float(rng.uniform(0.0, 3.0)) + 0.5 * depth)
                middle = x + 0.5 * length
                centre = arm.to_local(middle, y)
                free = all(abs(middle - d) > 0.5 * length + 4.0 for n, d in network.driveways if network.arms[n] is arm)
                if (free or side > 0) and not _on_a_road(network, centre, 0.5 * float(np.hypot(length, depth))):
                    height = float(rng.uniform(4.0, 14.0))
                    buildings.append([*centre, length, depth, height, float(arm.heading(middle))])
                x += length + float(rng.uniform(4.0, 16.0))
            for x in np.arange(arm.corner_m + 4.0, arm.length_m, float(rng.uniform(18.0, 28.0))):
                position = arm.to_local(x, arm.edge_m(side) + side * 0.5)
                poles.append([*position, float(rng.uniform(0.08, 0.16)), float(rng.uniform(4.0, 7.0))])
    return np.array(buildings).reshape(-1, 6), np.array(poles).reshape(-1, 4)


def without_people_inside(buildings: Float, position_m: Float) -> Float:
    """The buildings (b, 6) that no position (n, 2) of any actor lies in, or within half a car's length of."""
    if not len(buildings):
        return buildings
    gap = position_m[None] - buildings[:, None, :2]
    cosine, sine = np.cos(buildings[:, None, 5]), np.sin(buildings[:, None, 5])
    along = np.abs(gap[..., 0] * cosine + gap[..., 1] * sine)
    across = np.abs(gap[..., 1] * cosine - gap[..., 0] * sine)
    inside = (along < 0.5 * buildings[:, None, 2] + 2.8) & (across < 0.5 * buildings[:, None, 3] + 2.8)
    return np.asarray(buildings[~inside.any(axis=1)])


def _on_a_road(network: RoadNetwork, centre: Float, radius_m: float) -> bool:
    """Whether a building could stand on any lane or sidewalk of another arm."""
    reach = radius_m + 1.5
    return any(bool((np.hypot(*(lane.points_m[::4] - centre).T) < reach + 1.0).any()) for lane in network.lanes.values())
