"""MTR's rule that cuts the points of a map into polylines of at most 20 points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from limtr.scene import POINTS_PER_POLYLINE, IntArray

BREAK_DISTANCE_M = 1.0


def cut_polylines(
    points_m: npt.NDArray[np.float64],
    *,
    break_distance_m: float = BREAK_DISTANCE_M,
    points_per_polyline: int = POINTS_PER_POLYLINE,
) -> IntArray:
    """Lengths of the polylines that the concatenated map points fall into, in order.

    A run ends where two consecutive points are more than `break_distance_m` apart in x and y, whether they are of one map
    feature or of two: features that (nearly) touch become one run. Runs are chopped into pieces of `points_per_polyline`,
    so that only the last piece of a run is shorter.

    Distances are taken in float32 of the world coordinates, as MTR takes them: its rounding (up to 1 mm at 8 km from the
    world's zero) decides on which side a gap of one metre falls.

    Args:
        points_m: (M, 2 or more) world positions, map feature after map feature.
        break_distance_m: the largest gap inside a run, metres.
        points_per_polyline: the largest number of points of a piece.

    Returns:
        (P,) number of points of each polyline, each 1..`points_per_polyline`, with a sum of M.
    """
    num_points = points_m.shape[0]
    if num_points == 0:
        return np.zeros(0, dtype=np.int64)
    ground = points_m[:, :2].astype(np.float32)
    gap = np.linalg.norm(ground[1:] - ground[:-1], axis=-1)
    run_starts = np.concatenate(([0], np.flatnonzero(gap > break_distance_m) + 1))
    run_lengths = np.diff(run_starts, append=num_points)
    # A point starts a piece if its place within its run is a multiple of the piece's length.
    place = np.arange(num_points) - np.repeat(run_starts, run_lengths)
    piece_starts = np.flatnonzero(place % points_per_polyline == 0)
    return np.diff(piece_starts, append=num_points).astype(np.int64)
