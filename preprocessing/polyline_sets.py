"""Two sets of polylines in unknown order, matched one to one by centre and content: how goldens of map features compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CENTER_RADIUS_M = 0.05
"""Polylines whose centres are further apart are never taken for the same."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PolylineSet:
    """P polylines of one centre agent, none of them empty."""

    points: Array
    """(P, 20, F) zero where masked"""
    mask: npt.NDArray[np.bool_]
    """(P, 20)"""
    center: Array
    """(P, 3)"""

    @classmethod
    def of(cls, points: npt.ArrayLike, mask: npt.ArrayLike, center: npt.ArrayLike) -> PolylineSet:
        """The polylines that have points; what is masked becomes zero."""
        real = np.asarray(mask, dtype=np.bool_)
        kept = real.any(axis=-1)
        values = np.where(real[..., None], np.asarray(points, dtype=np.float64), 0.0)
        return cls(points=values[kept], mask=real[kept], center=np.asarray(center, dtype=np.float64)[kept])

    def __len__(self) -> int:
        return len(self.mask)

    def only(self, rows: npt.NDArray[np.int64]) -> PolylineSet:
        """Some of the polylines."""
        return PolylineSet(points=self.points[rows], mask=self.mask[rows], center=self.center[rows])


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Pairs of equal-looking polylines, and what is left on either side (rows)."""

    point_difference: float
    """Largest difference of any channel in the pairs; 0 without pairs."""
    center_difference: float
    only_first: npt.NDArray[np.int64]
    only_second: npt.NDArray[np.int64]


def match_polylines(first: PolylineSet, second: PolylineSet) -> Matching:
    """Pair polylines with the same mask and nearly the same centre, the most alike ones first (so twins find each other)."""
    offset = np.abs(first.center[:, None] - second.center[None]).max(axis=-1, initial=0.0)
    left, right = np.nonzero(offset <= CENTER_RADIUS_M)
    same_mask = (first.mask[left] == second.mask[right]).all(axis=-1)
    left, right = left[same_mask], right[same_mask]
    difference = np.abs(first.points[left] - second.points[right]).max(axis=(1, 2), initial=0.0)
    free_left, free_right = np.ones(len(first), np.bool_), np.ones(len(second), np.bool_)
    worst_point = worst_center = 0.0
    # NaN sorts last and stays NaN in the result, so that it can never pass for agreement.
    for pair in np.argsort(difference, kind="stable"):
        row, column = left[pair], right[pair]
        if free_left[row] and free_right[column]:
            free_left[row] = free_right[column] = False
            worst_point = float(np.maximum(worst_point, difference[pair]))
            worst_center = float(np.maximum(worst_center, offset[row, column]))
    return Matching(
        point_difference=worst_point,
        center_difference=worst_center,
        only_first=np.flatnonzero(free_left),
        only_second=np.flatnonzero(free_right),
    )


def boundary_ties(
    chosen: PolylineSet, expected: PolylineSet, everything: PolylineSet, focus_m: tuple[float, float], slack_m: float
) -> tuple[int, int]:
    """How the choices of the nearest polylines differ: (excused, wrong) polylines of both sides together.

    A polyline that is on one side only is excused if it is one of the scene's and as far from the focus as the farthest
    chosen one, give or take `slack_m`: rounding decides between those. Sides of different size are never excused.
    """
    matching = match_polylines(chosen, expected)
    extra, missing = chosen.only(matching.only_first), expected.only(matching.only_second)
    total = len(extra) + len(missing)
    if total == 0 or len(extra) != len(missing):
        return 0, total
    edge = _distance(chosen, focus_m).max()
    unknown = len(match_polylines(everything, missing).only_second)
    far_off = sum(int((np.abs(_distance(side, focus_m) - edge) > slack_m).sum()) for side in (extra, missing))
    return (total, 0) if unknown == 0 and far_off == 0 else (0, total)


def _distance(polylines: PolylineSet, focus_m: tuple[float, float]) -> Array:
    distance: Array = np.linalg.norm(polylines.center[:, :2] - np.array(focus_m), axis=-1)
    return distance
