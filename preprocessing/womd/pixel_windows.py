"""Which pixels of a laser scan can become points inside some boxes: most pixels need never be converted.

A box is seen from the laser within a range of rows, columns and distances, and within a row it can only be where the beam is
at the box's height. Pixels of the TOP laser are placed by the vehicle pose of their own moment, so boxes grow by how far those
poses can carry a point from where one common pose would put it. All bounds are on the safe side: no pixel inside a box is ever
left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.womd.entries import PackedImage
from preprocessing.womd.lidar import LaserScan
from preprocessing.womd.range_image import QuantisedImage, RangeImage

Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

_SLACK = 1.01
"""Covers transforms whose rotations are rounded (`lidar` admits 1e-3)."""
_ROUNDING_M, _ROUNDING_RAD = 1e-6, 1e-9
_CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """K upright boxes in the vehicle frame of a laser frame."""

    center_m: Float
    """(K, 3)"""
    half_size_m: Float
    """(K, 3) half of length, width, height."""
    heading_rad: Float
    """(K,)"""

    def corners_m(self, margin_m: Float) -> Float:
        """(L, K, 8, 3) corners of the boxes grown by each of some margins (L, K) on every side."""
        offset = _CORNERS * (self.half_size_m + margin_m[..., None])[:, :, None]
        cos, sin = np.cos(self.heading_rad)[:, None], np.sin(self.heading_rad)[:, None]
        corners: Float = np.stack(
            [cos * offset[..., 0] - sin * offset[..., 1], sin * offset[..., 0] + cos * offset[..., 1], offset[..., 2]], axis=-1
        )
        corners += self.center_m[:, None]
        return corners


def joined(blocks: Sequence[Blocks]) -> Blocks:
    """All of them, one after another."""
    return Blocks(
        center_m=np.concatenate([some.center_m for some in blocks]),
        half_size_m=np.concatenate([some.half_size_m for some in blocks]),
        heading_rad=np.concatenate([some.heading_rad for some in blocks]),
    )


@dataclass(frozen=True, kw_only=True)
class PixelWindows:
    """K blocks of pixels of a scan (H, W), and the distances between which their pixels can lie in a box."""

    rows: list[slice]
    columns: list[slice]
    near_m: Float
    """(K, H)"""
    far_m: Float
    """(K, H)"""
    farthest_m: float
    """Beyond it there is no box at all."""


def block_windows(scans: Sequence[LaserScan], blocks: Blocks) -> list[PixelWindows]:
    """For each of some scans of a frame (L) the windows of boxes in it.

    Boxes that no pixel can reach have none, those across the first column two.
    """
    nothing = np.zeros(0)
    if not scans or not len(blocks.heading_rad):
        return [PixelWindows(rows=[], columns=[], near_m=nothing, far_m=nothing, farthest_m=0.0) for _ in scans]
    transforms, displacement_m = zip(*(_laser_from_vehicle(scan, blocks) for scan in scans), strict=True)
    laser_from_vehicle = np.stack(transforms)
    corners = blocks.corners_m(np.stack(displacement_m) * _SLACK + _ROUNDING_M).reshape(len(scans), -1, 3)
    corners = corners @ laser_from_vehicle[:, :3, :3].transpose(0, 2, 1) + laser_from_vehicle[:, None, :3, 3]
    view = _view(corners.reshape(len(scans), -1, len(_CORNERS), 3))
    return [_scan_windows(scan, {name: values[index] for name, values in view.items()}) for index, scan in enumerate(scans)]


def _view(corners: Float) -> dict[str, Float]:
    """How boxes of these corners (L, K, 8, 3) are seen from each of L lasers, as bounds (L, K)."""
    x, y, z = (np.ascontiguousarray(corners[..., axis]) for axis in range(3))
    squared = x * x + y * y
    # Along the direction of its middle, a box begins at one of its corners; nothing of it is nearer to the laser.
    middle_x, middle_y = x.mean(axis=2), y.mean(axis=2)
    length = np.maximum(np.hypot(middle_x, middle_y), _ROUNDING_M)
    cos, sin = (middle_x / length)[..., None], (middle_y / length)[..., None]
    ahead = x * cos + y * sin
    aside = np.arctan2(y * cos - x * sin, np.maximum(ahead, _ROUNDING_M))
    middle_rad = np.arctan2(middle_y, middle_x)
    return {
        "nearest_across": np.maximum(ahead.min(axis=2) - _ROUNDING_M, 0.0),
        "farthest_across": np.sqrt(squared.max(axis=2)) + _ROUNDING_M,
        "farthest": np.sqrt((squared + z * z).max(axis=2)) + _ROUNDING_M,
        "low": z.min(axis=2) - _ROUNDING_M,
        "high": z.max(axis=2) + _ROUNDING_M,
        "right_rad": middle_rad + aside.min(axis=2),
        "left_rad": middle_rad + aside.max(axis=2),
    }


def _scan_windows(scan: LaserScan, view: dict[str, Float]) -> PixelWindows:
    """The windows of one scan."""
    height, width = scan.inclination_rad.size, scan.azimuth_rad.size
    farthest_m = float(view["farthest"].max())
    images = [image for image in scan.returns if image is not None and not _is_sparse(image)]
    if not width or not images:
        nothing = np.zeros((0, height))
        return PixelWindows(rows=[], columns=[], near_m=nothing, far_m=nothing, farthest_m=farthest_m)
    # A row beyond the zenith looks backwards: then rows and columns say nothing simple, and only the distance is used.
    plain = bool((np.abs(scan.inclination_rad) < math.pi / 2 - _ROUNDING_RAD).all())
    around = (view["nearest_across"] <= 0.0) | (not plain)
    block, columns = _columns(scan.azimuth_rad, view["right_rad"], view["left_rad"], around)
    filled = [image.has_entries(columns) for image in images]
    kept = [window for window in range(len(columns)) if any(each[window] for each in filled)]
    which = np.array([block[window] for window in kept], dtype=np.intp)
    near_m, far_m = _distances(scan.inclination_rad, {name: values[which] for name, values in view.items()}, plain)
    seen = near_m <= far_m
    first_row, last_row = seen.argmax(axis=1).tolist(), (height - seen[:, ::-1].argmax(axis=1)).tolist()
    reached = np.flatnonzero(seen.any(axis=1))
    return PixelWindows(
        rows=[slice(first_row[place], last_row[place]) for place in reached.tolist()],
        columns=[columns[kept[place]] for place in reached.tolist()],
        near_m=near_m[reached],
        far_m=far_m[reached],
        farthest_m=farthest_m,
    )


def pixels_in_windows(image: RangeImage, windows: PixelWindows) -> tuple[Index, Index]:
    """Rows and columns (N,) of the pixels of one return that lie in any window, row after row, each once."""
    if isinstance(image, PackedImage) and image.is_sparse:
        return _few_pixels(image, windows.farthest_m)
    wanted = [index for index, filled in enumerate(image.has_entries(windows.columns)) if filled]
    if not wanted:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp)
    top, bottom = min(windows.rows[index].start for index in wanted), max(windows.rows[index].stop for index in wanted)
    ranges: npt.NDArray[Any] = image.rows(0, top, bottom)
    unit = float(image.precision[0])
    found = np.zeros(ranges.shape, dtype=np.bool_)
    # Half a step of the range covers the rounding of the product that makes metres of it.
    largest = min(np.iinfo(ranges.dtype).max, 2**62)  # as a float it must not exceed the type
    near = np.clip(np.ceil(windows.near_m / unit - 0.5), 1, largest).astype(ranges.dtype)[..., None]
    far = np.clip(np.floor(windows.far_m / unit + 0.5), 0, largest).astype(ranges.dtype)[..., None]
    for index in wanted:
        rows, columns = windows.rows[index], windows.columns[index]
        block = slice(rows.start - top, rows.stop - top), columns
        steps = ranges[block]
        held = steps >= near[index, rows]
        held &= steps <= far[index, rows]
        found[block] |= held
    # Over the flat image, and only the few that are found then split: several times as fast as over two axes.
    row, column = _split(np.flatnonzero(found), ranges.shape[1])
    return row + top, column


def _few_pixels(image: PackedImage, far_m: float) -> tuple[Index, Index]:
    """Rows and columns (N,) of all pixels up to a distance; where there are few, to choose among them costs more."""
    _, height, width = image.shape
    number = int(np.searchsorted(image.places, height * width))
    ranges = image.entries[:number]
    return _split(image.places[:number][(ranges > 0) & (ranges <= far_m / image.precision[0] + 0.5)], width)


def _split(place: Index, width: int) -> tuple[Index, Index]:
    """Rows and columns (N,) of places in a flat image; NumPy's divmod takes several times as long."""
    row = place // width
    return row, place - row * width


