"""A scene in motion, from above: GIF by Pillow, MP4 where there is an ffmpeg."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.palette import OTHER_COLOR, TRUTH_COLOR
from evaluation.plots import box_corners_m, crop_to_targets, draw_map, draw_signals, track_color
from evaluation.view.geometry import lidar_points
from limtr.files import atomic_path
from limtr.prediction import ScenePrediction
from limtr.progress import progress
from limtr.scene import STEP_S, Scene

INCHES, DPI = 7.0, 90
STEPS_PER_FRAME = 2
FRAME_S = STEPS_PER_FRAME * STEP_S
LAST_FRAME_S = 1.5


def require_ffmpeg() -> str:
    """Path of ffmpeg.

    Raises:
        ValueError: there is none; the message says what to do.
    """
    found = shutil.which("ffmpeg")
    if found is None:
        raise ValueError("MP4 needs ffmpeg, which is not here: install it (apt-get install ffmpeg), or take --format gif")
    return found


def frame_steps(scene: Scene) -> list[int]:
    """The steps that are shown: every second one, the current and the last one always."""
    last = scene.num_steps - 1
    return sorted({*range(scene.current_step % STEPS_PER_FRAME, last + 1, STEPS_PER_FRAME), scene.current_step, last})


def frames(scene: Scene, prediction: ScenePrediction) -> Iterator[npt.NDArray[np.uint8]]:
    """Pictures (height, width, 3) of the steps of `frame_steps`; modes and truth grow after the current step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES, INCHES), dpi=DPI, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    modes = prediction.xy_m - scene.origin_m[:2]
    rows = np.array([int(np.flatnonzero(scene.track_id == name)[0]) for name in prediction.object_id], dtype=np.int64)
    draw_map(axes, scene)
    crop_to_targets(axes, scene, rows, modes)
    axes.set_aspect("equal")
    axes.set_xlabel("x [m], scene frame")
    axes.set_ylabel("y [m]")
    for step in frame_steps(scene):
        drawn = draw_signals(axes, scene, step) + _draw_step(axes, scene, rows, modes, prediction.scores, step)
        time_s = (step - scene.current_step) * STEP_S
        axes.set_title(f"scenario {scene.scenario_id}: {time_s:+.1f} s", loc="left", parse_math=False)
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()
        for artist in drawn:
            artist.remove()


def _draw_step(
    axes: Any, scene: Scene, rows: npt.NDArray[np.int64], modes: npt.NDArray[np.float64],
    scores: npt.NDArray[np.float64], step: int,
) -> list[Any]:  # fmt: skip
    from matplotlib.collections import LineCollection, PolyCollection

    now = scene.current_step
    valid = np.flatnonzero(scene.track_valid[:, step]).tolist()
    targets = set(rows.tolist())
    colors = [track_color(scene, row) if row in targets else OTHER_COLOR for row in valid]
    edges = [TRUTH_COLOR if row == scene.sdc_track else "white" for row in valid]
    boxes = [box_corners_m(scene.track_states[row, step]) for row in valid]
    drawn: list[Any] = [
        axes.add_collection(PolyCollection(boxes, facecolors=colors, edgecolors=edges, linewidths=0.8, zorder=6))
    ]
    points = lidar_points(scene, step)
    drawn.append(axes.scatter(points[:, 0], points[:, 1], s=1.5, color=TRUTH_COLOR, zorder=7))
    if step > now:
        paths, widths, alphas, mode_colors = [], [], [], []
        for row, object_modes, object_scores in zip(rows.tolist(), modes, scores, strict=True):
            start = scene.track_states[row, now, None, :2]
            best = max(float(object_scores.max(initial=0.0)), 1e-12)
            for path, score in zip(object_modes, object_scores.tolist(), strict=True):
                paths.append(np.concatenate([start, path[: step - now]]))
                widths.append(1.0 + 1.6 * score / best)
                alphas.append(0.35 + 0.6 * score / best)
                mode_colors.append(track_color(scene, row))
        lines = LineCollection(paths, colors=mode_colors, linewidths=widths, alpha=alphas or None, zorder=8)
        drawn.append(axes.add_collection(lines))
        truths = [scene.track_states[row, now : step + 1, :2][scene.track_valid[row, now : step + 1]] for row in rows.tolist()]
        drawn.append(
            axes.add_collection(LineCollection(truths, colors=TRUTH_COLOR, linewidths=1.8, linestyles="dashed", zorder=9))
        )
    return drawn


def write_gif(scene: Scene, prediction: ScenePrediction, path: Path) -> Path:
    """Write an animated GIF in real time, the last picture held a little; returns `path`."""
    from PIL import Image

    pictures = []
    steps = frame_steps(scene)
    with progress("animating", len(steps), "pictures") as advance:
        for frame in frames(scene, prediction):
            pictures.append(Image.fromarray(frame).quantize(128, Image.Quantize.FASTOCTREE))
            advance()
    duration = [round(FRAME_S * 1000)] * (len(pictures) - 1) + [round(LAST_FRAME_S * 1000)]
    with atomic_path(path) as temporary:
        pictures[0].save(temporary, format="GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)
    return path


def write_mp4(scene: Scene, prediction: ScenePrediction, path: Path) -> Path:
    """Write an MP4 in real time through ffmpeg; returns `path`.

    Raises:
        ValueError: there is no ffmpeg, or it fails; the message has its last words.
    """
    command = [
        require_ffmpeg(), "-loglevel", "error", "-y", "-f", "image2pipe", "-framerate", f"{1 / FRAME_S:g}",
        "-c:v", "png", "-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-f", "mp4",
    ]  # fmt: skip
    from PIL import Image

    with atomic_path(path) as temporary:
        running = subprocess.Popen([*command, str(temporary)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert running.stdin is not None
        assert running.stderr is not None
        try:
            with progress("animating", len(frame_steps(scene)), "pictures") as advance:
                for frame in frames(scene, prediction):
                    Image.fromarray(frame).save(running.stdin, format="PNG")
                    advance()
            running.stdin.close()
        except BrokenPipeError:
            pass  # ffmpeg has ended; its last words say why
        except BaseException:
            running.kill()
            running.wait()
            raise
        words = running.stderr.read().decode(errors="replace").strip()
        if running.wait() != 0:
            raise ValueError(f"ffmpeg could not write {path} ({words[-500:] or 'no reason given'}); take --format gif")
    return path
