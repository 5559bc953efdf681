"""Whether predicted boxes overlap the true boxes of other objects."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]

TOUCHING_M = 1e-9
"""Penetrations up to this count as touching: it is far above rounding and far below anything that matters."""


def headings_of_path_rad(xy_m: Float) -> Float:
    """Heading at each point of a path: of the next segment at the start, of the last at the end, their circular mean between.

    Args:
        xy_m: (..., H, 2) with H at least 2.

    Returns:
        (..., H) radians.
    """
    segment = np.diff(xy_m, axis=-2)
    angle = np.arctan2(segment[..., 1], segment[..., 0])
    before, after = angle[..., :-1], angle[..., 1:]
    middle = np.arctan2(np.sin(before) + np.sin(after), np.cos(before) + np.cos(after))
    return np.concatenate([angle[..., :1], middle, angle[..., -1:]], axis=-1)


def boxes_overlap(first: Float, second: Float) -> Bool:
    """Whether two oriented boxes share area; touching and boxes without area do not count.

    Separating axes: convex shapes are apart exactly if the direction of some side separates them.

    Args:
        first: (..., 5) x, y, length, width (m), heading (rad).
        second: (..., 5), broadcast against `first`.

    Returns:
        (...)
    """
    first, second = np.broadcast_arrays(first, second)
    between = second[..., :2] - first[..., :2]
    overlap = (first[..., 2:4] > 0).all(axis=-1) & (second[..., 2:4] > 0).all(axis=-1)
    turn = second[..., 4] - first[..., 4]
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    for own, other in ((first, second), (second, first)):
        forward = np.stack([np.cos(own[..., 4]), np.sin(own[..., 4])], axis=-1)
        left = np.stack([-forward[..., 1], forward[..., 0]], axis=-1)
        length, width = 0.5 * other[..., 2], 0.5 * other[..., 3]
        for axis, half, reach in (
            (forward, 0.5 * own[..., 2], cos * length + sin * width),
            (left, 0.5 * own[..., 3], sin * length + cos * width),
        ):
            gap = np.abs((between * axis).sum(axis=-1)) - half - reach
            overlap = overlap & (gap < -TOUCHING_M)
    return np.asarray(overlap)


def overlaps_others(
    boxes: Float, other_boxes: Float, other_valid: Bool, own_row: Index, first_other: Index, num_others: Index
) -> Bool:
    """Whether each predicted box overlaps the true box of another object of its scene at the same step.

    Args:
        boxes: (B, H, 5) predicted boxes as for `boxes_overlap`.
        other_boxes: (A, H, 5) true boxes, scene after scene.
        other_valid: (A, H) which of them are real.
        own_row: (B,) the row of `other_boxes` that is the predicted object itself.
        first_other: (B,) where the rows of the box's scene begin.
        num_others: (B,) how many they are.

    Returns:
        (B, H)
    """
    box = np.repeat(np.arange(len(boxes)), num_others)
    other = np.arange(len(box)) + np.repeat(first_other - np.cumsum(num_others) + num_others, num_others)
    # Paths whose bounds are apart cannot meet at any step: most pairs end here.
    low, high = _bounds(boxes, np.ones(boxes.shape[:2], dtype=np.bool_))
    other_low, other_high = _bounds(other_boxes, other_valid)
    near = own_row[box] != other
    for axis in (0, 1):
        near &= (low[box, axis] <= other_high[other, axis]) & (other_low[other, axis] <= high[box, axis])
    box, other = box[near], other[near]

    between = boxes[box, :, :2] - other_boxes[other, :, :2]
    reach = 0.5 * (_diagonal(boxes)[box] + _diagonal(other_boxes)[other])
    pair, step = np.nonzero((np.square(between).sum(axis=-1) <= np.square(reach)) & other_valid[other])
    box, other = box[pair], other[pair]
    result = np.zeros(boxes.shape[:2], dtype=np.bool_)
    hit = boxes_overlap(boxes[box, step], other_boxes[other, step])
    result[box[hit], step[hit]] = True
    return result


def _diagonal(boxes: Float) -> Float:
    return np.hypot(boxes[..., 2], boxes[..., 3])


def _bounds(boxes: Float, valid: Bool) -> tuple[Float, Float]:
    """Lower and upper x, y (n, 2) of all valid steps, however the boxes are turned; of none, bounds that meet nothing."""
    reach = 0.5 * _diagonal(boxes).max(axis=1)
    low, high = np.empty((2, len(boxes), 2))
    for axis in (0, 1):  # one after the other: reductions over rows that lie together are several times as fast
        low[:, axis] = np.where(valid, boxes[..., axis], np.inf).min(axis=1) - reach
        high[:, axis] = np.where(valid, boxes[..., axis], -np.inf).max(axis=1) + reach
    return low, high
