"""Boxes of tracks over time: read from a record, brought into the vehicle frame, asked which points they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.womd.lidar import LidarError

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TrackBoxes:
    """Oriented boxes of K tracks over T steps in the world frame; yaw is the only rotation."""

    center_m: Float
    """(K, T, 3)"""
    half_size_m: Float
    """(K, T, 3) half of length, width, height."""
    heading_rad: Float
    """(K, T)"""
    valid: npt.NDArray[np.bool_]
    """(K, T); what is invalid holds no points, whatever its numbers say."""

    @property
    def num_tracks(self) -> int:
        """K."""
        return int(self.valid.shape[0])

    @property
    def num_steps(self) -> int:
        """T."""
        return int(self.valid.shape[1])

    def grown(self, margin_m: float) -> TrackBoxes:
        """The boxes with every face moved outwards by `margin_m`."""
        return TrackBoxes(
            center_m=self.center_m, half_size_m=self.half_size_m + margin_m, heading_rad=self.heading_rad, valid=self.valid
        )

    def moved(self, target_from_world: Float) -> TrackBoxes:
        """The boxes in another frame; of the rotation (of a 4 x 4 transform) only the yaw turns the boxes, as in LiMTR."""
        rotation, translation = target_from_world[:3, :3], target_from_world[:3, 3]
        yaw = np.arctan2(rotation[1, 0], rotation[0, 0])
        return TrackBoxes(
            center_m=self.center_m @ rotation.T + translation,
            half_size_m=self.half_size_m,
            heading_rad=self.heading_rad + yaw,
            valid=self.valid,
        )

    def radius_m(self) -> Float:
        """(K, T) of the spheres around the boxes' centres that hold them."""
        radius: Float = np.linalg.norm(self.half_size_m, axis=-1)
        return radius

    def to_box_frame(self, points_m: Float, track: int, steps: npt.NDArray[np.intp]) -> Float:
        """Points (N, 3) in the box frames (zero at the centre) of a track's steps: (3, S, N) forward, left, up."""
        center, heading = self.center_m[track, steps], self.heading_rad[track, steps, None]
        cos, sin = np.cos(heading), np.sin(heading)
        x, y = (points_m[:, axis] - center[:, axis, None] for axis in range(2))
        # Into memory that is there already, axis by axis: new arrays cost more than the arithmetic.
        box_points = np.empty((3, *x.shape))
        forward, left, up = box_points
        turned = np.multiply(sin, y)
        np.multiply(cos, x, out=forward)
        forward += turned
        np.multiply(sin, x, out=turned)
        np.multiply(cos, y, out=left)
        left -= turned
        np.subtract(points_m[:, 2], center[:, 2, None], out=up)
        return box_points

    def inside(self, box_points_m: Float, track: int, steps: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Which points (3, S, N), given in the box frames of the steps, lie in the boxes: (S, N)."""
        half = self.half_size_m[track, steps].T[:, :, None]
        distance = np.abs(box_points_m[0])
        held: npt.NDArray[np.bool_] = distance <= half[0]
        for axis in (1, 2):
            held &= np.abs(box_points_m[axis], out=distance) <= half[axis]
        return held


def in_sphere(points_m: Float, center_m: Float, radius_m: float) -> npt.NDArray[np.intp]:
    """Indices of the points (N, 3) in a sphere, and of some within rounding of it."""
    squared = np.square(points_m[:, 0] - center_m[0])
    for axis in (1, 2):
        offset = points_m[:, axis] - center_m[axis]
        squared += np.square(offset, out=offset)
    return np.flatnonzero(squared <= (radius_m + 1e-6) ** 2)


def read_boxes(scenario: Any, rows: Sequence[int], num_steps: int) -> TrackBoxes:
    """The boxes of these tracks of a Scenario message over its first steps.

    Args:
        scenario: a `schema.Scenario`.
        rows: rows of `scenario.tracks`.
        num_steps: T; steps that a track does not have are invalid.

    Raises:
        LidarError: a row that the record does not have, or a valid state that is not finite.
    """
    numbers = np.zeros((len(rows), num_steps, 7))
    valid = np.zeros((len(rows), num_steps), dtype=np.bool_)
    for position, row in enumerate(rows):
        if not 0 <= row < len(scenario.tracks):
            raise LidarError(
                f"scenario {scenario.scenario_id!r}: tracks_to_predict[{position}].track_index is {row}, "
                f"the record has {len(scenario.tracks)} tracks"
            )
        for step, state in enumerate(scenario.tracks[row].states[:num_steps]):
            if state.valid:
                valid[position, step] = True
                numbers[position, step] = (state.center_x, state.center_y, state.center_z,
                                           state.length, state.width, state.height, state.heading)  # fmt: skip
    broken = np.argwhere(~np.isfinite(numbers).all(axis=-1))
    if broken.size:
        position, step = broken[0].tolist()
        raise LidarError(
            f"scenario {scenario.scenario_id!r}: tracks[{rows[position]}].states[{step}] is valid but not finite "
            f"(centre, size, heading: {numbers[position, step].tolist()})"
        )
    return TrackBoxes(
        center_m=numbers[..., :3], half_size_m=numbers[..., 3:6] / 2.0, heading_rad=numbers[..., 6], valid=valid
    )  # fmt: skip
