"""`limtr train`: shards in, a trained predictor out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from evaluation.scoring import choose_device
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
from training.distributed import (
    ALONE,
    Ranks,
    naming_lost_ranks,
    process_group,
    require_even_split,
)
from training.launcher import launcher_attempt, launcher_name, note_launchers, started_by_launcher, was_begun_by
from training.loop import Trainer
from training.rank_random import seed_rank
from training.run_lock import sole_writer
from training.session import Session
from training.validation import validate

INTERRUPTED = 130
Part = TypeVar("Part", ViewConfig, LossConfig)


def model_config(recipe: Recipe) -> ModelConfig:
    """The preset's model, reading LiDAR or not as the recipe says."""
    config = {"tiny": tiny_preset, "mtr": mtr_preset}.get(recipe.preset, limtr_preset)()
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


def refuse_second_run(config: TrainConfig) -> None:
    """Refuse to begin anew where a run is.

    Raises:
        ValueError: `--out` holds a run and `--resume` was not given.
    """
    if holds_run(config.out) and not config.resume:
        raise ValueError(f"{config.out} already holds a run; go on with --resume or choose another --out")


def prepare_run_folder(config: TrainConfig) -> None:
    """Refuse to mix a new run with an old one.

    Raises:
        ValueError: `--out` holds a run and `--resume` was not given.
    """
    refuse_second_run(config)
    exists = holds_run(config.out)
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
        tell_random_start(recipe)
    # After the initial weights, so that the queries begin where this data's futures end.
    model.set_intentions(load_intentions(config.data))
    model.licence = config.licence
    return model


def tell_random_start(recipe: Recipe) -> None:
    """Warn if links at random are about to throw most of the weights away that the training starts from."""
    if recipe.sparsity is not None and recipe.sparsity.draws_links:
        warnings.warn(
            f"--init-from with --sparsity.start random: {recipe.sparsity.method} begins with links drawn at random, and the"
            " other trained weights become zero; --sparsity.start magnitude keeps the largest",
            stacklevel=2,
        )


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
    """Train; 0 at the recipe's end, 130 if it was interrupted (a checkpoint is left, go on with --resume).

    In one process, or on Ray (`--num-workers`), or as one of the processes that torchrun started.
    """
    if started_by_launcher():
        refuse_ray_options(config, "torchrun starts the processes already")
        with process_group(config.device, config.rank_timeout_s) as ranks:
            with naming_lost_ranks(ranks, lambda: "at the start"):
                launchers = ranks.gathered(launcher_name())
            with ranks.all_or_none():
                # Only what this launch began: a first attempt that was refused must not pass as the next one.
                again = launcher_attempt() > 0 and was_begun_by(config.out, launchers)
                config = replace(config, resume=config.resume or again)
                prepare_run_folder(config)
            return train(config, ranks, launchers=launchers)
    if config.num_workers:
        from training.launch import train_on_ray

        prepare_run_folder(config)
        return train_on_ray(config)
    refuse_ray_options(config, "they are for --num-workers; one process takes --device cuda")
    prepare_run_folder(config)
    return train(config, replace(ALONE, device=choose_device(config.device)))


def refuse_ray_options(config: TrainConfig, why: str) -> None:
    """Refuse options that nothing would heed.

    Raises:
        ValueError: names them and says why.
    """
    names = ("num_workers", "gpu", "ray_address", "max_failures")
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(config, name) != defaults[name]]
    if given:
        raise ValueError(f"leave out {', '.join(given)}: {why}")


