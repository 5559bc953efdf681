"""The five LiDARs of the recording vehicle at work: range images of both returns for every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocessing.synthetic.ego_pose import EgoPath, ego_path, pose_matrix
from preprocessing.synthetic.returns import NUM_CHANNELS, echoes
from preprocessing.synthetic.scan_geometry import Laser, SensorConfig, lasers_of
from preprocessing.synthetic.surfaces import surfaces_by_step
from preprocessing.synthetic.world import World

Float = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

_BODY_REACH_M = 10.0  # half the longest body and the ego's way within a sweep, beyond the longest range


@dataclass(frozen=True, kw_only=True)
class LaserImages:
    """What one laser saw in one frame."""

    laser: Laser
    first: Image
    """(H, W, 4) range (m), intensity, elongation, in a no-label zone; range 0 where nothing came back."""
    second: Image
    """(H, W, 4)"""
    column_poses: Float | None
    """(W, 6) roll, pitch, yaw, x, y, z of the vehicle in the global frame at each column's moment (rolling lasers)."""


@dataclass(frozen=True, kw_only=True)
class LaserFrame:
    """All lasers at one step."""

    global_from_vehicle: Float
    """(4, 4)"""
    images: tuple[LaserImages, ...]


def scan(world: World, steps: range, config: SensorConfig, seed: np.random.SeedSequence) -> list[LaserFrame]:
    """Scan the world at each of `steps`.

    Actors stand still during a sweep, the ego does not: each TOP column starts from the ego's pose at its own moment.
    The same world, steps, configuration and seed give the same images.
    """
    streams = [np.random.Generator(np.random.SFC64(child)) for child in seed.spawn(len(steps) + 1)]
    path = ego_path(world)
    lasers = lasers_of(config, world.size_m[world.ego])
    reach = config.top_range_m + _BODY_REACH_M
    frames = []
    all_surfaces = surfaces_by_step(world, steps, reach_m=reach, rng=streams[-1])
    for step, surfaces, rng in zip(steps, all_surfaces, streams, strict=False):
        caster = surfaces.caster()
        images = []
        for laser in lasers:
            position, yaw = _poses(path, laser, step)
            rays = _rays(laser, position[laser.columns], yaw[laser.columns])
            shape = (laser.shape[0], len(laser.columns))
            seen = echoes(rays, shape, caster, surfaces, max_range_m=laser.max_range_m, config=config, rng=rng)
            poses = _pose_columns(position + world.origin_m, yaw) if laser.rolling else None
            images.append(
                LaserImages(laser=laser, first=_whole(seen.first, laser), second=_whole(seen.second, laser), column_poses=poses)
            )
        position, yaw = path.at(step)
        pose = pose_matrix(position[0] + world.origin_m, float(yaw[0]))
        frames.append(LaserFrame(global_from_vehicle=pose, images=tuple(images)))
    return frames


def _poses(path: EgoPath, laser: Laser, step: int) -> tuple[Float, Float]:
    """Vehicle positions (W, 3) and yaws (W,) of the laser's columns."""
    width = laser.shape[1]
    return path.sweep(step, width) if laser.rolling else path.at(np.full(width, float(step)))


def _rays(laser: Laser, position_m: Float, yaw_rad: Float) -> Image:
    """(H * n, 6) origins and directions in the world's local frame, top row first."""
    inclination = laser.inclinations_rad[::-1]
    azimuth = laser.azimuth_rad + yaw_rad
    height, n = len(inclination), len(azimuth)
    rays = np.empty((height, n, 6), np.float32)
    lever = laser.vehicle_from_laser[:3, 3]
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    rays[..., 0] = position_m[:, 0] + cos * lever[0] - sin * lever[1]
    rays[..., 1] = position_m[:, 1] + sin * lever[0] + cos * lever[1]
    rays[..., 2] = position_m[:, 2] + lever[2]
    rays[..., 3] = np.cos(inclination)[:, None] * np.cos(azimuth)
    rays[..., 4] = np.cos(inclination)[:, None] * np.sin(azimuth)
    rays[..., 5] = np.sin(inclination)[:, None]
    return rays.reshape(-1, 6)


def _whole(image: Image, laser: Laser) -> Image:
    """The laser's full image; columns that are not cast stay empty."""
    if image.shape[1] == laser.shape[1]:
        return image
    whole = np.zeros((*laser.shape, NUM_CHANNELS), np.float32)
    whole[:, laser.columns] = image
    return whole


def _pose_columns(position_m: Float, yaw_rad: Float) -> Float:
    level = np.zeros_like(yaw_rad)
    wrapped = np.angle(np.exp(1j * yaw_rad))
    return np.stack([level, level, wrapped, *position_m.T], axis=-1)
