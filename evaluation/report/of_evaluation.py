"""From `limtr evaluate` to its report: the facts, the configuration and the scenes that report.html shows."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from evaluation.metric_config import Bucketing
from evaluation.predictions import read_predictions
from evaluation.report.training_curves import TrainingCurves, find_log, read_curves
from evaluation.report.write import Lookup, ReportCollector, ReportContent, write_html_report
from evaluation.robustness import Curves
from evaluation.scoring import EvaluationResult, ScenePredictor
from limtr.files import read_json
from limtr.model_files import CONFIG_FILE, find_model_folder
from limtr.prediction import ScenePrediction
from limtr.run_report import as_plain, package_versions
from limtr.scene import Scene
from preprocessing.shards import SceneSource, data_fingerprint

REPORT_FILE = "report.html"


class Options(Protocol):
    """What of `EvaluateConfig` is needed here."""

    @property
    def data(self) -> Path:
        """Dataset of shards."""

    @property
    def checkpoint(self) -> Path | None:
        """Of the model, if one was evaluated."""

    @property
    def predictions(self) -> Path | None:
        """File of predictions, if one was evaluated."""

    @property
    def split(self) -> str:
        """Of the dataset."""

    @property
    def bucketing(self) -> Bucketing:
        """Rule of the trajectory buckets."""

    @property
    def folder(self) -> Path:
        """Where results go."""


def write_evaluation_report(
    config: Options, about: Mapping[str, Any], results: Mapping[str, EvaluationResult], source: SceneSource,
    collector: ReportCollector, *, predict: ScenePredictor | None = None, notes: Sequence[str] = (),
    robustness: Curves | None = None,
) -> Path | None:  # fmt: skip
    """Write `report.html` into the folder of the evaluation; None, with a sentence, where no object was predicted.

    Args:
        config: of the evaluation.
        about: what metrics.json says of it.
        results: by predictor, the judged one first.
        source: the scenes.
        collector: that watched the scoring.
        predict: the model; None for a file of predictions.
        notes: what a reader must not miss.
        robustness: results on degraded inputs.
    """
    if sum(result.num_scenes for result in results.values()) == 0 or not any(results[collector.main].counts.values()):
        print(f"no {REPORT_FILE}: no object of a measured class was predicted", file=sys.stderr)
        return None
    training, why = _training(config)
    judged = config.checkpoint or config.predictions
    content = ReportContent(
        title=f"LiMTR evaluation: {judged} on {config.split}",
        facts=_facts(config, about, results, collector.main, source),
        notes=notes,
        results=results,
        training=training,
        why_no_training=why,
        robustness=robustness or {},
        configuration=_configuration(config, about),
    )
    path = config.folder / REPORT_FILE
    size = write_html_report(path, content, collector, _lookup(config, source, predict))
    print(f"report to look at: {path} ({size / 1e6:.1f} MB)")
    return path


def _facts(
    config: Options, about: Mapping[str, Any], results: Mapping[str, EvaluationResult], main: str, source: SceneSource
) -> dict[str, str]:
    result = results[main]
    counts = ", ".join(f"{number} {kind.lower()}s" for kind, number in result.counts.items())
    facts = {
        "data": f"{config.data}, split {config.split} (fingerprint {data_fingerprint(config.data)})",
        "scenes": f"{result.num_scenes} of {len(source)}",
        "objects": counts,
        "trajectory buckets": f"rule of {config.bucketing}",
    }
    metadata = about.get("file_metadata", {})
    fingerprint = about.get("model_fingerprint") or metadata.get("model_fingerprint")
    licence = about.get("licence") or metadata.get("licence")
    if config.checkpoint is not None:
        facts["checkpoint"] = str(config.checkpoint)
    if config.predictions is not None:
        facts["predictions"] = f"{config.predictions}{' by ' + metadata['creator'] if metadata.get('creator') else ''}"
    if fingerprint:
        facts["model fingerprint"] = str(fingerprint)
    if licence:
        facts["licence"] = str(licence)
    return facts


def _training(config: Options) -> tuple[TrainingCurves | None, str]:
    if config.checkpoint is None:
        return None, "A file of predictions was evaluated: how its model was trained is not known here."
    path = find_log(config.checkpoint)
    return (read_curves(path), "") if path else (None, f"No training log lies beside {config.checkpoint}.")


def _configuration(config: Options, about: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "evaluation": as_plain(config),
        "about": as_plain({key: value for key, value in about.items() if key not in ("agreement", "official", "robustness")}),
        "data_fingerprint": data_fingerprint(config.data),
        "versions": package_versions(),
    }
    if config.checkpoint is not None:
        folder = find_model_folder(config.checkpoint)
        found["model"] = read_json(folder / CONFIG_FILE)
        log = find_log(config.checkpoint)
        run_report = log.with_name("report.json") if log else None
        if run_report is not None and run_report.is_file():
            run = read_json(run_report)
            found["training"] = {name: run.get(name) for name in ("config", "seed", "versions", "inputs")}
    return found


def _lookup(config: Options, source: SceneSource, predict: ScenePredictor | None) -> Lookup:
    """Scenes from the dataset; predictions from the model anew, or out of the file."""

    def look(ids: Sequence[str]) -> dict[str, tuple[Scene, ScenePrediction]]:
        row_of = {scenario_id: row for row, scenario_id in enumerate(source.scenario_ids())}
        wanted = set(ids)
        if predict is not None:
            scenes = {name: source[row_of[name]] for name in ids}
            return {name: (scene, predict([scene])[0]) for name, scene in scenes.items()}
        assert config.predictions is not None
        found = read_predictions(config.predictions, on_error=lambda error: None)  # bad scenarios were told of before
        return {item.scenario_id: (source[row_of[item.scenario_id]], item) for item in found if item.scenario_id in wanted}

    return look
