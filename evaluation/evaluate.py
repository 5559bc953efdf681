"""`limtr evaluate`: Waymo's metrics of a model, or of a file of predictions, beside two baselines, with pictures."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.baselines import constant_velocity, turn_rate_fan
from evaluation.corruptions.catalogue import SEVERITIES, CorruptionName
from evaluation.file_scoring import FileScore, score_file
from evaluation.metric_config import Bucketing, MotionMetricsConfig
from evaluation.official import OfficialJudge, print_verdict
from evaluation.oracle import find_oracle
from evaluation.plots import draw_scene, picture_path
from evaluation.prediction_cost import prediction_cost
from evaluation.predictions import read_metadata
from evaluation.report.of_evaluation import write_evaluation_report
from evaluation.report.write import ReportCollector
from evaluation.robustness import FOLDER, Curves, RobustnessPlan, as_results, check_severities, chosen, measure
from evaluation.robustness_table import draw_curves, print_curves
from evaluation.scenario_predictions import ScenarioPredictions
from evaluation.scene_scores import FILE as SCORES_FILE
from evaluation.scene_scores import SceneScoresCollector, also_collect
from evaluation.scoring import (
    EvaluationResult,
    ScenePredictor,
    Watch,
    best_mode_only,
    choose_device,
    count_targets,
    evaluate_model,
    result_of,
    score,
)
from evaluation.table import print_results
from limtr.files import write_json
from limtr.prediction import ScenePrediction
from limtr.predictor import MotionPredictor
from limtr.progress import progress
from limtr.run_report import as_plain, write_report
from limtr.scene import Scene
from preprocessing.shards import SceneSource, data_fingerprint

__all__ = ["EvaluateConfig", "EvaluationResult", "evaluate_model", "run"]


DEFAULT_PICTURES = 6


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Options of `limtr evaluate`: give either --checkpoint or --predictions."""

    data: Path
    """Dataset of shards."""
    checkpoint: Path | None = None
    """Training run or model folder to evaluate."""
    predictions: Path | None = None
    """Parquet file of predictions (as `limtr predict` writes it) to score instead of a model."""
    split: str = "validation"
    """Split of the dataset: train or validation (the test split has no future to score)."""
    bucketing: Bucketing = "2024"
    """Rule of the trajectory buckets of mAP: 2024 is today's leaderboard, 2021 the one of MTR's published numbers."""
    out: Path | None = None
    """Folder for metrics.json, report.json and pictures/ [default: evaluation-SPLIT in the run, or beside the file]."""
    pictures: int | None = None
    """How many scenes to draw, spread evenly over the split [default: 6 with --checkpoint]."""
    batch_size: int = 16
    """Scenes predicted at a time."""
    device: str = "auto"
    """auto, cpu or cuda."""
    allow_missing: bool = False
    """With --predictions: exit status 0 although objects are missing in the file or unknown to the split."""

    official: bool = False
    """Have Waymo's own op (`make oracle`) judge the same predictions; exit status 1 if a number differs by more than 1e-4."""
    report: bool = False
    """Write report.html: tables, curves, breakdowns and a gallery of scenes in one file to look at."""

    corrupt: tuple[CorruptionName, ...] = ()
    """With --checkpoint: measure again with degraded inputs of these kinds (`all`: of every kind), at several severities."""
    severities: tuple[int, ...] = SEVERITIES
    """Of --corrupt: 1 (mild) to 5."""
    seed: int = 0
    """Of the random numbers of --corrupt."""

    scene_scores: bool = False
    """With --checkpoint: write scene_scores.npz, every object's part in the metrics, which `limtr compare` resamples."""

    def __post_init__(self) -> None:
        """Validate."""
        if (self.checkpoint is None) == (self.predictions is None):
            raise ValueError("give either --checkpoint or --predictions")
        if self.batch_size < 1 or (self.pictures or 0) < 0:
            raise ValueError(
                f"--batch-size must be at least 1 and --pictures at least 0, are {self.batch_size}, {self.pictures}"
            )
        if self.allow_missing and self.predictions is None:
            raise ValueError("--allow-missing belongs to --predictions")
        if self.scene_scores and self.checkpoint is None:
            raise ValueError("--scene-scores belongs to --checkpoint")
        if self.corrupt and self.checkpoint is None:
            raise ValueError("--corrupt needs --checkpoint: predictions in a file were made already")
        check_severities(self.severities)

    @property
    def folder(self) -> Path:
        """Where results go."""
        if self.out is not None:
            return self.out
        if self.predictions is not None:
            return self.predictions.with_name(f"{self.predictions.stem}-evaluation")
        assert self.checkpoint is not None
        return (self.checkpoint if self.checkpoint.is_dir() else self.checkpoint.parent) / f"evaluation-{self.split}"


