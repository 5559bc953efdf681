"""Precision over recall, as the average precision of the table integrates it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evaluation.average_precision import Outcome
from evaluation.buckets import Bucket
from evaluation.report.object_table import ObjectTable

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Curve = tuple[Float, Float]
"""Recall where each step of the curve ends (rising, from above 0 to at most 1), and the precision up to there."""


def precision_recall(scores: Float, hit: Bool, num_objects: int) -> Curve:
    """The interpolated curve: at every recall the best precision at it or beyond. Arguments as for `average_precision`."""
    order = np.lexsort((hit, -scores))
    hits = np.cumsum(hit[order])
    precision = hits / np.arange(1, len(order) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.flatnonzero(hit[order])
    recall, height = hits[at] / num_objects, envelope[at]
    last_of_step = np.append(height[1:] != height[:-1], True) if len(height) else np.zeros(0, np.bool_)
    return recall[last_of_step], height[last_of_step]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean precision of several curves at every recall (0 beyond the end of a curve): its area is the mean of their areas.

    Raises:
        ValueError: there is no curve.
    """
    if not curves:
        raise ValueError("there must be at least one curve to take the mean of")
    recall = np.unique(np.concatenate([curve[0] for curve in curves]))
    total = np.zeros(len(recall))
    for ends, height in curves:
        step = np.searchsorted(ends, recall, side="left")
        total += np.where(step < len(ends), np.append(height, 0.0)[np.minimum(step, len(ends))], 0.0)
    return recall, total / len(curves)


def area(curve: Curve) -> float:
    """The area under a curve: its average precision."""
    return float(np.sum(np.diff(curve[0], prepend=0.0) * curve[1]))


def curve_of(table: ObjectTable, horizon: int) -> Curve | None:
    """The mean over the trajectory buckets of a class's curves at a horizon, so that its area is the mAP of the table.

    Args:
        table: the objects of one class.
        horizon: index of the horizon.

    Returns:
        None if no object can be measured there.
    """
    buckets = np.where(table.bucket == Bucket.RIGHT_U_TURN, int(Bucket.RIGHT_TURN), table.bucket)  # as Waymo counts them
    outcome = table.outcomes[:, horizon]
    sampled = outcome != Outcome.UNKNOWN
    curves = []
    for bucket in np.unique(buckets[buckets != Bucket.NONE]):
        inside = sampled & (buckets == bucket)[:, None]
        num_objects = int(inside.any(axis=1).sum())
        if num_objects:
            curves.append(precision_recall(table.scores[inside], outcome[inside] == Outcome.TRUE_POSITIVE, num_objects))
    return mean_curve(curves) if curves else None


def staircase(curve: Curve, most: int = 200) -> Curve:
    """Corners of the curve as a line to draw, from recall 0 to its end and down to precision 0; at most `2 * most` points."""
    ends, height = curve
    if len(ends) > most:
        keep = np.unique(np.linspace(0, len(ends) - 1, most).round().astype(np.int64))
        ends, height = ends[keep], height[keep]
    x = np.repeat(np.append(0.0, ends), 2)[1:]
    y = np.append(np.repeat(height, 2), 0.0)
    return x, y
