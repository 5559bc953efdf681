"""Polylines with as few points as a picture needs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]
"""Left, top, width, height."""


def simplify(points: Float, tolerance: float) -> Float:
    """Drop points (n, 2) so that none of them lies farther than `tolerance` from the line that is left (Douglas-Peucker)."""
    keep = np.zeros(len(points), np.bool_)
    if len(points):
        keep[[0, -1]] = True
    waiting = [(0, len(points) - 1)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        between = points[first + 1 : last]
        chord = points[last] - points[first]
        length_squared = float(chord @ chord)
        offset = between - points[first]
        along = np.clip(offset @ chord / length_squared, 0.0, 1.0) if length_squared else np.zeros(len(between))
        distance = np.hypot(*(offset - along[:, None] * chord).T)
        farthest = int(np.argmax(distance))
        if distance[farthest] > tolerance:
            middle = first + 1 + farthest
            keep[middle] = True
            waiting += [(first, middle), (middle, last)]
    return points[keep]


def clip_runs(points: Float, box: Box, *, whole: bool = False) -> list[Float]:
    """The parts of a polyline (n, 2) near a box: runs of points inside, each with the neighbour outside that it comes from.

    Args:
        points: of the polyline.
        box: what is shown; the picture cuts off the rest.
        whole: all points, if any lies inside, as a polygon needs.
    """
    left, top, width, height = box
    inside = ((points >= (left, top)) & (points <= (left + width, top + height))).all(axis=1)
    if not inside.any():
        return []
    if whole:
        return [points]
    padded = np.concatenate([[False], inside, [False]])
    near = padded[:-2] | padded[1:-1] | padded[2:]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], near, [False]]).astype(np.int8)))
    return [points[start:stop] for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]
