"""A Rerun recording of a scene: map, boxes, LiDAR, signals, truth and predictions on one timeline (extra `rerun`)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.palette import OTHER_COLOR, TRUTH_COLOR
from evaluation.plots import SIGNAL_STYLE, track_color
from evaluation.signals import signals_at
from evaluation.view.geometry import boxes_at, lidar_points, map_lines, mode_paths, true_paths
from evaluation.view.window import MAP_COLORS
from limtr.files import atomic_path
from limtr.prediction import ScenePrediction
from limtr.scene import STEP_S, ObjectType, Scene

TIMELINE = "time from now"


def require_rerun() -> Any:
    """The `rerun` module.

    Raises:
        ValueError: it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module("rerun")
    except ModuleNotFoundError as error:
        if error.name != "rerun":
            raise
        raise ValueError(
            "--format rerun needs Rerun: pip install rerun-sdk (or, in a clone, pip install -e '.[rerun]')"
        ) from error


def write_recording(scene: Scene, prediction: ScenePrediction, path: Path) -> Path:
    """Write a .rrd file, to be opened with `rerun PATH`; returns `path`.

    Raises:
        ValueError: Rerun is not installed.
    """
    rerun = require_rerun()
    with atomic_path(path) as temporary:
        recording = rerun.RecordingStream("limtr", recording_id=scene.scenario_id)
        recording.save(str(temporary))
        _log_static(rerun, recording, scene, prediction)
        for step in range(scene.num_steps):
            recording.set_time(TIMELINE, duration=(step - scene.current_step) * STEP_S)
            _log_step(rerun, recording, scene, prediction, step)
        recording.flush()
        recording.disconnect()
    return path


def _log_static(rerun: Any, recording: Any, scene: Scene, prediction: ScenePrediction) -> None:
    for name, lines in map_lines(scene).items():
        if lines:
            recording.log(f"map/{name}", rerun.LineStrips3D(lines, colors=_rgb(MAP_COLORS[name])), static=True)
    truths = true_paths(scene, prediction)
    if truths:
        strips = rerun.LineStrips3D([path for _, path in truths], colors=_rgb(TRUTH_COLOR), radii=0.12)
        recording.log("truth", strips, static=True)


def _log_step(rerun: Any, recording: Any, scene: Scene, prediction: ScenePrediction, step: int) -> None:
    boxes = boxes_at(scene, step)
    targets = {int(np.flatnonzero(scene.track_id == name)[0]) for name in prediction.object_id}
    colors = [_rgb(track_color(scene, row) if row in targets else OTHER_COLOR) for row in boxes.rows.tolist()]
    half = 0.5 * boxes.heading_rad
    turns = np.stack([np.zeros_like(half), np.zeros_like(half), np.sin(half), np.cos(half)], axis=1)
    labels = [f"{_kind(scene, row)} {scene.track_id[row]}" for row in boxes.rows.tolist()]
    shown = rerun.Boxes3D(
        centers=boxes.center_m,
        half_sizes=0.5 * boxes.size_m,
        quaternions=turns,
        colors=colors,
        labels=labels,
        show_labels=False,
    )
    recording.log("agents", shown)
    recording.log("lidar", rerun.Points3D(lidar_points(scene, step), radii=0.03))
    signals = signals_at(scene, step)
    recording.log(
        "signals",
        rerun.Points3D(
            np.array([stop for stop, _ in signals]).reshape(-1, 3), radii=0.5,
            colors=[_rgb(SIGNAL_STYLE[meaning][1]) for _, meaning in signals], labels=[meaning.value for _, meaning in signals],
        ),
    )  # fmt: skip
    ahead = step - scene.current_step
    if ahead >= 0:
        modes = mode_paths(scene, prediction)
        # The paths stand from now on; a point on each shows where the mode has its object at this time.
        if ahead == 0 and modes:
            paths = rerun.LineStrips3D(
                [mode.points_m for mode in modes], colors=[_rgb(track_color(scene, mode.row)) for mode in modes],
                radii=[0.04 + 0.12 * mode.share for mode in modes], labels=[f"{mode.score:.2f}" for mode in modes],
            )  # fmt: skip
            recording.log("predictions/paths", paths)
        at = np.array([mode.points_m[ahead] for mode in modes if ahead < len(mode.points_m)]).reshape(-1, 3)
        colors = [_rgb(track_color(scene, mode.row)) for mode in modes]
        recording.log("predictions/positions", rerun.Points3D(at, colors=colors[: len(at)], radii=0.3))


def _kind(scene: Scene, row: int) -> str:
    kind = int(scene.track_type[row])
    return ObjectType(kind).name.lower() if kind in list(ObjectType) else "object"


def _rgb(color: str) -> list[int]:
    """`#rrggbb` as three numbers; `white` too."""
    return [255, 255, 255] if color == "white" else [int(color[start : start + 2], 16) for start in (1, 3, 5)]
