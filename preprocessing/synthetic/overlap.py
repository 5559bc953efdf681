"""Which bodies overlap: oriented boxes on the ground."""

from __future__ import annotations

import numpy as np

from preprocessing.synthetic.world import Bool, Float, Int


def overlaps(center_m: Float, heading_rad: Float, size_m: Float, there: Bool) -> tuple[Int, Int, Int]:
    """All overlapping pairs, step by step (separating axes of rectangles).

    Args:
        center_m: (A, T, 2).
        heading_rad: (A, T).
        size_m: (A, 2) length and width.
        there: (A, T) what does not count is nowhere.

    Returns:
        (n,) first actor, second actor (larger row) and step of every overlap.
    """
    radius = 0.5 * np.hypot(size_m[:, 0], size_m[:, 1])
    one, two = np.triu_indices(len(center_m), 1)
    low = np.where(there[..., None], center_m, np.inf).min(axis=1) - radius[:, None]
    high = np.where(there[..., None], center_m, -np.inf).max(axis=1) + radius[:, None]
    meet = ((low[one] < high[two]) & (low[two] < high[one])).all(axis=1)
    one, two = one[meet], two[meet]
    gap = center_m[two] - center_m[one]
    near = (np.hypot(gap[..., 0], gap[..., 1]) < (radius[one] + radius[two])[:, None]) & there[one] & there[two]
    pair, step = np.nonzero(near)
    one, two, gap = one[pair], two[pair], gap[pair, step]
    apart = np.zeros(len(pair), dtype=bool)
    relative = heading_rad[two, step] - heading_rad[one, step]
    cosine, sine = np.abs(np.cos(relative)), np.abs(np.sin(relative))
    for mine, other in ((one, two), (two, one)):
        heading = heading_rad[mine, step]
        along = np.abs(gap[:, 0] * np.cos(heading) + gap[:, 1] * np.sin(heading))
        across = np.abs(gap[:, 1] * np.cos(heading) - gap[:, 0] * np.sin(heading))
        length, width = 0.5 * size_m[other, 0], 0.5 * size_m[other, 1]
        apart |= along > 0.5 * size_m[mine, 0] + length * cosine + width * sine
        apart |= across > 0.5 * size_m[mine, 1] + length * sine + width * cosine
    return one[~apart].astype(np.int64), two[~apart].astype(np.int64), step[~apart].astype(np.int64)


def without_overlaps(center_m: Float, heading_rad: Float, size_m: Float, there: Bool, keep_first: Int) -> Bool:
    """Leave out actors that overlap others, worst first.

    A last resort: right of way prevents nearly all overlaps before they happen.

    Args:
        center_m: (A, T, 2).
        heading_rad: (A, T).
        size_m: (A, 2) length and width.
        there: (A, T).
        keep_first: (A,) the larger, the longer an actor is spared.

    Returns:
        (A,) whether an actor stays; those that do overlap nobody.
    """
    kept = np.ones(len(center_m), dtype=bool)
    one, two, _ = overlaps(center_m, heading_rad, size_m, there)
    while len(one):
        count = np.bincount(np.concatenate([one, two]), minlength=len(kept)).astype(float)
        count[count > 0] -= 1e4 * keep_first[count > 0]
        count[np.bincount(np.concatenate([one, two]), minlength=len(kept)) == 0] = -np.inf
        worst = int(np.argmax(count))
        kept[worst] = False
        still = (one != worst) & (two != worst)
        one, two = one[still], two[still]
    return kept
