"""Compressed laser frames to points: Waymo's range images of five lasers, two returns each, in the vehicle frame.

Geometry and its pitfalls follow Waymo's `range_image_utils` and `womd_lidar_utils`, in float64: pixels of the TOP laser
carry the vehicle pose of their own moment (rolling shutter), the side lasers share the pose of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.womd import schema
from preprocessing.womd.range_image import QuantisedImage, RangeImage, RangeImageError, open_image

Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Points = tuple[Float, Float]
"""xyz (n, 3) in metres, features (n, 3): range in metres, intensity, elongation."""

TOP: int = schema.LaserName.TOP
LASER_NAMES: dict[int, str] = {
    value.number: value.name for value in schema.LaserName.DESCRIPTOR.enum_types_by_name["Name"].values
}
NUM_POINT_FEATURES = 3
_POSE_CHANNELS = 6


class LidarError(ValueError):
    """LiDAR data that contradict themselves or the motion record; the message names what and where."""


@dataclass(frozen=True, kw_only=True)
class LaserScan:
    """One laser of one frame, decoded: its range images and what turns their pixels into points."""

    name: int
    """LaserName: 1 TOP, 2 FRONT, 3 SIDE_LEFT, 4 SIDE_RIGHT, 5 REAR."""
    returns: tuple[RangeImage | None, RangeImage | None]
    """First and second return, channels range (m), intensity, elongation, ...; None where the record has none."""
    vehicle_from_laser: Float
    """(4, 4)"""
    inclination_rad: Float
    """(H,) of each row, top row first."""
    azimuth_rad: Float
    """(W,) of each column in the laser frame; not wrapped to [-pi, pi)."""
    pixel_poses: RangeImage | None
    """(6, H, W) roll, pitch, yaw, x, y, z of world_from_vehicle at each pixel's moment (TOP, both returns)."""
    vehicle_from_world: Float
    """(4, 4) of the frame."""

    def points(self, rows: Index, columns: Index, range_m: Float) -> Float:
        """Points (N, 3) of N pixels in the vehicle frame of this frame."""
        horizontal = np.cos(self.inclination_rad)[rows] * range_m
        laser = np.empty((rows.size, 3))
        laser[:, 0] = np.cos(self.azimuth_rad)[columns] * horizontal
        laser[:, 1] = np.sin(self.azimuth_rad)[columns] * horizontal
        laser[:, 2] = np.sin(self.inclination_rad)[rows] * range_m
        vehicle = _transformed(self.vehicle_from_laser, laser)
        if self.pixel_poses is None:
            return vehicle
        if self._column_poses is None:
            cos, sin, shift = _turns_and_shifts(self.pixel_poses.pixels(rows, columns, _POSE_CHANNELS))
        else:
            cos, sin, shift = (table.take(columns, axis=1) for table in self._column_poses)
        return _transformed(self.vehicle_from_world, _posed(cos, sin, shift, vehicle))

    @cached_property
    def _column_poses(self) -> tuple[Float, Float, Float] | None:
        """Cosines, sines and positions (3, W) of the columns' poses, if known to be the same in all rows."""
        poses = self.pixel_poses
        if not isinstance(poses, QuantisedImage) or not poses.has_equal_rows:
            return None
        columns = np.arange(self.azimuth_rad.size)
        return _turns_and_shifts(poses.pixels(np.zeros_like(columns), columns, _POSE_CHANNELS))

    def all_points(self, image: RangeImage | None) -> Points:
        """Points and features of every pixel of one return whose range is positive, row after row."""
        if image is None:
            return np.zeros((0, 3)), np.zeros((0, NUM_POINT_FEATURES))
        rows, columns = np.nonzero(image.values[0] > 0)
        features = image.pixels(rows, columns, NUM_POINT_FEATURES)
        return self.points(rows, columns, features[:, 0]), features


