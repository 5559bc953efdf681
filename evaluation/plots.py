"""Pictures of scenes: map, tracks, the true future of the targets and the predicted modes with their scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.palette import GREEN, OTHER_COLOR, TRUTH_COLOR, TYPE_COLORS, VERMILLION, YELLOW
from evaluation.signals import SignalMeaning, signals_at
from limtr.files import atomic_path, path_inside
from limtr.prediction import ScenePrediction
from limtr.scene import ObjectType, Scene

Float = npt.NDArray[np.float64]

MARGIN_M = 12.0
SMALLEST_VIEW_M = 40.0
SHOWN_SCORE = 0.02
"""Modes below this share of the agent's best score are drawn, but not labelled."""

SIGNAL_STYLE = {
    SignalMeaning.STOP: ("s", VERMILLION),
    SignalMeaning.CAUTION: ("^", YELLOW),
    SignalMeaning.GO: ("o", GREEN),
    SignalMeaning.UNKNOWN: ("D", "white"),
}
"""Marker and colour."""

_LANES, _DRIVEWAY, _STOP_SIGN, _CROSSWALK, _BUMP = range(1, 4), 20, 17, 18, 19
_LINES, _EDGES = range(6, 14), range(15, 17)


def draw_scene(scene: Scene, prediction: ScenePrediction, path: Path) -> Path:
    """Write a PNG of one scene with predictions of some of its tracks; returns `path`.

    Args:
        scene: with or without a future.
        prediction: world coordinates, of the same scenario.
        path: file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 10), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    modes = prediction.xy_m - scene.origin_m[:2]
    rows = np.array([int(np.flatnonzero(scene.track_id == name)[0]) for name in prediction.object_id], dtype=np.int64)
    draw_map(axes, scene)
    draw_signals(axes, scene, scene.current_step)
    _draw_tracks(axes, scene, rows)
    for row, paths, scores in zip(rows, modes, prediction.scores, strict=True):
        _draw_modes(axes, scene, int(row), paths, scores)
    crop_to_targets(axes, scene, rows, modes)
    axes.set_aspect("equal")
    axes.set_xlabel("x [m], scene frame")
    axes.set_ylabel("y [m]")
    axes.set_title(f"scenario {scene.scenario_id}: {len(rows)} targets, 1 s of history, 8 s of future", loc="left")
    axes.legend(handles=_legend(), loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=4, frameon=False, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path


def picture_path(folder: Path, scenario_id: str) -> Path:
    """Where the picture of a scenario goes.

    Raises:
        ValueError: the id would leave the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return path_inside(folder, f"{scenario_id}.png")


def draw_map(axes: Any, scene: Scene) -> None:
    """The map, without signals."""
    from matplotlib.collections import LineCollection, PolyCollection

    stops = np.cumsum(scene.feature_length)
    pieces = [scene.map_points_m[stop - length : stop, :2] for stop, length in zip(stops, scene.feature_length, strict=True)]
    kinds = scene.feature_type.tolist()

    def of(*types: int) -> list[npt.NDArray[np.float32]]:
        return [piece for piece, kind in zip(pieces, kinds, strict=True) if kind in types and len(piece) > 1]

    axes.add_collection(PolyCollection(of(_DRIVEWAY), facecolor="#f1efe9", edgecolor="#d8d4c8", linewidth=0.6, zorder=0))
    axes.add_collection(
        PolyCollection(of(_CROSSWALK, _BUMP), facecolor="#f6e7c1", edgecolor="#d9bf7a", linewidth=0.6, zorder=1)
    )
    axes.add_collection(LineCollection(of(*_LANES), colors="#dfe3e8", linewidths=1.6, zorder=1))
    axes.add_collection(LineCollection(of(*_LINES), colors="#b9c0c8", linewidths=0.8, linestyles="dashed", zorder=2))
    axes.add_collection(LineCollection(of(*_EDGES), colors="#6b7280", linewidths=1.2, zorder=2))
    signs = [piece[0] for piece, kind in zip(pieces, kinds, strict=True) if kind == _STOP_SIGN and len(piece)]
    if signs:
        axes.scatter(*np.array(signs).T, marker="8", s=34, color=VERMILLION, zorder=3)


def draw_signals(axes: Any, scene: Scene, step: int) -> list[Any]:
    """What the signals show at a step: shape and colour; returns what was drawn."""
    seen: dict[SignalMeaning, list[npt.NDArray[np.float32]]] = {}
    for stop_m, meaning in signals_at(scene, step):
        seen.setdefault(meaning, []).append(stop_m[:2])
    return [
        axes.scatter(*np.array(stops).T, marker=SIGNAL_STYLE[meaning][0], color=SIGNAL_STYLE[meaning][1], s=36,
                     edgecolor=TRUTH_COLOR, linewidth=0.6, zorder=4)
        for meaning, stops in seen.items()
    ]  # fmt: skip