def _is_sparse(image: RangeImage) -> bool:
    return isinstance(image, PackedImage) and image.is_sparse


def _distances(inclination: Float, view: dict[str, Float], plain: bool) -> tuple[Float, Float]:
    """Nearest and farthest distance (K, H) at which the beams of each row can be in each box; the other way round: nowhere.

    A beam is at distance r where it is r cos(inclination) across and r sin(inclination) up.
    """
    farthest = view["farthest"][:, None]
    if not plain:
        shape = (len(farthest), inclination.size)
        return np.zeros(shape), np.broadcast_to(farthest, shape)
    cos, sin = np.cos(inclination), np.sin(inclination)
    low, high = view["low"][:, None], view["high"][:, None]
    near, far = view["nearest_across"][:, None] / cos, np.minimum(view["farthest_across"][:, None] / cos, farthest)
    # Beams that stay level are in the box's height everywhere or nowhere; the slope is kept away from zero for the others.
    level = np.abs(sin) < _ROUNDING_RAD
    slope = np.where(level, 1.0, sin)
    one, other = low / slope, high / slope
    enters, leaves = np.minimum(one, other), np.maximum(one, other)
    if level.any():
        reach = farthest * _ROUNDING_RAD
        at_height = (low <= reach) & (high >= -reach)
        enters, leaves = np.where(level, np.where(at_height, -math.inf, math.inf), enters), np.where(level, math.inf, leaves)
    near, far = np.maximum(near, enters), np.minimum(far, leaves)
    return near - _ROUNDING_M, far + _ROUNDING_M


