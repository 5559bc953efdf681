"""`limtr view SCENE`: one scene as a picture, an animation, a window or a Rerun recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from evaluation.plots import draw_scene
from evaluation.view.animation import require_ffmpeg, write_gif, write_mp4
from evaluation.view.find_scene import find_scene, predict_scene
from evaluation.view.rerun_recording import require_rerun, write_recording
from evaluation.view.window import require_display, show
from limtr.files import path_inside
from limtr.prediction import ScenePrediction
from limtr.scene import Scene

Format = Literal["picture", "gif", "mp4", "window", "rerun"]

_WRITERS: dict[Format, tuple[str, Callable[[Scene, ScenePrediction, Path], Path]]] = {
    "picture": ("png", draw_scene),
    "gif": ("gif", write_gif),
    "mp4": ("mp4", write_mp4),
    "rerun": ("rrd", write_recording),
}
"""Ending and writer of everything that becomes a file."""
_NEEDS: dict[Format, Callable[[], object]] = {"mp4": require_ffmpeg, "window": require_display, "rerun": require_rerun}


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Options of `limtr view`."""

    scene: Positional[str]
    """Scenario id, or the scene's place in the data (from 0)."""
    data: Path
    """Dataset of shards, TFRecord file of scenarios, or a folder of such files."""
    split: str = "validation"
    """Split to read where --data is a dataset of shards or a folder in WOMD's layout: train, validation or test."""
    lidar: Path | None = None
    """Folder with SCENARIO_ID.tfrecord LiDAR files, for TFRecord data [default: DATA/lidar/SPLIT where that exists]."""
    checkpoint: Path | None = None
    """Training run or model folder whose predictions are shown."""
    predictions: Path | None = None
    """Parquet file whose predictions are shown instead."""
    format: tuple[Format, ...] = ("picture",)
    """What to make: picture (PNG), gif, mp4 (needs ffmpeg), window (Open3D, needs a display), rerun (a recording)."""
    out: Path = Path("view")
    """Folder of the files; each is named after the scenario."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        """Validate."""
        if self.checkpoint is not None and self.predictions is not None:
            raise ValueError("give --checkpoint or --predictions, not both")
        if not self.format:
            raise ValueError("--format needs at least one of picture, gif, mp4, window, rerun")


def run(config: ViewConfig) -> int:
    """Make everything that was asked for; what is missing for it is told before the work begins."""
    for name in config.format:
        if name in _NEEDS:
            _NEEDS[name]()
    scene = find_scene(config.scene, config.data, config.split, config.lidar)
    prediction = predict_scene(scene, config.checkpoint, config.predictions, config.device)
    points = 0 if scene.lidar is None else len(scene.lidar.points_m)
    print(
        f"scenario {scene.scenario_id}: {scene.num_tracks} tracks, {len(scene.tracks_to_predict)} to predict, "
        f"{len(scene.feature_length)} map features, {points} LiDAR points, {prediction.scores.shape[1]} modes per object"
    )
    for name in dict.fromkeys(config.format):
        if name == "window":
            show(scene, prediction)
            continue
        ending, write = _WRITERS[name]
        config.out.mkdir(parents=True, exist_ok=True)
        print(write(scene, prediction, path_inside(config.out, f"{scene.scenario_id}.{ending}")))
    return 0