def merge_lidar(scenario: Any, lidar_scenario: Any) -> None:
    """Put the laser frames of a per-scenario LiDAR record into its motion record (in place).

    Args:
        scenario: a `schema.Scenario` of the motion files.
        lidar_scenario: the `schema.Scenario` of `<scenario_id>.tfrecord`; the laser frames are what counts in it, the id may be
            missing, because the file's name says whose they are.

    Raises:
        LidarError: another scenario, no laser frame, more frames than history steps, or frames in both records.
    """
    name, other = scenario.scenario_id, lidar_scenario.scenario_id
    if other not in ("", name):
        raise LidarError(
            f"scenario {name!r}: the LiDAR record is of scenario {other!r}; fetch the file named after the scenario"
        )
    frames = lidar_scenario.compressed_frame_laser_data
    if not frames:
        raise LidarError(f"scenario {name!r}: the LiDAR record has no compressed_frame_laser_data; fetch the LiDAR file again")
    if scenario.compressed_frame_laser_data:
        raise LidarError(f"scenario {name!r}: the motion record has laser frames already; merge a LiDAR record only once")
    check_num_frames(scenario, len(frames))
    scenario.compressed_frame_laser_data.extend(frames)


def check_num_frames(scenario: Any, num_frames: int) -> None:
    """Laser frame i belongs to step i, and there is none after the current step.

    Raises:
        LidarError: there are more frames than steps up to the current one.
    """
    most = scenario.current_time_index + 1
    if num_frames > most:
        raise LidarError(
            f"scenario {scenario.scenario_id!r}: {num_frames} laser frames, expected at most {most} (steps 0 to "
            f"current_time_index); the LiDAR belongs to another version of the dataset"
        )


def frame_points(frame: Any) -> list[tuple[Points, Points]]:
    """All points of a laser frame in its vehicle frame.

    Args:
        frame: a `schema.CompressedFrameLaserData`.

    Returns:
        For each laser, in the order of `frame.lasers`, its first and its second return.

    Raises:
        LidarError: see `open_frame`.
    """
    return [(scan.all_points(scan.returns[0]), scan.all_points(scan.returns[1])) for scan in open_frame(frame)]


def open_frame(frame: Any) -> list[LaserScan]:
    """Decode the range images of a laser frame, in the order of `frame.lasers`; points come from the scans.

    Raises:
        LidarError: a laser without calibration, a broken range image or transform; the message says which.
    """
    calibrations: dict[int, Any] = {}
    for calibration in frame.laser_calibrations:
        if calibration.name in calibrations:
            raise LidarError(f"laser {_title(calibration.name)}: two calibrations in one frame, expected one")
        calibrations[calibration.name] = calibration
    from_world = vehicle_from_world(frame)
    return [_open_laser(laser, calibrations.get(laser.name), from_world) for laser in frame.lasers]


def vehicle_from_world(frame: Any) -> Float:
    """The transform (4, 4) from world coordinates into the vehicle frame of a laser frame.

    Raises:
        LidarError: the frame has no rigid pose.
    """
    inverse: Float = np.asarray(np.linalg.inv(_matrix(frame.pose, "the frame's pose")), dtype=np.float64)
    return inverse


def beam_inclinations(calibration: Any, height: int) -> Float:
    """Inclinations (H,) in radians of the rows, top row first: as given, or the centres of equal bins.

    Raises:
        LidarError: another number of inclinations than rows.
    """
    given = np.array(calibration.beam_inclinations, dtype=np.float64)
    if not height:  # a laser without any image needs none
        return np.zeros(0)
    if not given.size:
        low, high = calibration.beam_inclination_min, calibration.beam_inclination_max
        given = (np.arange(height) + 0.5) / height * (high - low) + low
    if given.shape != (height,) or not np.isfinite(given).all():
        raise LidarError(
            f"laser {_title(calibration.name)}: the calibration's beam_inclinations must be {height} finite numbers "
            f"(one per row of the range image), has {given.size}"
        )
    return given[::-1]


