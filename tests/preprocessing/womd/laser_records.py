"""Scenario records with laser frames, made by casting rays at boxes: small, and exact to the quantisation."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocessing.womd import schema
from preprocessing.womd.range_image import encode

RANGE_PRECISION = (0.005, 0.01, 0.01, 1.0)
POSE_PRECISION = (1e-6, 1e-6, 1e-6, 1e-4, 1e-4, 1e-4)
ORIGIN_M = np.array([-7785.0, 6398.0, 20.0])


@dataclass(frozen=True, kw_only=True)
class LaserWorld:
    """What is in the record: sizes of the images, and how the recording vehicle and the tracks move."""

    seed: int = 0
    num_tracks: int = 3
    num_frames: int = 11
    num_steps: int = 91
    top_shape: tuple[int, int] = (24, 180)
    side_shape: tuple[int, int] = (10, 40)
    ego_speed_mps: float = 12.0
    ego_yaw_rate: float = 0.4
    lidar_delay_steps: int = 0
    """The frame of step t shows the world of step t + this."""
    uniform_top: bool = False
    """Whether the TOP laser too has only its smallest and largest inclination."""


def rotation(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """Rz(yaw) Ry(pitch) Rx(roll), written as the product that it is."""
    cr, cp, cy, sr, sp, sy = np.cos(roll), np.cos(pitch), np.cos(yaw), np.sin(roll), np.sin(pitch), np.sin(yaw)
    around_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    around_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    around_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return around_z @ around_y @ around_x


def pose(world: LaserWorld, step: float) -> np.ndarray:
    """Roll, pitch, yaw, x, y, z of the recording vehicle at a (fractional) step."""
    time_s = step * 0.1
    yaw = 3.0 + world.ego_yaw_rate * time_s  # runs through pi: the pose image's yaw wraps
    place = ORIGIN_M + np.array([world.ego_speed_mps * time_s, 2.0 * np.sin(time_s), 0.1 * time_s])
    return np.array([0.01, -0.02 + 0.01 * time_s, np.arctan2(np.sin(yaw), np.cos(yaw)), *place])


def matrix(numbers: np.ndarray) -> np.ndarray:
    """World_from_vehicle (4, 4) of a pose."""
    result = np.eye(4)
    result[:3, :3] = rotation(*numbers[:3])
    result[:3, 3] = numbers[3:]
    return result


def laser_scenario(world: LaserWorld) -> Any:
    """A Scenario with tracks on curved paths, all to be predicted, and laser frames that see their boxes and the ground."""
    rng = np.random.default_rng(world.seed)
    scenario = schema.Scenario(scenario_id=f"laser{world.seed:04d}", current_time_index=10)
    scenario.timestamps_seconds.extend(0.1 * np.arange(world.num_steps))
    boxes = np.zeros((world.num_tracks, world.num_steps + 20, 7))
    steps = np.arange(world.num_steps + 20) - 10.0
    for row in range(world.num_tracks):
        start = np.array([rng.uniform(-12, 14), rng.uniform(5, 18) * rng.choice([-1, 1])])
        heading = rng.uniform(-3, 3) + rng.uniform(-0.3, 0.3) * steps * 0.1
        speed = 1.5 if row == 1 else 8.0
        way = np.cumsum(speed * 0.1 * np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
        size = (0.9, 0.8, 1.7) if row == 1 else (4.6, 1.9, 1.6)
        boxes[row, :, :2] = ORIGIN_M[:2] + np.array([6.0, 0.0]) + start + way
        boxes[row, :, 2] = ORIGIN_M[2] + size[2] / 2
        boxes[row, :, 3:6], boxes[row, :, 6] = size, heading
        track = scenario.tracks.add(id=100 + row, object_type=2 if row == 1 else 1)
        for step in range(world.num_steps):
            valid = bool(rng.random() > 0.1)
            if valid:
                names = ("center_x", "center_y", "center_z", "length", "width", "height", "heading")
                track.states.add(valid=True, **dict(zip(names, boxes[row, step + 10].tolist(), strict=True)))
            else:
                track.states.add(valid=False, center_z=1.0)
        scenario.tracks_to_predict.add(track_index=row)
    for step in range(world.num_frames):
        shown = step + world.lidar_delay_steps
        add_frame(scenario, world, step, boxes[:, shown + 10], rng)
    return scenario


def add_frame(scenario: Any, world: LaserWorld, step: int, boxes: np.ndarray, rng: np.random.Generator) -> None:
    """Append the laser frame of a step, which sees these boxes (A, 7)."""
    frame = scenario.compressed_frame_laser_data.add()
    frame.pose.transform.extend(matrix(pose(world, step)).ravel())
    # Calibrations come in another order than the lasers: they belong together by name.
    for name in (5, 2, 1, 4, 3):
        calibration = frame.laser_calibrations.add(name=name)
        extrinsic = np.eye(4)
        extrinsic[:3, :3] = rotation(0.01 * name, -0.005 * name, 1.4 * (name - 1) - 2.9)
        extrinsic[:3, 3] = (1.4 - 0.3 * name, 0.2 * (name - 3), 2.1 if name == 1 else 0.9)
        calibration.extrinsic.transform.extend(extrinsic.ravel())
        low, high = (-0.6, 0.1) if name == 1 else (-1.2, 0.4)
        if name == 1 and not world.uniform_top:
            calibration.beam_inclinations.extend(low + (high - low) * np.linspace(0, 1, world.top_shape[0]) ** 0.8)
        else:
            calibration.beam_inclination_min, calibration.beam_inclination_max = low, high
    for name in (2, 1, 3, 4, 5):
        shape = world.top_shape if name == 1 else world.side_shape
        calibration = next(item for item in frame.laser_calibrations if item.name == name)
        extrinsic = np.array(calibration.extrinsic.transform).reshape(4, 4)
        poses = np.broadcast_to(pose(world, step), (*shape, 6)).copy()
        if name == 1:
            moments = step + np.linspace(-0.5, 0.5, shape[1])
            poses[:] = np.stack([pose(world, moment) for moment in moments])
            poses = np.round(poses / POSE_PRECISION) * POSE_PRECISION
        near, far = _cast(extrinsic, pixel_directions(calibration, shape), poses, boxes)
        near[rng.random(shape) < 0.1] = 0.0
        far[rng.random(shape) < 0.6] = 0.0
        laser = frame.lasers.add(name=name)
        for ranges, part in ((near, laser.ri_return1), (far, laser.ri_return2)):
            there = (ranges > 0).astype(np.float64)
            image = np.stack([ranges, rng.random(shape) * there, 0.5 * rng.random(shape) * there, -there], axis=-1)
            part.range_image_delta_compressed = encode(image, RANGE_PRECISION)
        if name == 1:
            laser.ri_return1.range_image_pose_delta_compressed = encode(poses, POSE_PRECISION)


def pixel_directions(calibration: Any, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) unit vectors of the pixels in the laser frame, pixel by pixel as the format describes them."""
    extrinsic = np.array(calibration.extrinsic.transform).reshape(4, 4)
    correction = float(np.arctan2(extrinsic[1, 0], extrinsic[0, 0]))
    span = (calibration.beam_inclination_min, calibration.beam_inclination_max)
    return _directions(tuple(calibration.beam_inclinations), span, correction, shape)