def _draw_tracks(axes: Any, scene: Scene, targets: npt.NDArray[np.int64]) -> None:
    from matplotlib.patches import Polygon

    now = scene.current_step
    for row in range(scene.num_tracks):
        is_target = row in targets
        color = track_color(scene, row) if is_target else OTHER_COLOR
        if scene.track_valid[row, now]:
            corners = box_corners_m(scene.track_states[row, now])
            axes.add_patch(Polygon(corners, facecolor=color, edgecolor="white", linewidth=0.6, alpha=0.9, zorder=6))
            if row == scene.sdc_track:
                axes.add_patch(Polygon(corners, fill=False, edgecolor=TRUTH_COLOR, linewidth=1.6, zorder=7))
        history = scene.track_states[row, : now + 1, :2][scene.track_valid[row, : now + 1]]
        axes.plot(*history.T, color=color, linewidth=2.2 if is_target else 1.0, alpha=0.6, zorder=5, solid_capstyle="round")
        future = scene.track_states[row, now + 1 :, :2][scene.track_valid[row, now + 1 :]]
        if is_target and len(future):
            axes.plot(*future.T, color=TRUTH_COLOR, linewidth=2.4, zorder=8, solid_capstyle="round")
            axes.scatter(*future[-1], marker="s", s=26, color=TRUTH_COLOR, zorder=9)


def track_color(scene: Scene, row: int) -> str:
    """Colour of a track's class."""
    kind = int(scene.track_type[row])
    return TYPE_COLORS.get(ObjectType(kind), OTHER_COLOR) if kind in list(ObjectType) else OTHER_COLOR


def box_corners_m(state: npt.NDArray[np.float32]) -> Float:
    """(4, 2) corners of a track's box."""
    length, width, heading = state[3], state[4], state[6]
    unit = np.array([[0.5, 0.5], [0.5, -0.5], [-0.5, -0.5], [-0.5, 0.5]]) * (length, width)
    turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
    return np.asarray(unit @ turn + state[:2], dtype=np.float64)


def _draw_modes(axes: Any, scene: Scene, row: int, paths: Float, scores: Float) -> None:
    color = track_color(scene, row)
    start = scene.track_states[row, scene.current_step, :2]
    best = max(float(scores.max(initial=0.0)), 1e-12)
    for path, score in sorted(zip(paths, scores, strict=True), key=lambda pair: float(pair[1])):
        share = float(score) / best
        line = np.concatenate([start[None], path])
        axes.plot(*line.T, color=color, linewidth=1.2 + 1.6 * share, alpha=0.35 + 0.6 * share, zorder=10)
        axes.scatter(*path[-1], s=14 + 20 * share, color=color, alpha=0.35 + 0.6 * share, edgecolor="white", zorder=11)
        if share >= SHOWN_SCORE:
            box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.65}
            axes.annotate(
                f"{score:.2f}",
                path[-1],
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
                color=color,
                bbox=box,
                zorder=12,
            )


def crop_to_targets(axes: Any, scene: Scene, rows: npt.NDArray[np.int64], modes: Float) -> None:
    """Show a square that holds the targets with their history, truth and modes."""
    points = [modes.reshape(-1, 2)]
    points += [scene.track_states[row, :, :2][scene.track_valid[row]] for row in rows]
    shown = np.concatenate(points)
    if len(shown) == 0:
        shown = np.zeros((1, 2))
    low, high = shown.min(axis=0) - MARGIN_M, shown.max(axis=0) + MARGIN_M
    middle, half = 0.5 * (low + high), 0.5 * max(float((high - low).max()), SMALLEST_VIEW_M)
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    modes = [Line2D([], [], color=color, marker="o", linewidth=2, label=f"{kind.name.lower()}: modes with scores")
             for kind, color in TYPE_COLORS.items()]  # fmt: skip
    dot: dict[str, Any] = {"linewidth": 0, "markeredgecolor": TRUTH_COLOR}
    signals = [Line2D([], [], color=color, marker=marker, label=f"signal: {meaning.value}", **dot)
               for meaning, (marker, color) in SIGNAL_STYLE.items()]  # fmt: skip
    return [
        *modes,
        *signals,
        Line2D([], [], color=TRUTH_COLOR, marker="s", linewidth=2.4, label="true future"),
        Patch(facecolor=OTHER_COLOR, label="other tracks"),
        Patch(facecolor="white", edgecolor=TRUTH_COLOR, label="recording vehicle"),
        Line2D([], [], color="#6b7280", linewidth=1.2, label="road edge"),
        Patch(facecolor="#f6e7c1", edgecolor="#d9bf7a", label="crosswalk, speed bump"),
    ]
