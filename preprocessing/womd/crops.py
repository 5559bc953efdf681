"""LiDAR crops: the points in the grown box of every track to predict, frame by frame, in the box frame of that step."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from limtr.scene import LIDAR_FEATURES, NUM_HISTORY_STEPS, LidarCrops
from preprocessing.womd.boxes import TrackBoxes, in_sphere, read_boxes
from preprocessing.womd.lidar import LaserScan, LidarError, check_num_frames, open_frame, vehicle_from_world
from preprocessing.womd.misalignment import MAX_SHIFT, ShiftProbe, probed_frames
from preprocessing.womd.pixel_windows import Blocks, block_windows, joined, pixels_in_windows

Float = npt.NDArray[np.float64]
UInt = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """What is kept of the points of a predicted track."""

    max_points: int = 2048
    """Most points kept per track and frame; the rest is left out by a sampling that favours none."""
    margin_m: float = 0.15
    """How far the box is grown on every side."""
    seed: int = 0
    """Seed of the sampling."""

    def __post_init__(self) -> None:
        if self.max_points < 1:
            raise ValueError(f"max_points must be at least 1, is {self.max_points}")
        if not (math.isfinite(self.margin_m) and self.margin_m >= 0):
            raise ValueError(f"margin_m must be a length of at least 0, is {self.margin_m}")


@dataclass(frozen=True, kw_only=True)
class _FramePoints:
    """Points of one frame that may lie in a box."""

    xyz: Float
    """(N, 3) in the vehicle frame."""
    features: Float
    """(N, 3) `LIDAR_FEATURES`"""
    pixel: UInt
    """(N,) number that names laser, return, row and column."""


def crop_lidar(scenario: Any, config: CropConfig) -> LidarCrops:
    """The LiDAR crops of a Scenario message with laser frames.

    Laser frame i belongs to step i; steps beyond the frames that are present have no points. Which points are kept where
    there are too many, and in which order, depends on seed, scenario id, track id, step and pixel alone, and any first n
    of the stored points are an unbiased sample of those in the box.

    Args:
        scenario: a `schema.Scenario`, its laser frames merged.
        config: margin, cap and seed.

    Raises:
        LidarError: more frames than steps, a broken frame, box or track; the message says which.
    """
    frames = list(scenario.compressed_frame_laser_data)
    check_num_frames(scenario, len(frames))
    if len(frames) > NUM_HISTORY_STEPS:
        raise LidarError(f"scenario {scenario.scenario_id!r}: {len(frames)} laser frames, expected at most {NUM_HISTORY_STEPS}")
    rows = [target.track_index for target in scenario.tracks_to_predict]
    boxes = read_boxes(scenario, rows, NUM_HISTORY_STEPS + MAX_SHIFT).grown(config.margin_m)
    probe = ShiftProbe(boxes)
    probed = probed_frames(len(frames))
    count = np.zeros((len(rows), NUM_HISTORY_STEPS), dtype=np.int64)
    count_in_box = np.zeros_like(count)
    kept: dict[tuple[int, int], tuple[Float, Float]] = {}
    for step, frame in enumerate(frames):
        seen = np.flatnonzero(boxes.valid[:, step])
        if not seen.size or not frame.lasers:
            continue
        try:
            from_world = vehicle_from_world(frame)
            moved = boxes.moved(from_world)
            blocks = [_own_blocks(moved, seen, step)]
            if step in probed:
                blocks.append(probe.blocks(step, from_world))
            points = _candidates(open_frame(frame), joined(blocks))
        except LidarError as error:
            raise LidarError(f"scenario {scenario.scenario_id!r}: compressed_frame_laser_data[{step}]: {error}") from error
        if step in probed:
            probe.add_frame(step, points.xyz, from_world)
        for track in seen.tolist():
            key = f"{config.seed}/{scenario.scenario_id}/{scenario.tracks[rows[track]].id}/{step}"
            crop, count_in_box[track, step] = _crop(points, moved, track, step, key, config.max_points)
            count[track, step] = crop[0].shape[0]
            kept[track, step] = crop
    valid = boxes.valid[:, :NUM_HISTORY_STEPS]
    ordered = [kept[place] for place in sorted(kept)]
    return LidarCrops(
        points_m=_stacked([xyz for xyz, _ in ordered]),
        features=_stacked([features for _, features in ordered]),
        count=count,
        count_in_box=count_in_box,
        empty_share=float((count_in_box[valid] == 0).mean()) if valid.any() else math.nan,
        best_shift=probe.best_shift(),
    )


def _own_blocks(boxes: TrackBoxes, seen: npt.NDArray[np.intp], step: int) -> Blocks:
    """The boxes of some tracks at one step, given in the vehicle frame of that step."""
    return Blocks(
        center_m=boxes.center_m[seen, step],
        half_size_m=boxes.half_size_m[seen, step],
        heading_rad=boxes.heading_rad[seen, step],
    )


def _candidates(scans: list[LaserScan], blocks: Blocks) -> _FramePoints:
    """All points of a frame in some boxes, and some more around them."""
    xyz, features, pixel = [np.zeros((3, 0))], [np.zeros((len(LIDAR_FEATURES), 0))], [np.zeros(0, dtype=np.uint64)]
    for scan, windows in zip(scans, block_windows(scans, blocks), strict=True):
        for index, image in enumerate(scan.returns):
            if image is None:
                continue
            rows, columns = pixels_in_windows(image, windows)
            if not rows.size:
                continue
            picked = image.pixels(rows, columns, len(LIDAR_FEATURES))
            features.append(picked.T)
            xyz.append(scan.points(rows, columns, picked[:, 0]).T)
            place = (rows.astype(np.uint64) << np.uint64(16)) | columns.astype(np.uint64)
            pixel.append(place | np.uint64((2 * scan.name + index) << 32))
    # Axis after axis in memory: what follows asks all points for one coordinate at a time.
    return _FramePoints(
        xyz=np.concatenate(xyz, axis=1).T, features=np.concatenate(features, axis=1).T, pixel=np.concatenate(pixel)
    )


def _crop(
    points: _FramePoints, boxes: TrackBoxes, track: int, step: int, key: str, max_points: int
) -> tuple[tuple[Float, Float], int]:
    """Points in the box frame and features of what is kept of one box, and how many points the box holds."""
    steps = np.array([step])
    near = in_sphere(points.xyz, boxes.center_m[track, step], float(boxes.radius_m()[track, step]))
    box_xyz = boxes.to_box_frame(points.xyz[near], track, steps)
    held = np.flatnonzero(boxes.inside(box_xyz, track, steps)[0])
    # No two pixels have the same priority, so that the order does not depend on how it is sorted.
    order = held[np.argsort(_priority(points.pixel[near[held]], key))[:max_points]]
    return (box_xyz[:, 0, order].T, points.features[near[order]]), int(held.size)


def _priority(pixel: UInt, key: str) -> UInt:
    """A random number for each pixel that depends on the key and the pixel alone, with any version of NumPy (SplitMix64)."""
    start = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
    mixed = (pixel + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _stacked(parts: list[Float]) -> npt.NDArray[np.float32]:
    """(N, 3) float32 of all parts."""
    return np.concatenate([np.zeros((0, 3)), *parts], dtype=np.float32, casting="same_kind")
