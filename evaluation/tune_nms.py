"""`limtr tune-nms`: the distance of non-maximum suppression that suits each class best, on the validation split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from evaluation.accumulate import MotionMetrics
from evaluation.group_scores import score_groups
from evaluation.metric_config import Bucketing, MotionMetricsConfig
from evaluation.scenario_predictions import pair_with_truth
from evaluation.scoring import SceneReader, choose_device, scene_batches
from limtr.agent_view import build_agent_batch
from limtr.batch import collate
from limtr.files import write_json
from limtr.prediction import ScenePrediction
from limtr.predictor import MotionPredictor
from limtr.progress import progress
from limtr.run_report import as_plain, write_report
from limtr.scene import PREDICTED_TYPES, Scene
from limtr.world_view import to_world
from preprocessing.shards import SceneSource, data_fingerprint

MetricName = Literal["mAP", "soft_mAP", "minADE", "minFDE", "miss_rate"]
Curves = dict[str, list[float | None]]


@dataclass(frozen=True, kw_only=True)
class TuneNmsConfig:
    """Options of `limtr tune-nms`."""

    checkpoint: Path
    """Training run or model folder."""
    data: Path
    """Dataset of shards."""
    split: str = "validation"
    """Split to search on."""
    grid: str = "0:12.25:0.25"
    """Distances in metres to try, START:STOP:STEP (STOP itself is left out)."""
    metric: MetricName = "mAP"
    """What decides, as the mean over the three horizons."""
    bucketing: Bucketing = "2024"
    """Rule of the trajectory buckets of mAP."""
    apply: bool = False
    """Write a copy of the model with the best distances into OUT/model."""
    out: Path | None = None
    """Folder for nms.json and report.json [default: tune-nms in the run]."""
    batch_size: int = 16
    """Scenes decoded at a time."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        """Validate."""
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, is {self.batch_size}")
        parse_grid(self.grid)

    @property
    def folder(self) -> Path:
        """Where results go."""
        run_folder = self.checkpoint if self.checkpoint.is_dir() else self.checkpoint.parent
        return self.out if self.out is not None else run_folder / "tune-nms"


def parse_grid(text: str) -> tuple[float, ...]:
    """Distances of START:STOP:STEP in metres, STOP left out.

    Raises:
        ValueError: the text is no such grid, or the grid is empty.
    """
    try:
        start, stop, step = (float(part) for part in text.split(":"))
    except ValueError as error:
        raise ValueError(f"--grid must be START:STOP:STEP in metres, such as 0:12.25:0.25, is {text!r}") from error
    if not (0 <= start < stop and step > 0 and math.isfinite(stop)):
        raise ValueError(f"--grid needs 0 <= START < STOP and STEP > 0, is {text!r}")
    # A count keeps rounding of the sum of steps out of the question whether STOP is reached.
    count = math.ceil(round((stop - start) / step, 9))
    return tuple(round(start + index * step, 9) for index in range(count))


@torch.no_grad()
def search(
    model: MotionPredictor,
    source: SceneReader,
    distances_m: Sequence[float],
    *,
    config: MotionMetricsConfig,
    batch_size: int = 16,
) -> list[MotionMetrics]:
    """Metrics for each distance, one and the same for all classes; every scene is decoded once.

    Args:
        model: its own distances are not used.
        source: scenes with a future.
        distances_m: what to try.
        config: what is measured.
        batch_size: scenes decoded at a time.

    Raises:
        ValueError: there are no scenes, or a scene has no future.
    """
    if len(source) == 0:
        raise ValueError("there are no scenes to search on: choose another --split or preprocess more data")
    model.eval()
    view, parameter = model.config.view, next(model.parameters())
    metrics = [MotionMetrics(config) for _ in distances_m]
    with progress("trying distances", len(source), "scenes") as advance:
        for scenes in scene_batches(source, range(len(source)), batch_size):
            batch = collate(scenes, num_lidar_points=view.lidar_points_to_load).to(parameter.device)
            agents = build_agent_batch(batch, view).to(dtype=parameter.dtype)
            last = model.decode(agents).layers[-1]
            scores = last.scores.softmax(dim=-1)
            worlds = []
            for distance in distances_m:
                worlds.append(to_world(model.modes_of(last.trajectories, scores, distance), agents, batch))
            for scene, *variants in zip(scenes, *worlds, strict=True):
                _add_variants(scene, variants, metrics)
            advance(len(scenes))
    return metrics


def _add_variants(scene: Scene, variants: Sequence[ScenePrediction], metrics: Sequence[MotionMetrics]) -> None:
    """Score predictions of the same objects by several distances: all in one go, since the truth is the same."""
    together = ScenePrediction(
        scenario_id=scene.scenario_id,
        object_id=np.concatenate([variant.object_id for variant in variants]),
        xy_m=np.concatenate([variant.xy_m for variant in variants]),
        scores=np.concatenate([variant.scores for variant in variants]),
    )
    rows = score_groups([pair_with_truth(scene, together)], metrics[0].config)
    for index, item in enumerate(metrics):
        size = len(variants[index].object_id)
        item.add_rows(scene.scenario_id, {name: values[index * size : (index + 1) * size] for name, values in rows.items()})


def curves_of(metrics: Sequence[MotionMetrics], metric: MetricName) -> Curves:
    """The metric of each class at each distance: mean over horizons; None where nothing was measured."""
    values = [item.compute() for item in metrics]
    return {
        kind.name: [value[kind.name]["mean"][metric] if kind.name in value else None for value in values]
        for kind in PREDICTED_TYPES
    }


def best_distance_m(curve: Sequence[float | None], distances_m: Sequence[float], current_m: float, metric: MetricName) -> float:
    """The best distance of a class; of equally good ones the nearest to the current one, which stays if nothing is known."""
    known = [(value, distance) for value, distance in zip(curve, distances_m, strict=True) if value is not None]
    if not known:
        return current_m
    best = max(value for value, _ in known) if metric.endswith("mAP") else min(value for value, _ in known)
    return min((distance for value, distance in known if value == best), key=lambda distance: abs(distance - current_m))


def run(config: TuneNmsConfig) -> int:
    """Search, print the table, write what was found."""
    model = MotionPredictor.load(config.checkpoint, device=choose_device(config.device))
    source = SceneSource(config.data, config.split)
    # The distances in use are always tried too, so that a change can be weighed against leaving things as they are.
    distances = tuple(sorted({*parse_grid(config.grid), *model.config.nms_distance_m}))
    found = search(
        model, source, distances, config=MotionMetricsConfig(bucketing=config.bucketing), batch_size=config.batch_size
    )
    curves = curves_of(found, config.metric)
    current = dict(zip((kind.name for kind in PREDICTED_TYPES), model.config.nms_distance_m, strict=True))
    best = {name: best_distance_m(curve, distances, current[name], config.metric) for name, curve in curves.items()}
    Console().print(results_table(curves, distances, best, current, config.metric))
    results: dict[str, Any] = {
        "metric": config.metric, "grid_m": distances, "curves": curves, "current_m": current, "best_m": best,
        "model_fingerprint": model.fingerprint(), "data_fingerprint": data_fingerprint(config.data), "num_scenes": len(source),
    }  # fmt: skip
    if config.apply:
        chosen = (best["VEHICLE"], best["PEDESTRIAN"], best["CYCLIST"])
        model.config = replace(model.config, nms_distance_m=chosen)
        results["applied_to"] = model.save(config.folder / "model")
        print(f"model with these distances in {results['applied_to']}")
    write_json(config.folder / "nms.json", as_plain(results))
    write_report(
        config.folder, verb="tune-nms", inputs=[config.checkpoint, config.data], config=config, seed=None, results=results
    )
    print(f"all values in {config.folder / 'nms.json'}")
    return 0


def results_table(
    curves: Curves, distances_m: Sequence[float], best_m: dict[str, float], current_m: dict[str, float], metric: str
) -> Table:
    """A row per distance that is best or current for a class, or one of eight spread over the grid."""
    table = Table(title=f"{metric} by NMS distance, best in bold", title_justify="left")
    table.add_column("distance m", justify="right")
    for name in curves:
        table.add_column(name.lower(), justify="right")
    spread = np.linspace(0, len(distances_m) - 1, min(len(distances_m), 8)).round().astype(int).tolist()
    wanted = {distances_m[index] for index in spread} | set(best_m.values()) | set(current_m.values())
    for index, distance in enumerate(distances_m):
        if distance not in wanted:
            continue
        cells = []
        for name, curve in curves.items():
            value = curve[index]
            text = "-" if value is None else f"{value:.4f}"
            text += " (now)" if distance == current_m[name] else ""
            cells.append(f"[bold]{text}[/bold]" if distance == best_m[name] and value is not None else text)
        table.add_row(f"{distance:g}", *cells)
    return table