@functools.cache
def _directions(given: tuple[float, ...], span: tuple[float, float], correction: float, shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    directions = np.zeros((height, width, 3))
    for row in range(height):
        upwards = height - 1 - row
        inclination = given[upwards] if given else (upwards + 0.5) / height * (span[1] - span[0]) + span[0]
        for column in range(width):
            azimuth = ((width - column - 0.5) / width * 2 - 1) * np.pi - correction
            directions[row, column] = (
                np.cos(azimuth) * np.cos(inclination), np.sin(azimuth) * np.cos(inclination), np.sin(inclination)
            )  # fmt: skip
    return directions


def _cast(extrinsic: np.ndarray, directions: np.ndarray, poses: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances (H, W) at which rays enter and leave the nearest box; the ground, else 0, where they hit none."""
    # The poses differ from column to column only.
    turn = np.stack([rotation(*numbers[:3]) for numbers in poses[0]])
    start = np.broadcast_to(turn @ extrinsic[:3, 3] + poses[0, :, 3:], directions.shape)
    ray = np.einsum("wij,hwj->hwi", turn, directions @ extrinsic[:3, :3].T)
    with np.errstate(divide="ignore", invalid="ignore"):
        ground = (ORIGIN_M[2] - start[..., 2]) / ray[..., 2]
        near = np.where((ground > 0) & (ground < 70), ground, 0.0)
        far = np.zeros_like(near)
        for box in boxes:
            back = rotation(0.0, 0.0, -box[6])
            offset, heading = (start - box[:3]) @ back.T, ray @ back.T
            first, second = (-box[3:6] / 2 - offset) / heading, (box[3:6] / 2 - offset) / heading
            enter, leave = np.minimum(first, second).max(axis=-1), np.maximum(first, second).min(axis=-1)
            hit = (enter > 0.5) & (leave > enter) & ((near == 0) | (enter < near))
            near, far = np.where(hit, enter, near), np.where(hit, leave, far)
    return near, far
