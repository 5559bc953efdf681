"""How well boxes and LiDAR of a scenario fit in time (Waymo admits shifts of many frames in about one scenario of a hundred).

The measure asks of some laser frames which step's boxes catch their points best.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preprocessing.womd.boxes import TrackBoxes, in_sphere

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

MAX_SHIFT = 10
NUM_PROBED_FRAMES = 2
"""At each end of the history. Probing all frames would cost as much as the crops themselves."""
ROAD_SHARE = 0.25
"""Lowest part of a box that is not counted: there any box catches points of the road, most of them beside the sensor."""
MIN_GAIN = 0.05
"""Share of the points that another shift must catch on top of those at shift 0: parked tracks catch some more by chance."""
_STEPS_PER_SPHERE = 3


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

    def spheres(self, frame: int) -> tuple[Float, Float]:
        """Centres (n, 3) in the world frame and radii (n,) of spheres that hold every box that may be compared with a frame."""
        radius = self._boxes.radius_m()
        centers: list[Float] = [np.zeros((0, 3))]
        radii: list[float] = []
        for track, steps in self._compared(frame):
            for start in range(0, steps.size, _STEPS_PER_SPHERE):
                some = steps[start : start + _STEPS_PER_SPHERE]
                points = self._boxes.center_m[track, some]
                middle = (points.min(axis=0) + points.max(axis=0)) / 2
                centers.append(middle[None])
                radii.append(float((np.linalg.norm(points - middle, axis=1) + radius[track, some]).max()))
        return np.concatenate(centers), np.array(radii)

    def add_frame(self, frame: int, points_m: Float, target_from_world: Float) -> None:
        """Count the points (N, 3) of a frame, at least all those in `spheres(frame)`, given in a target frame."""
        boxes = self._boxes.moved(target_from_world)
        for track, steps in self._compared(frame):
            center = boxes.center_m[track, steps]
            middle = (center.min(axis=0) + center.max(axis=0)) / 2
            reach = (np.linalg.norm(center - middle, axis=1) + boxes.radius_m()[track, steps]).max()
            half_height = boxes.half_size_m[track, steps, 2]
            lowest = center[:, 2] + (2.0 * ROAD_SHARE - 1.0) * half_height
            highest = center[:, 2] + half_height
            near = points_m[in_sphere(points_m, middle, float(reach))]
            near = near[(near[:, 2] >= lowest.min()) & (near[:, 2] <= highest.max())]
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