def _columns(azimuth: Float, lowest: Float, highest: Float, around: npt.NDArray[np.bool_]) -> tuple[list[int], list[slice]]:
    """Blocks and columns of windows: the azimuths between two bounds (K,), lowest to highest, or all of them.

    Azimuths are evenly spaced over at most a full turn, as in every range image; beyond the last column follows the first.
    """
    width = azimuth.size
    step = float(azimuth[1] - azimuth[0]) if width > 1 else 2 * math.pi
    turn = 2 * math.pi / abs(step)
    one, other = (lowest - azimuth[0]) / step, (highest - azimuth[0]) / step
    first, last = np.minimum(one, other), np.maximum(one, other)
    around = around | (last - first + 2 >= width)
    turns = np.floor(first / turn) * turn
    start, stop = np.floor(first - turns).astype(np.int64), np.ceil(last - turns).astype(np.int64) + 1
    rest = np.ceil(last - turns - turn).astype(np.int64) + 1
    start[around], stop[around], rest[around] = 0, width, 0
    stop = np.minimum(stop, width)
    pieces = [
        (block, slice(*edges))
        for block, (a, b, c) in enumerate(zip(start.tolist(), stop.tolist(), rest.tolist(), strict=True))
        for edges in ((a, b), (0, c))
        if edges[0] < edges[1]
    ]
    return [block for block, _ in pieces], [columns for _, columns in pieces]


def _laser_from_vehicle(scan: LaserScan, blocks: Blocks) -> tuple[Float, Float]:
    """One transform for all pixels, and for each block (K,) how far a pixel's own pose can be from it there, in metres."""
    laser_from_own = np.linalg.inv(scan.vehicle_from_laser)
    if scan.pixel_poses is None:
        return np.asarray(laser_from_own, dtype=np.float64), np.zeros(len(blocks.heading_rad))
    low, high = _pose_span(scan)
    middle, half_span = (low + high) / 2, (high - low) / 2
    world_from_own = np.eye(4)
    world_from_own[:3, :3] = _rotation(middle[:3])
    world_from_own[:3, 3] = middle[3:]
    vehicle_from_own = scan.vehicle_from_world @ world_from_own
    # Rotations differ by no more than the sum of their angles' differences; a point's way is angle times lever arm.
    shift_m, turn_rad = float(np.linalg.norm(half_span[3:])), float(half_span[:3].sum())
    reach_m = np.linalg.norm(blocks.half_size_m, axis=1)
    lever_m = np.linalg.norm(blocks.center_m - vehicle_from_own[:3, 3], axis=1) * _SLACK + reach_m + shift_m
    laser_from_vehicle: Float = np.asarray(laser_from_own @ np.linalg.inv(vehicle_from_own), dtype=np.float64)
    return laser_from_vehicle, shift_m + turn_rad * lever_m


def _pose_span(scan: LaserScan) -> tuple[Float, Float]:
    """Smallest and largest roll, pitch, yaw, x, y, z (6,) of the pixels' poses; angles that wrap around are unrolled."""
    poses = scan.pixel_poses
    assert poses is not None
    only_one = isinstance(poses, QuantisedImage) and poses.has_equal_rows
    steps = poses.values[:6, :1] if only_one else poses.values[:6]
    low, high = steps.min(axis=(1, 2)) * poses.precision[:6], steps.max(axis=(1, 2)) * poses.precision[:6]
    if (high - low)[3:].max() > 5.0 or (high - low)[:3].max() > math.pi:
        # Not what a tenth of a second does to a vehicle: pixels without a return may hold anything, and yaw may wrap.
        filled = np.logical_or.reduce([image.values[0] > 0 for image in scan.returns if image is not None])
        if not filled.any():
            return np.zeros(6), np.zeros(6)
        values = poses.values[:6, filled] * poses.precision[:6, None]
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
