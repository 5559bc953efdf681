"""`limtr predict`: predictions of scenarios as one Parquet file (format: `evaluation.predictions`)."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import limtr
from evaluation.predictions import PredictionWriter
from evaluation.scene_input import open_scenes, predictable_batches
from evaluation.scoring import choose_device
from limtr.predictor import MotionPredictor
from limtr.progress import progress
from limtr.run_report import write_report


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Options of `limtr predict`."""

    checkpoint: Path
    """Training run or model folder."""
    input: Path
    """TFRecord file of scenarios (test-split ones included), a folder of such files, or a dataset of shards."""
    out: Path
    """Parquet file to write; a report.json goes beside it as NAME.report/report.json."""
    lidar: Path | None = None
    """Folder with SCENARIO_ID.tfrecord LiDAR files, for TFRecord input [default: INPUT/lidar/SPLIT where that exists]."""
    split: str = "validation"
    """Split to read where --input is a dataset of shards or a folder in WOMD's layout: train, validation or test."""
    batch_size: int = 8
    """Scenes predicted at a time."""
    device: str = "auto"
    """auto, cpu or cuda."""
    licence: str = ""
    """Terms that go into the file [default: those of the checkpoint]."""

    def __post_init__(self) -> None:
        """Validate."""
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, is {self.batch_size}")


def run(config: PredictConfig) -> int:
    """Predict; 0 only if every scenario of the input was read and predicted."""
    model = MotionPredictor.load(config.checkpoint, device=choose_device(config.device))
    use_lidar = model.config.view.use_lidar
    if config.lidar is not None and not use_lidar:
        warnings.warn(f"--lidar {config.lidar} is ignored: the model does not read LiDAR", stacklevel=2)
    problems: list[str] = []

    def report(problem: str) -> None:
        problems.append(problem)
        print(f"limtr predict: {problem}", file=sys.stderr)

    scenes, total = open_scenes(config.input, config.split, config.lidar, with_lidar=use_lidar, report=report)
    counts = {"scenes": 0, "objects": 0, "scenes_without_targets": 0, "targets_invalid_now": 0, "scenes_without_lidar": 0}
    fingerprint, licence = model.fingerprint(), config.licence or model.licence
    creator = f"limtr {limtr.__version__}"
    writer = PredictionWriter(config.out, fingerprint=fingerprint, licence=licence, creator=creator)
    with writer, progress("predicting", total, "scenes") as advance:
        for batch in predictable_batches(scenes, config.batch_size, report):
            for scene, prediction in zip(batch, model.predict(batch), strict=True):
                counts["scenes"] += 1
                counts["objects"] += len(prediction.object_id)
                counts["scenes_without_targets"] += len(prediction.object_id) == 0
                counts["targets_invalid_now"] += len(scene.tracks_to_predict) - len(prediction.object_id)
                counts["scenes_without_lidar"] += scene.lidar is None
                writer.write(prediction)
            advance(len(batch))
        if counts["scenes"] == 0:
            raise ValueError(f"{config.input}: no scenario could be predicted ({len(problems)} problem(s)); nothing is written")
    if use_lidar and counts["scenes_without_lidar"]:
        warnings.warn(
            f"{counts['scenes_without_lidar']} of {counts['scenes']} scenes have no LiDAR, which this model reads", stacklevel=2
        )
    results = {**counts, "rows": writer.num_rows, "problems": problems, "model_fingerprint": fingerprint, "licence": licence}
    inputs = [config.checkpoint, config.input] + ([config.lidar] if config.lidar else [])
    folder = config.out.with_name(f"{config.out.name}.report")
    write_report(folder, verb="predict", inputs=inputs, config=config, seed=None, results=results)
    print(
        f"{counts['objects']} objects of {counts['scenes']} scenes ({writer.num_rows} rows) in {config.out}; "
        f"{counts['scenes_without_targets']} scenes without targets, {counts['targets_invalid_now']} targets not valid at the "
        f"current step, {len(problems)} problem(s)"
    )
    return 1 if problems else 0