def _open_laser(laser: Any, calibration: Any, from_world: Float) -> LaserScan:
    title = f"laser {_title(laser.name)}"
    if calibration is None:
        raise LidarError(f"{title}: no calibration of this name in the frame")

    def image(field: str, data: bytes, num_channels: int) -> RangeImage | None:
        try:
            return _read_image(data, num_channels)
        except RangeImageError as error:
            raise LidarError(f"{title}, {field}: {error}") from error

    first, second = (
        image(f"{field}.range_image_delta_compressed", part.range_image_delta_compressed, NUM_POINT_FEATURES)
        for field, part in (("ri_return1", laser.ri_return1), ("ri_return2", laser.ri_return2))
    )
    shapes = {item.shape[1:] for item in (first, second) if item is not None}
    if len(shapes) > 1:
        raise LidarError(f"{title}: its two returns must have one height and width, have {sorted(shapes)}")
    height, width = next(iter(shapes), (0, 0))
    poses = None
    if laser.name == TOP and shapes:
        data = laser.ri_return1.range_image_pose_delta_compressed
        poses = image("ri_return1.range_image_pose_delta_compressed", data, _POSE_CHANNELS)
        if poses is None or poses.shape[1:] != (height, width):
            has = "is missing" if poses is None else f"has height and width {poses.shape[1:]}"
            raise LidarError(f"{title}: a pose for each of {height} x {width} pixels is expected, the pose image {has}")
    extrinsic = _matrix(calibration.extrinsic, f"{title}: the calibration's extrinsic")
    azimuth_correction = np.arctan2(extrinsic[1, 0], extrinsic[0, 0])
    ratio = (width - np.arange(width) - 0.5) / max(width, 1)
    return LaserScan(
        name=laser.name,
        returns=(first, second),
        vehicle_from_laser=extrinsic,
        inclination_rad=beam_inclinations(calibration, height),
        azimuth_rad=(ratio * 2.0 - 1.0) * np.pi - azimuth_correction,
        pixel_poses=poses,
        vehicle_from_world=from_world,
    )


def _read_image(data: bytes, num_channels: int) -> RangeImage | None:
    """A range image with at least so many channels; None for no bytes at all."""
    if not data:
        return None
    image = open_image(data)
    if image.shape[0] < num_channels:
        raise RangeImageError(f"expected at least {num_channels} channels, has {image.shape[0]}")
    return image


def _matrix(transform: Any, what: str) -> Float:
    """The (4, 4) matrix of a Transform message; not to be written to."""
    return _checked_matrix(tuple(transform.transform), what)


@lru_cache(maxsize=64)
def _checked_matrix(entries: tuple[float, ...], what: str) -> Float:
    # Remembered: the lasers stand where they stood in the frame before.
    numbers = np.array(entries, dtype=np.float64)
    if numbers.size != 16 or not np.isfinite(numbers).all():
        raise LidarError(f"{what} must be 16 finite numbers, has {numbers.size}")
    matrix = numbers.reshape(4, 4)
    rotation = matrix[:3, :3]
    # Loose on purpose: records hold rotations rounded to float32.
    is_rigid = np.abs(rotation @ rotation.T - np.eye(3)).max() <= 1e-3 and np.abs(matrix[3] - [0, 0, 0, 1]).max() <= 1e-6
    if not is_rigid:
        raise LidarError(f"{what} must be a rotation and a translation, is {matrix.tolist()}")
    matrix.flags.writeable = False
    return matrix


def _transformed(matrix: Float, points: Float) -> Float:
    moved: Float = points @ matrix[:3, :3].T
    for axis in range(3):  # several times as fast as a sum over rows of three
        moved[:, axis] += matrix[axis, 3]
    return moved


def _turns_and_shifts(poses: Float) -> tuple[Float, Float, Float]:
    """Of poses (N, 6) roll, pitch, yaw, x, y, z: cosines and sines (3, N) of the angles, and the positions (3, N)."""
    return np.cos(poses[:, :3]).T, np.sin(poses[:, :3]).T, poses[:, 3:].T


def _posed(cos: Float, sin: Float, shift: Float, points: Float) -> Float:
    """Points (N, 3) moved by one pose each, R = Rz(yaw) Ry(pitch) Rx(roll); see `_turns_and_shifts`."""
    x, y, z = points.T
    y, z = cos[0] * y - sin[0] * z, sin[0] * y + cos[0] * z
    x, z = cos[1] * x + sin[1] * z, cos[1] * z - sin[1] * x
    x, y = cos[2] * x - sin[2] * y, sin[2] * x + cos[2] * y
    moved = np.empty((3, len(points)))
    for axis, turned in enumerate((x, y, z)):
        np.add(turned, shift[axis], out=moved[axis])
    return moved.T


def _title(name: int) -> str:
    return LASER_NAMES.get(name, str(name))