def baselines() -> dict[str, ScenePredictor]:
    """The baselines by name."""
    return {
        "constant velocity": lambda scenes: [constant_velocity(scene) for scene in scenes],
        "turn-rate fan": lambda scenes: [turn_rate_fan(scene) for scene in scenes],
    }


def run(config: EvaluateConfig) -> int:
    """Evaluate; 0 if everything was scored (with --predictions: nothing missing, unknown or bad, or --allow-missing)."""
    source = SceneSource(config.data, config.split)
    judge = None
    if config.official:
        find_oracle()  # before the long work, not after it
        judge = OfficialJudge(MotionMetricsConfig(bucketing=config.bucketing))
    return _run_model(config, source, judge) if config.checkpoint is not None else _run_file(config, source, judge)


def _watch(judge: OfficialJudge | None, judged: str, html: ReportCollector | None) -> Watch | None:
    """Hands what the predictor `judged` says to the judge, and everything to the report."""
    if judge is None and html is None:
        return None

    def watch(name: str, scene: Scene, paired: ScenarioPredictions) -> None:
        if judge is not None and name == judged:
            judge.add(scene, paired)
        if html is not None:
            html.watch(name, scene, paired)

    return watch


def _judge(config: EvaluateConfig, judge: OfficialJudge | None) -> tuple[dict[str, Any], bool]:
    """What the judge found, for metrics.json, and whether it agrees (without a judge: nothing, and yes)."""
    if judge is None:
        return {}, True
    verdict = judge.verdict()
    counts = {"marginal": len(judge.marginal), "joint": len(judge.joint)}
    return {"official": verdict}, print_verdict(verdict, counts, config.bucketing)


def _run_model(config: EvaluateConfig, source: SceneSource, judge: OfficialJudge | None) -> int:
    assert config.checkpoint is not None
    model = MotionPredictor.load(config.checkpoint, device=choose_device(config.device))
    metrics_config = MotionMetricsConfig(bucketing=config.bucketing)
    targets: dict[str, int] = {}
    latest: list[ScenePrediction] = []

    def predict(scenes: Sequence[Scene]) -> list[ScenePrediction]:
        for scene in scenes:
            for name, number in count_targets(scene).items():
                targets[name] = targets.get(name, 0) + number
        latest[:] = model.predict(list(scenes))
        return latest

    # The second predictor reuses what the first has just said of the same scenes.
    predictors: dict[str, ScenePredictor] = {
        "model": predict,
        "model, best mode": lambda scenes: [best_mode_only(prediction) for prediction in latest],
        **baselines(),
    }
    html = ReportCollector("model", list(baselines()), metrics_config) if config.report else None
    watch = _watch(judge, "model", html)
    collector = SceneScoresCollector(metrics_config) if config.scene_scores else None
    if collector is not None:
        watch = also_collect(watch, collector, "model")
    metrics = score(source, predictors, config=metrics_config, batch_size=config.batch_size, watch=watch)
    results = {name: result_of(item) for name, item in metrics.items()}
    _print(config, results, f"{config.checkpoint} on {config.split} of {config.data}")
    for name, number in targets.items():
        if name != "scored" and number:
            print(f"not scored: {number} targets {name.replace('_', ' ')}")
    cost = prediction_cost(model, source)
    if cost is not None:
        print(cost)
    found, agrees = _judge(config, judge)
    drawn = draw(config, source, model.predict)
    curves = _corrupt(config, source, model, results["model"], metrics_config)
    about = {
        "checkpoint": config.checkpoint,
        "model_fingerprint": model.fingerprint(),
        "licence": model.licence,
        "targets": targets,
        "cost": cost,
        **({"robustness": as_results(curves)} if curves else {}),
        **found,
    }
    if collector is not None:
        collector.result().write(config.folder / SCORES_FILE)
    _write(config, source, results, about, drawn)
    if html is not None:
        write_evaluation_report(config, about, results, source, html, predict=model.predict, robustness=curves)
    return 0 if agrees else 1


def _corrupt(
    config: EvaluateConfig, source: SceneSource, model: MotionPredictor, clean: EvaluationResult, measured: MotionMetricsConfig
) -> Curves:
    """What --corrupt asks for, printed and drawn; empty without it."""
    names = chosen(config.corrupt, use_lidar=model.config.view.use_lidar)
    if not names:
        return {}
    about = {
        "model_fingerprint": model.fingerprint(),
        "data_fingerprint": data_fingerprint(config.data),
        "split": config.split,
        "bucketing": config.bucketing,
    }
    folder = config.folder / FOLDER
    plan = RobustnessPlan(names=names, severities=config.severities, seed=config.seed, about=about, folder=folder)
    curves = measure(plan, model.predict, source, clean, config=measured, batch_size=config.batch_size)
    if not curves:
        return {}
    print_curves(curves)
    print(f"metrics over severity: {draw_curves(curves, folder / 'robustness.png')}")
    return curves


