"""`limtr train`: shards in, a trained predictor out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from evaluation.scoring import choose_device, evaluate_model
from limtr.config import LossConfig, ModelConfig, ViewConfig
from limtr.config import limtr as limtr_preset
from limtr.config import mtr as mtr_preset
from limtr.config import tiny as tiny_preset
from limtr.intentions import load_intentions
from limtr.predictor import MotionPredictor
from limtr.run_report import write_report
from preprocessing.shards import SceneEntry, SceneSource, data_fingerprint, scene_index
from training.config import Recipe, TrainConfig
from training.data import SelectedScenes, Selection, select, spread_rows
from training.loop import Trainer
from training.session import Session

INTERRUPTED = 130
Part = TypeVar("Part", ViewConfig, LossConfig)


def model_config(recipe: Recipe) -> ModelConfig:
    """The preset's model, reading LiDAR or not as the recipe says."""
    config = {"tiny": tiny_preset, "mtr": mtr_preset, "limtr": limtr_preset}[recipe.preset]()
    if recipe.lidar and not config.view.use_lidar:
        raise ValueError(f"preset {recipe.preset!r} has no LiDAR encoder; use --preset limtr or tiny, or leave --lidar out")
    if not recipe.lidar and recipe.num_lidar_points is not None:
        warnings.warn("--num-lidar-points is ignored: the model reads no LiDAR", stacklevel=2)
    config = config if recipe.lidar else config.without_lidar()
    return replace(
        config,
        view=_with_given(config.view, recipe, "num_lidar_points", "traffic_signals"),
        loss=_with_given(config.loss, recipe, "label_smoothing", "class_weights"),
        nms_distance_m=recipe.nms_distance_m or config.nms_distance_m,
    )


def _with_given(part: Part, recipe: Recipe, *names: str) -> Part:
    """A part of the model's configuration with the recipe's values for the fields that it sets."""
    given: dict[str, Any] = {name: getattr(recipe, name) for name in names if getattr(recipe, name) is not None}
    return replace(part, **given)


def choose_targets(source: SceneSource, recipe: Recipe) -> Selection:
    """Which scenes and targets the recipe trains on.

    Raises:
        ValueError: nothing is left to train on.
    """
    index = scene_index(source.data_dir, source.split)
    tell_missing_lidar(index, recipe)
    if len(index) != len(source):
        raise ValueError(f"{source.data_dir}: {len(index)} scenes in sidecars/, {len(source)} in the shards; copy all files")
    selection = select(index, spread_rows(len(index), recipe.fraction), recipe.object_types, recipe.max_distance_m)
    print(
        f"training on {selection.num_targets} targets of {len(selection.rows)} scenes"
        f" ({selection.targets_left_out} targets and {len(index) - len(selection.rows)} of {len(index)} scenes left out)"
    )
    if not selection.rows:
        raise ValueError(
            "no training targets are left: widen --classes, --max-distance-m or --fraction, or preprocess more data"
        )
    return selection


def holds_run(folder: Path) -> bool:
    """Whether a run folder has a checkpoint to go on from."""
    return (folder / "checkpoints" / "latest.txt").exists()


def prepare_run_folder(config: TrainConfig) -> None:
    """Refuse to mix a new run with an old one.

    Raises:
        ValueError: `--out` holds a run and `--resume` was not given, or the other way round.
    """
    exists = holds_run(config.out)
    if exists and not config.resume:
        raise ValueError(f"{config.out} already holds a run; go on with --resume or choose another --out")
    if exists and config.init_from is not None:
        warnings.warn("--init-from is not read again: a resumed run goes on with its own weights", stacklevel=2)
    if config.resume and not exists:
        warnings.warn(f"--resume: {config.out} holds no checkpoint yet, so the training starts anew", stacklevel=2)


def build_model(config: TrainConfig, recipe: Recipe) -> MotionPredictor:
    """A new model with the data's intention points, on `--init-from` weights if given."""
    torch.manual_seed(recipe.seed)
    model = MotionPredictor(model_config(recipe))
    if config.init_from is not None and not holds_run(config.out):
        print(model.initialise_from(config.init_from))
    # After the initial weights, so that the queries begin where this data's futures end.
    model.set_intentions(load_intentions(config.data))
    model.licence = config.licence
    return model


def tell_missing_lidar(index: Sequence[SceneEntry], recipe: Recipe) -> None:
    """Warn if a model that reads LiDAR is about to train on scenes without points."""
    without = sum(not entry.num_lidar_points for entry in index)
    if recipe.lidar and without:
        warnings.warn(
            f"{without} of {len(index)} training scenes have no LiDAR points, and the model reads LiDAR: preprocess with the"
            " LiDAR files (`limtr preprocess --lidar`), or train with --no-lidar",
            stacklevel=2,
        )


def validation_source(data: Path) -> SceneSource | None:
    """The validation split; None, with a warning, if there is none: training shards alone are enough to train."""
    try:
        return SceneSource(data, "validation")
    except FileNotFoundError as error:
        warnings.warn(f"{error}. Until then the training goes without validation and names no best checkpoint", stacklevel=2)
        return None


def run(config: TrainConfig) -> int:
    """Train; 0 at the recipe's end, 130 if it was interrupted (a checkpoint is left, go on with --resume)."""
    prepare_run_folder(config)
    device = choose_device(config.device)
    recipe = config.recipe(on_cuda=device.type == "cuda")
    source = SceneSource(config.data, "train")
    validation = validation_source(config.data)
    fingerprint = data_fingerprint(config.data)
    model = build_model(config, recipe)
    scenes = SelectedScenes(
        source, choose_targets(source, recipe), drop_vehicles=recipe.drop_vehicles, mirror=recipe.mirror, seed=recipe.seed,
        cache_bytes=0 if config.workers else int(config.cache_gib * 2**30),
    )  # fmt: skip
    trainer = Trainer(model, scenes, recipe, device=device, workers=config.workers)

    def validate() -> Mapping[str, float]:
        if validation is None:
            return {}
        rows = range(min(len(validation), recipe.validation_scenes or len(validation)))
        return evaluate_model(model, validation, rows=rows, title="validating").summary()

    session = Session(
        trainer, config.out, validate=validate, data_fingerprint=fingerprint, licence=config.licence, keep=config.keep
    )
    latest = session.store.latest()
    if config.resume and latest is not None:
        session.restore(latest)
        print(f"going on from {latest} (step {trainer.position.step})")
    session.run()
    resolved = {"options": config, "recipe": recipe, "model": model.config}
    write_report(config.out, verb="train", inputs=[config.data], config=resolved, seed=recipe.seed, results=session.summary())
    if trainer.interrupt.requested:
        print(f"interrupted after step {trainer.position.step}; {session.store.latest()} is whole: go on with --resume")
        return INTERRUPTED
    print(f"trained {trainer.position.step} steps on {trainer.position.samples} samples: {config.out}")
    return 0