def train(config: TrainConfig, ranks: Ranks, stop_file: Path | None = None, *, launchers: Sequence[str] = ()) -> int:
    """Train as one of `ranks` on its device; the exit status as `run` says.

    Args:
        config: options; its run folder may be gone on with.
        ranks: this process among the others.
        stop_file: ends the training as an interrupt does, once it is there.
        launchers: who started the ranks and may start them again; noted in the run folder.

    Raises:
        NotReadyError: options, data or checkpoint are not as they must be; alone, as that error says it.
        RankLostError: another rank died or hangs.
    """
    trainer: Trainer | None = None

    def where() -> str:
        return "at the start" if trainer is None else f"at step {trainer.position.step + 1}"

    with naming_lost_ranks(ranks, where), ranks.quiet(), ExitStack() as stack:
        with ranks.all_or_none():
            parts = prepare(config, ranks)
            if ranks.is_first:
                stack.enter_context(sole_writer(config.out))
                refuse_second_run(config)
                if launchers:
                    note_launchers(config.out, launchers)
        session = assemble(config, ranks, parts)
        trainer = session.trainer
        trainer.interrupt.stop_file = stop_file
        go_on(session, resume=config.resume)
        session.run()
        return finish(config, session) if ranks.is_first else end_status(trainer)


def go_on(session: Session, *, resume: bool) -> None:
    """Continue from the newest checkpoint of the run folder, if that is wanted and there is one. A collective."""
    ranks = session.trainer.ranks
    latest = None
    with ranks.all_or_none():
        if resume and ranks.is_first:
            latest = session.store.latest()
    latest = ranks.from_first(latest)
    if latest is None:
        return
    with ranks.all_or_none():
        session.restore(latest)
    print(f"going on from {latest} (step {session.trainer.position.step})")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a rank reads and makes before it meets the others."""

    recipe: Recipe
    model: MotionPredictor
    scenes: SelectedScenes
    validation: SceneSource | None
    fingerprint: str
    """Of the data."""


def prepare(config: TrainConfig, ranks: Ranks) -> Parts:
    """Read the dataset and make the model; no collective.

    Raises:
        ValueError: options and data do not go together.
        OSError: something is missing.
    """
    recipe = config.recipe(on_cuda=ranks.device.type == "cuda")
    require_even_split(recipe.batch_size, ranks.count)
    validation = validation_source(config.data)
    fingerprint = data_fingerprint(config.data)
    model = build_model(config, recipe)
    source = SceneSource(config.data, "train", lidar_points=model.config.view.lidar_points_to_load)
    seed_rank(recipe.seed, ranks.rank)
    selection = choose_targets(source, recipe)
    scenes = SelectedScenes(
        source, selection, drop_vehicles=recipe.drop_vehicles, mirror=recipe.mirror, seed=recipe.seed,
        cache_bytes=0 if config.workers else int(config.cache_gib * 2**30),
    )  # fmt: skip
    return Parts(recipe=recipe, model=model, scenes=scenes, validation=validation, fingerprint=fingerprint)


def assemble(config: TrainConfig, ranks: Ranks, parts: Parts) -> Session:
    """The trainer and its run folder. A collective, if there are several ranks."""
    trainer = Trainer(parts.model, parts.scenes, parts.recipe, device=ranks.device, workers=config.workers, ranks=ranks)
    validation = parts.validation

    def validation_metrics() -> Mapping[str, float]:
        count = 0 if validation is None else min(len(validation), parts.recipe.validation_scenes or len(validation))
        return validate(parts.model, validation, count, ranks)

    return Session(
        trainer, config.out, validate=validation_metrics, data_fingerprint=parts.fingerprint, licence=config.licence,
        keep=config.keep, checkpoint_every_s=config.checkpoint_every_s,
    )  # fmt: skip


def end_status(trainer: Trainer) -> int:
    """The exit status of a training that came to an end."""
    return INTERRUPTED if trainer.stopping else 0


def finish(config: TrainConfig, session: Session) -> int:
    """Write the report and say how it went; the exit status."""
    trainer = session.trainer
    recipe = trainer.recipe
    resolved = {"options": config, "recipe": recipe, "model": trainer.model.config}
    write_report(config.out, verb="train", inputs=[config.data], config=resolved, seed=recipe.seed, results=session.summary())
    if trainer.stopping:
        print(f"interrupted after step {trainer.position.step}; {session.store.latest()} is whole: go on with --resume")
    else:
        print(f"trained {trainer.position.step} steps on {trainer.position.samples} samples: {config.out}")
    return end_status(trainer)
