"""How well boxes and LiDAR of a scenario fit in time (Waymo admits shifts of many frames in about one scenario of a hundred).

The measure asks of some laser frames which step's boxes catch their points best.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.womd.boxes import TrackBoxes, in_sphere
from preprocessing.womd.pixel_windows import Blocks

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

MAX_SHIFT = 10
NUM_PROBED_FRAMES = 2
"""At each end of the history. Probing all frames would cost as much as the crops themselves."""
ROAD_SHARE = 0.25
"""Lowest part of a box that is not counted: there any box catches points of the road, most of them beside the sensor."""
MIN_GAIN = 0.05
"""Share of the points that another shift must catch on top of those at shift 0: parked tracks catch some more by chance."""
_STEPS_PER_BLOCK = 7


def probed_frames(num_frames: int) -> frozenset[int]:
    """The probed laser frames: the first and the last ones.

    The first frames find boxes at nearly every later shift and the last ones at nearly every earlier shift, so that a shift
    is not judged on fewer frames for being large.
    """
    ends = [*range(NUM_PROBED_FRAMES), *range(num_frames - NUM_PROBED_FRAMES, num_frames)]
    return frozenset(frame for frame in ends if 0 <= frame < num_frames)


class ShiftProbe:
    """Counts the points that boxes of shifted steps catch in probed frames, and names the best shift."""

    def __init__(self, boxes: TrackBoxes) -> None:
        """`boxes`: grown, in the world frame, with as many steps after the last laser frame as there are up to `MAX_SHIFT`."""
        self._boxes = boxes
        self._gain = np.zeros(2 * MAX_SHIFT + 1, dtype=np.int64)
        self._possible = np.zeros_like(self._gain)

    def blocks(self, frame: int, target_from_world: Float) -> Blocks:
        """Boxes in a target frame that together hold every point of a frame that may be counted."""
        boxes = self._boxes.moved(target_from_world)
        start, stop = max(frame - MAX_SHIFT, 0), min(frame + MAX_SHIFT + 1, boxes.num_steps)
        missing = -(stop - start) % _STEPS_PER_BLOCK

        def grouped(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            """(K, T, ...) to (K, groups, steps of a group, ...)."""
            parts = values[:, start:stop]
            padded = np.concatenate([parts, np.zeros((len(parts), missing, *parts.shape[2:]), dtype=parts.dtype)], axis=1)
            return padded.reshape(len(parts), -1, _STEPS_PER_BLOCK, *parts.shape[2:])

        valid = grouped(boxes.valid & boxes.valid[:, frame, None])
        center, half, heading = grouped(boxes.center_m), grouped(boxes.half_size_m), grouped(boxes.heading_rad)
        # In the direction of the first box of each group: how far the others reach along it, to its left and up.
        direction = np.take_along_axis(heading, valid.argmax(axis=2)[..., None], axis=2)
        cos, sin = np.cos(direction), np.sin(direction)
        turned = np.stack(
            [cos * center[..., 0] + sin * center[..., 1], cos * center[..., 1] - sin * center[..., 0], center[..., 2]], axis=-1
        )
        along, across = np.abs(np.cos(heading - direction)), np.abs(np.sin(heading - direction))
        reach = np.stack(
            [along * half[..., 0] + across * half[..., 1], across * half[..., 0] + along * half[..., 1], half[..., 2]], axis=-1
        )
        below = reach * [1.0, 1.0, 1.0 - 2.0 * ROAD_SHARE]
        low = np.where(valid[..., None], turned - below, math.inf).min(axis=2)
        high = np.where(valid[..., None], turned + reach, -math.inf).max(axis=2)
        kept = valid.any(axis=2)
        middle, half_size = (low[kept] + high[kept]) / 2, (high[kept] - low[kept]) / 2
        cos, sin = cos[kept][:, 0], sin[kept][:, 0]
        middle[:, 0], middle[:, 1] = cos * middle[:, 0] - sin * middle[:, 1], sin * middle[:, 0] + cos * middle[:, 1]
        return Blocks(center_m=middle, half_size_m=half_size, heading_rad=direction[kept][:, 0])

    def add_frame(self, frame: int, points_m: Float, target_from_world: Float) -> None:
        """Count the points (N, 3) of a frame, at least all those in `blocks(frame, ...)`, given in a target frame."""
        boxes, radius_m = self._boxes.moved(target_from_world), self._boxes.radius_m()
        for track, steps in self._compared(frame):
            center = boxes.center_m[track, steps]
            middle = (center.min(axis=0) + center.max(axis=0)) / 2
            reach = (np.linalg.norm(center - middle, axis=1) + radius_m[track, steps]).max()
            half_height = boxes.half_size_m[track, steps, 2]
            lowest = center[:, 2] + (2.0 * ROAD_SHARE - 1.0) * half_height
            highest = center[:, 2] + half_height
            # By height first: that leaves the road out, which most points are of.
            at_height = points_m[np.flatnonzero((points_m[:, 2] >= lowest.min()) & (points_m[:, 2] <= highest.max()))]
            near = at_height[in_sphere(at_height, middle, float(reach))]
            box_points = boxes.to_box_frame(near, track, steps)
            caught = (boxes.inside(box_points, track, steps) & (near[:, 2] >= lowest[:, None])).sum(axis=1)
            shifts = steps - frame + MAX_SHIFT
            self._gain[shifts] += caught - caught[steps == frame]
            self._possible[shifts] += caught.max()

    def best_shift(self) -> int:
        """The shift s for which the boxes of step t + s catch most of frame t's points; 0 if none is clearly better than 0.

        A track that is not seen at step t or t + s says nothing about s. So what the boxes of step t + s catch is compared
        with what those of step t catch for the same tracks and frames, as a share of what their best shifts catch:
        otherwise the end of a record, which leaves fewer steps for large shifts, would speak for small ones.
        Of equal shifts the smallest |s| is named.
        """
        gain = self._gain / np.maximum(self._possible, 1)
        if gain.max() < MIN_GAIN:
            return 0
        shifts = np.arange(-MAX_SHIFT, MAX_SHIFT + 1)[gain == gain.max()]
        return int(shifts[np.argmin(np.abs(shifts))])

    def _compared(self, frame: int) -> list[tuple[int, npt.NDArray[np.intp]]]:
        """For each track seen at the frame's own step: the steps within `MAX_SHIFT` at which it is seen."""
        start = max(frame - MAX_SHIFT, 0)
        window = self._boxes.valid[:, start : frame + MAX_SHIFT + 1]
        tracks = np.flatnonzero(self._boxes.valid[:, frame]).tolist()
        return [(track, np.flatnonzero(window[track]) + start) for track in tracks]
