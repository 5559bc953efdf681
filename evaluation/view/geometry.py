"""A scene as lines, boxes and points in three dimensions, step by step: what the window and the recording show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.report.scene_svg import MAP_KINDS
from limtr.prediction import ScenePrediction
from limtr.scene import Scene

Float = npt.NDArray[np.float64]


def map_lines(scene: Scene) -> dict[str, list[Float]]:
    """Polylines (n, 3) of the map by what they are: `lane`, `roadline`, `edge`, `crosswalk`, `driveway`; polygons closed."""
    stops = np.cumsum(scene.feature_length)
    lines: dict[str, list[Float]] = {name: [] for name in MAP_KINDS}
    for kind, start, stop in zip(scene.feature_type, stops - scene.feature_length, stops, strict=True):
        for name, kinds in MAP_KINDS.items():
            if int(kind) in kinds and stop - start > 1:
                points = scene.map_points_m[start:stop].astype(np.float64)
                lines[name].append(np.concatenate([points, points[:1]]) if name in ("driveway", "crosswalk") else points)
    return lines


@dataclass(frozen=True)
class Boxes:
    """The boxes of all tracks that are valid at a step."""

    rows: npt.NDArray[np.int64]
    """(n,) tracks"""
    center_m: Float
    """(n, 3)"""
    size_m: Float
    """(n, 3) length, width, height"""
    heading_rad: Float
    """(n,)"""


def boxes_at(scene: Scene, step: int) -> Boxes:
    """Boxes at a step, in the scene frame."""
    rows = np.flatnonzero(scene.track_valid[:, step])
    states = scene.track_states[rows, step].astype(np.float64)
    return Boxes(rows, states[:, :3], states[:, 3:6], states[:, 6])


def box_edges(boxes: Boxes) -> tuple[Float, npt.NDArray[np.int64]]:
    """Corners (8 n, 3) of boxes, and the pairs of corners (12 n, 2) that an edge joins."""
    unit = np.array([[x, y, z] for z in (-0.5, 0.5) for x, y in ((0.5, 0.5), (0.5, -0.5), (-0.5, -0.5), (-0.5, 0.5))])
    local = unit[None] * boxes.size_m[:, None]
    corners = rotated(local, boxes.heading_rad) + boxes.center_m[:, None]
    ring = [(0, 1), (1, 2), (2, 3), (3, 0)]
    edges = np.array(ring + [(a + 4, b + 4) for a, b in ring] + [(a, a + 4) for a in range(4)])
    pairs = edges[None] + 8 * np.arange(len(boxes.rows))[:, None, None]
    return corners.reshape(-1, 3), pairs.reshape(-1, 2).astype(np.int64)


def rotated(points: Float, heading_rad: Float) -> Float:
    """Points (n, m, 3) turned by headings (n,) about the vertical."""
    cos, sin = np.cos(heading_rad)[:, None], np.sin(heading_rad)[:, None]
    x, y = points[..., 0], points[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y, points[..., 2]], axis=-1)


def lidar_points(scene: Scene, step: int) -> Float:
    """(n, 3) points in the boxes of all tracks to predict at a step, in the scene frame; none without LiDAR or after now."""
    if scene.lidar is None or step > scene.current_step:
        return np.zeros((0, 3))
    parts = [np.zeros((0, 3))]
    for position, row in enumerate(scene.tracks_to_predict.tolist()):
        points, _ = scene.lidar.frame(position, step)
        if len(points) and scene.track_valid[row, step]:
            state = scene.track_states[row, step].astype(np.float64)
            parts.append(rotated(points[None].astype(np.float64), state[None, 6])[0] + state[:3])
    return np.concatenate(parts)


@dataclass(frozen=True)
class ModePath:
    """One predicted path from the current position on, in the scene frame at the height of the box's centre."""

    row: int
    """Of the track."""
    points_m: Float
    """(81, 3)"""
    score: float
    share: float
    """Of the object's best score."""


def mode_paths(scene: Scene, prediction: ScenePrediction) -> list[ModePath]:
    """Every mode of every predicted object."""
    paths = []
    for object_id, modes, scores in zip(prediction.object_id, prediction.xy_m, prediction.scores, strict=True):
        row = int(np.flatnonzero(scene.track_id == object_id)[0])
        now = scene.track_states[row, scene.current_step].astype(np.float64)
        best = max(float(scores.max(initial=0.0)), 1e-12)
        for xy, score in zip(modes - scene.origin_m[:2], scores.tolist(), strict=True):
            points = np.concatenate([now[None, :2], xy])
            paths.append(
                ModePath(row, np.concatenate([points, np.full((len(points), 1), now[2])], axis=1), score, score / best)
            )
    return paths


def true_paths(scene: Scene, prediction: ScenePrediction) -> list[tuple[int, Float]]:
    """Row and true path (n, 3) from now on of every predicted object; those without a future are left out."""
    found = []
    for object_id in prediction.object_id:
        row = int(np.flatnonzero(scene.track_id == object_id)[0])
        future = np.flatnonzero(scene.track_valid[row, scene.current_step :]) + scene.current_step
        if len(future) > 1:
            found.append((row, scene.track_states[row, future, :3].astype(np.float64)))
    return found
