"""The scene at the current step in an Open3D window that can be turned and walked through."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.palette import GREEN, OTHER_COLOR, TRUTH_COLOR
from evaluation.plots import track_color
from evaluation.view.geometry import box_edges, boxes_at, lidar_points, map_lines, mode_paths, true_paths
from limtr.prediction import ScenePrediction
from limtr.scene import Scene
from preprocessing.open3d_loader import load_open3d

POINT_SIZE = 2.0
MAP_COLORS = {"lane": "#c3cad2", "roadline": "#aab2bb", "edge": "#59616b", "crosswalk": "#c8b070", "driveway": "#d8d4c8"}


def require_display() -> None:
    """A window needs a screen.

    Raises:
        ValueError: there is none; the message says what else there is.
    """
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError(
            "--format window needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set: run it on a desktop or over "
            "`ssh -X`, or take --format picture, gif or rerun"
        )


def geometries(scene: Scene, prediction: ScenePrediction) -> list[Any]:
    """Open3D objects of the scene: map, boxes, LiDAR points, true paths and modes."""
    o3d = load_open3d()
    shown = [_lines(o3d, lines, MAP_COLORS[name]) for name, lines in map_lines(scene).items() if lines]
    boxes = boxes_at(scene, scene.current_step)
    if len(boxes.rows):
        corners, pairs = box_edges(boxes)
        targets = {int(np.flatnonzero(scene.track_id == name)[0]) for name in prediction.object_id}
        colors = [_rgb(track_color(scene, row) if row in targets else OTHER_COLOR) for row in boxes.rows.tolist()]
        edges = o3d.geometry.LineSet(o3d.utility.Vector3dVector(corners), o3d.utility.Vector2iVector(pairs))
        edges.colors = o3d.utility.Vector3dVector(np.repeat(np.array(colors), 12, axis=0))
        shown.append(edges)
    points = lidar_points(scene, scene.current_step)
    if len(points):
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
        cloud.paint_uniform_color(_rgb(GREEN))
        shown.append(cloud)
    shown += [_lines(o3d, [path], TRUTH_COLOR) for _, path in true_paths(scene, prediction)]
    shown += [
        _lines(o3d, [mode.points_m], track_color(scene, mode.row), 1 - mode.share) for mode in mode_paths(scene, prediction)
    ]
    return shown


def show(scene: Scene, prediction: ScenePrediction) -> None:
    """Open the window and wait until it is closed.

    Raises:
        ValueError: there is no display, or Open3D cannot open a window on it.
    """
    require_display()
    o3d = load_open3d()
    window = o3d.visualization.Visualizer()
    if not window.create_window(window_name=f"LiMTR: {scene.scenario_id}", width=1280, height=800):
        raise ValueError(
            "Open3D could not open a window on this display (OpenGL 3.3 is needed); take --format picture or rerun"
        )
    for item in geometries(scene, prediction):
        window.add_geometry(item)
    window.get_render_option().point_size = POINT_SIZE
    window.run()
    window.destroy_window()


def _rgb(color: str) -> npt.NDArray[np.float64]:
    return np.array([int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)])


def _lines(o3d: Any, lines: list[npt.NDArray[np.float64]], color: str, pale: float = 0.0) -> Any:
    """Polylines as one LineSet; `pale` 0..1 mixes the colour with white."""
    starts = np.cumsum([0, *(len(line) for line in lines)])
    pairs = [
        np.stack([np.arange(first, last - 1), np.arange(first + 1, last)], axis=1) for first, last in pairwise(starts.tolist())
    ]
    made = o3d.geometry.LineSet(
        o3d.utility.Vector3dVector(np.concatenate(lines)), o3d.utility.Vector2iVector(np.concatenate(pairs).astype(np.int32))
    )
    made.paint_uniform_color(_rgb(color) * (1 - 0.6 * pale) + 0.6 * pale)
    return made
