"""Where planned paths cross or merge: the zones that only one of two actors may use at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocessing.synthetic.paths import Paths
from preprocessing.synthetic.world import Bool, Float

SAMPLE_M = 2.0
MARGIN_M = 0.9


@dataclass(frozen=True, kw_only=True)
class Zones:
    """For every pair (i, j) of A actors the stretch of i's path that comes too close to j's path."""

    enter_m: Float
    """(A, A) arc length on i's path; infinite where the paths never meet"""
    leave_m: Float
    """(A, A)"""
    merging: Bool
    """(A, A) whether both go the same way where the zone begins or ends"""


def find_zones(paths: Paths, start_m: Float, end_m: Float, width_m: Float) -> Zones:
    """Zones of all pairs.

    Args:
        paths: of A actors.
        start_m: (A,) what lies before this arc length no longer matters.
        end_m: (A,) nor what lies behind this one; at most the path's length.
        width_m: (A,) body widths.
    """
    count = len(paths)
    number = int(np.max((end_m - start_m) / SAMPLE_M, initial=1.0)) + 2
    s = start_m[:, None] + SAMPLE_M * np.arange(number)
    inside = s <= end_m[:, None]
    points = paths.position(np.minimum(s, end_m[:, None])).astype(np.float32)
    heading = paths.heading(np.minimum(s, end_m[:, None]))
    flat = points.reshape(-1, 2)
    square = (flat**2).sum(axis=1)
    distance = (square[:, None] + square[None] - 2 * flat @ flat.T).reshape(count, number, count, number)
    reach = (0.5 * (width_m[:, None] + width_m[None]) + MARGIN_M) ** 2
    close = distance < reach[:, None, :, None]
    close &= inside[:, :, None, None] & inside[None, None]
    near = close.any(axis=3).transpose(0, 2, 1)
    near[np.arange(count), np.arange(count)] = False
    meets = near.any(axis=2)
    first = near.argmax(axis=2)
    # The first run of close samples only: later meetings are rare and left to whoever looks ahead.
    ended = ~near & (np.arange(number) > first[..., None])
    last = np.where(ended.any(axis=2), ended.argmax(axis=2), number) - 1
    enter = np.where(meets, start_m[:, None] + (first - 0.5) * SAMPLE_M, np.inf)
    leave = np.where(meets, start_m[:, None] + (last + 0.5) * SAMPLE_M, np.inf)
    # Lanes that merge end up side by side, lanes that part begin so: there people follow. Lanes that cross do neither.
    rows = np.arange(count)[:, None]
    at_start, at_end = heading[rows, first], heading[rows, np.minimum(last, number - 1)]
    merging = np.maximum(np.cos(at_start - at_start.T), np.cos(at_end - at_end.T)) > 0.85
    return Zones(enter_m=enter, leave_m=leave, merging=merging)