def _run_file(config: EvaluateConfig, source: SceneSource, judge: OfficialJudge | None) -> int:
    assert config.predictions is not None
    about = {"predictions": config.predictions, "file_metadata": read_metadata(config.predictions)}
    ids = source.scenario_ids()
    metrics_config = MotionMetricsConfig(bucketing=config.bucketing)
    html = ReportCollector("predictions", list(baselines()), metrics_config) if config.report else None
    watch = _watch(judge, "predictions", html)
    scored = score_file(config.predictions, source, ids, metrics_config, watch)
    if scored.metrics.num_scenarios == 0:
        raise ValueError(
            f"{config.predictions}: no scenario of {config.data} split {config.split!r} is in it; "
            f"{'; '.join(scored.problems) or 'the file is empty'}"
        )
    rows = [row for row, scenario_id in enumerate(ids) if scenario_id in scored.metrics.scenario_ids]
    others = score(
        source, baselines(), config=metrics_config, batch_size=config.batch_size, rows=rows, title="baselines", watch=watch
    )
    results = {"predictions": result_of(scored.metrics)} | {name: result_of(item) for name, item in others.items()}
    _print(config, results, f"{config.predictions} on {config.split} of {config.data}")
    for problem in scored.problems:
        print(f"limtr evaluate: {problem}", file=sys.stderr)
    if scored.num_invalid_now:
        print(f"not scored: {scored.num_invalid_now} predicted targets that are not valid at the current step")
    drawn: list[Path] = []
    if config.pictures:
        print("--pictures needs --checkpoint: no pictures are drawn of a file of predictions", file=sys.stderr)
    found, agrees = _judge(config, judge)
    about |= {"agreement": _agreement(scored), **found}
    _write(config, source, results, about, drawn)
    if html is not None:
        write_evaluation_report(config, about, results, source, html, notes=scored.problems)
    whole = not scored.problems or (config.allow_missing and not scored.bad_scenarios)
    return 0 if whole and agrees else 1


def _agreement(scored: FileScore) -> dict[str, Any]:
    names = ("bad_scenarios", "unknown_scenarios", "missing_scenarios", "unknown_objects", "missing_objects")
    return {name: getattr(scored, name) for name in names} | {"num_invalid_now": scored.num_invalid_now}


def draw(config: EvaluateConfig, source: SceneSource, predict: ScenePredictor) -> list[Path]:
    """Pictures of scenes spread evenly over the split."""
    wanted = min(DEFAULT_PICTURES if config.pictures is None else config.pictures, len(source))
    rows = np.unique(np.linspace(0, len(source) - 1, wanted).round().astype(np.int64)).tolist()
    if not rows:
        return []
    folder = config.folder / "pictures"
    drawn = []
    with progress("drawing", len(rows), "pictures") as advance:
        for row in rows:
            scene = source[row]
            drawn.append(draw_scene(scene, predict([scene])[0], picture_path(folder, scene.scenario_id)))
            advance()
    return drawn


def _print(config: EvaluateConfig, results: Mapping[str, EvaluationResult], title: str) -> None:
    scenes = next(iter(results.values())).num_scenes
    print_results(results, f"{title}: {scenes} scenes, {config.bucketing} buckets, mean over horizons")
    print(
        "Waymo's leaderboard shows the mean over 3, 5 and 8 s, then over the classes; the first six modes of an object count."
    )


def _write(
    config: EvaluateConfig, source: SceneSource, results: Mapping[str, EvaluationResult], about: Mapping[str, Any],
    drawn: Sequence[Path],
) -> None:  # fmt: skip
    content = {
        **about,
        "split": config.split,
        "bucketing": config.bucketing,
        "data": config.data,
        "data_fingerprint": data_fingerprint(config.data),
        "num_scenes": next(iter(results.values())).num_scenes,
        "scenes_in_split": len(source),
        "results": {name: {"values": result.values, "objects": result.counts} for name, result in results.items()},
    }
    write_json(config.folder / "metrics.json", as_plain(content))
    inputs = [path for path in (config.checkpoint, config.predictions, config.data) if path is not None]
    summary = {name: result.summary() for name, result in results.items()}
    plain = {**about, "summary": summary, "pictures": drawn, "data_fingerprint": content["data_fingerprint"]}
    seed = config.seed if config.corrupt else None
    write_report(config.folder, verb="evaluate", inputs=inputs, config=config, seed=seed, results=plain)
    where = f", {len(drawn)} pictures in {config.folder / 'pictures'}" if drawn else ""
    print(f"all values in {config.folder / 'metrics.json'}{where}")
