"""Polylines of a scene as padded arrays: the points of the map in pieces of at most 20, with directions and lights."""

from __future__ import annotations

import numpy as np

from limtr.scene import POINTS_PER_POLYLINE, BoolArray, FloatArray, IntArray, Scene

POLYLINE_FIELDS = ("x", "y", "z", "direction_x", "direction_y", "direction_z", "type")
NO_SIGNAL = -1

_SHORTEST_STEP_M = 1e-6


def polyline_tensor(scene: Scene) -> tuple[FloatArray, BoolArray]:
    """The scene's polylines, padded with zeros (MTR's map representation).

    A direction is the unit vector from the previous point of the same map feature (so it crosses the border between two
    pieces of one feature); a feature's first point has none, and no more has a point on top of its predecessor.

    Returns:
        (P, 20, 7) `POLYLINE_FIELDS`: metres in the scene frame, unit vectors, the feature's type id as it is; and the
        (P, 20) mask of real points.
    """
    # Axis after axis in memory, which NumPy walks several times as fast as rows of three.
    points = np.ascontiguousarray(scene.map_points_m.T)
    step = np.zeros_like(points)
    np.subtract(points[:, 1:], points[:, :-1], out=step[:, 1:])
    starts = np.cumsum(scene.feature_length) - scene.feature_length
    step[:, starts[scene.feature_length > 0]] = 0.0
    length = np.sqrt(step[0] * step[0] + step[1] * step[1] + step[2] * step[2])
    step /= np.maximum(length, _SHORTEST_STEP_M)
    rows = np.empty((points.shape[1], len(POLYLINE_FIELDS)), dtype=np.float32)
    for axis in range(3):
        rows[:, axis], rows[:, 3 + axis] = points[axis], step[axis]
    rows[:, 6] = np.repeat(scene.feature_type, scene.feature_length)

    mask = np.arange(POINTS_PER_POLYLINE) < scene.polyline_length[:, None]
    polylines = np.zeros((mask.size, len(POLYLINE_FIELDS)), dtype=np.float32)
    # Pieces follow one another as the points do, so the mask's row-major order is the points' own order.
    polylines[np.flatnonzero(mask)] = rows
    return polylines.reshape(*mask.shape, len(POLYLINE_FIELDS)), mask


def polyline_feature(scene: Scene) -> IntArray:
    """(P,) row of the map feature that most points of each polyline belong to; the earlier one where two have as many.

    A polyline can hold points of several features, because features that touch are cut as one run.
    """
    num_features = scene.feature_length.shape[0]
    feature = np.repeat(np.arange(num_features), scene.feature_length)
    polyline = np.repeat(np.arange(scene.polyline_length.shape[0]), scene.polyline_length)
    points = polyline * num_features + feature
    # Both rise from point to point, so that equal pairs stand together: no need to sort.
    first = np.flatnonzero(np.diff(points, prepend=-1))
    pair, count = points[first], np.diff(first, append=len(points))
    # By polyline, then by falling count; the sort is stable, so the earlier feature stays in front.
    order = np.lexsort((-count, pair // max(num_features, 1)))
    _, first = np.unique(pair[order] // max(num_features, 1), return_index=True)
    owner: IntArray = pair[order][first] % max(num_features, 1)
    return owner


def polyline_signal(scene: Scene, step: int) -> IntArray:
    """(P,) state (0..8) of the traffic light that controls each polyline's lane at time step `step`, -1 where none is seen.

    A polyline's lane is the feature that `polyline_feature` names. A lane observed twice at one step has its last state.
    """
    at_step = scene.signal_step == step
    state_of_lane = dict(zip(scene.signal_lane[at_step].tolist(), scene.signal_state[at_step].tolist(), strict=True))
    of_feature = np.array([state_of_lane.get(lane, NO_SIGNAL) for lane in scene.feature_id.tolist()], dtype=np.int64)
    return of_feature[polyline_feature(scene)]
