"""Which pixels of a laser scan can become points inside some spheres: most pixels need never be converted.

A sphere is seen from the laser within a range of rows, columns and distances. Pixels of the TOP laser are placed by the
vehicle pose of their own moment, so its spheres grow by how far those poses can carry a point from where one common pose
would put it. All bounds are on the safe side: no pixel inside a sphere is ever left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocessing.womd.lidar import LaserScan
from preprocessing.womd.range_image import QuantisedImage

Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

_SLACK = 1.01
"""Covers transforms whose rotations are rounded (`lidar` admits 1e-3) and rounding here."""


@dataclass(frozen=True, kw_only=True)
class PixelWindow:
    """A block of pixels of a scan and the distances between which they can lie in one sphere."""

    rows: slice
    columns: slice
    near_m: float
    far_m: float


def sphere_windows(scan: LaserScan, center_m: Float, radius_m: Float) -> list[PixelWindow]:
    """The windows of K spheres in a scan; spheres that no pixel can reach have none.

    Args:
        scan: a decoded laser.
        center_m: (K, 3) in the world frame.
        radius_m: (K,)
    """
    if not scan.azimuth_rad.size or not radius_m.size:
        return []
    vehicle_from_world, displacement_m = _vehicle_from_world(scan, center_m)
    laser_from_world = np.linalg.inv(scan.vehicle_from_laser) @ vehicle_from_world
    center = center_m @ laser_from_world[:3, :3].T + laser_from_world[:3, 3]
    reach = (radius_m + displacement_m) * _SLACK + 1e-6
    # A row beyond the zenith looks backwards: then rows and columns say nothing simple, and only the distance is used.
    plain = bool((np.abs(scan.inclination_rad) < math.pi / 2).all())
    distance, distance_xy = np.linalg.norm(center, axis=1), np.hypot(center[:, 0], center[:, 1])
    up = scan.inclination_rad - np.arctan2(center[:, 2], distance_xy)[:, None]
    around = scan.azimuth_rad - np.arctan2(center[:, 1], center[:, 0])[:, None]
    around -= np.rint(around / (2 * math.pi)) * (2 * math.pi)
    rows = _runs(np.abs(up) <= _half_angle(reach, distance, plain)[:, None])
    columns = _runs(np.abs(around) <= _half_angle(reach, distance_xy, plain)[:, None])
    return [
        PixelWindow(rows=row_run, columns=column_run, near_m=near, far_m=far)
        for row_runs, column_runs, near, far in zip(
            rows, columns, (distance - reach).tolist(), (distance + reach).tolist(), strict=True
        )
        for row_run in row_runs
        for column_run in column_runs  # two if the columns wrap around
    ]


def pixels_in_windows(image: QuantisedImage, windows: list[PixelWindow]) -> tuple[Index, Index]:
    """Rows and columns (N,) of the pixels of one return that lie in any window, row after row, each once."""
    ranges, unit = image.values[0], float(image.precision[0])
    found = np.zeros(ranges.shape, dtype=np.bool_)
    for window in windows:
        steps = ranges[window.rows, window.columns]
        # Half a step of the range covers the rounding of the product that makes metres of it.
        near, far = max(math.ceil(window.near_m / unit - 0.5), 1), math.floor(window.far_m / unit + 0.5)
        found[window.rows, window.columns] |= (steps >= near) & (steps <= far)
    # Over the flat image, and only the few that are found then split: several times as fast as over two axes.
    rows, columns = np.divmod(np.flatnonzero(found), ranges.shape[1])
    return rows, columns


def _half_angle(reach: Float, distance: Float, plain: bool) -> Float:
    """Angles (K,) to either side under which spheres are seen; infinite from inside, and where angles say nothing."""
    outside = plain & (distance > reach)
    seen = np.arcsin(np.divide(reach, distance, out=np.zeros_like(reach), where=outside)) + 1e-9
    return np.where(outside, seen, math.inf)


def _runs(chosen: npt.NDArray[np.bool_]) -> list[list[slice]]:
    """The runs of true entries in each row of (K, N)."""
    changed = np.diff(chosen, axis=1, prepend=False, append=False)
    row, place = np.nonzero(changed)
    runs: list[list[slice]] = [[] for _ in chosen]
    for index, start, stop in zip(row[::2].tolist(), place[::2].tolist(), place[1::2].tolist(), strict=True):
        runs[index].append(slice(start, stop))
    return runs


def _vehicle_from_world(scan: LaserScan, center_m: Float) -> tuple[Float, Float]:
    """One transform for all pixels, and for each centre (K,) how far a pixel's own pose can be from it there, in metres."""
    no_displacement = np.zeros(center_m.shape[0])
    if scan.pixel_poses is None:
        return scan.vehicle_from_world, no_displacement
    filled = np.logical_or.reduce([image.values[0] > 0 for image in scan.returns if image is not None])
    if not filled.any():
        return scan.vehicle_from_world, no_displacement
    low, high = _pose_span(scan.pixel_poses, filled)
    middle, half_span = (low + high) / 2, (high - low) / 2
    world_from_vehicle = np.eye(4)
    world_from_vehicle[:3, :3] = _rotation(middle[:3])
    world_from_vehicle[:3, 3] = middle[3:]
    # Rotations differ by no more than the sum of their angles' differences; a point's way is angle times lever arm.
    shift_m, turn_rad = float(np.linalg.norm(half_span[3:])), float(half_span[:3].sum())
    lever_m = np.linalg.norm(center_m - middle[3:], axis=1) + shift_m
    return np.asarray(np.linalg.inv(world_from_vehicle), dtype=np.float64), shift_m + turn_rad * lever_m


def _pose_span(poses: QuantisedImage, filled: npt.NDArray[np.bool_]) -> tuple[Float, Float]:
    """Smallest and largest roll, pitch, yaw, x, y, z (6,) of the filled pixels; angles that wrap around are unrolled."""
    steps = poses.values[:6].reshape(6, -1)
    low, high = steps.min(axis=1) * poses.precision[:6], steps.max(axis=1) * poses.precision[:6]
    if (high - low)[3:].max() > 5.0 or (high - low)[:3].max() > math.pi:
        # Not what a tenth of a second does to a vehicle: pixels without a return may hold anything, and yaw may wrap.
        values = steps[:, filled.ravel()] * poses.precision[:6, None]
        turned = values[:3] - values[:3, :1]
        values[:3] -= np.rint(turned / (2 * math.pi)) * (2 * math.pi)
        low, high = values.min(axis=1), values.max(axis=1)
    return low, high


def _rotation(roll_pitch_yaw: Float) -> Float:
    """Rz(yaw) Ry(pitch) Rx(roll), (3, 3)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(roll_pitch_yaw), np.sin(roll_pitch_yaw)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )
