"""A training session: a `Trainer` with its run folder - checkpoints, logs, validation, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch

from limtr.progress import Advance, progress
from training.checkpoint import (
    CheckpointStore,
    TrainingState,
    capture_random_state,
    optimizer_tensors,
    read_plain,
    require_same,
    require_tensors,
    restore_optimizer,
)
from training.ema import copy_named
from training.log import TrainingLog
from training.loop import Trainer
from training.rank_random import joined_states, restore_rank

LOG_EVERY_STEPS = 10
CHECKPOINT_EVERY_S = 300.0

Validate = Callable[[], Mapping[str, float]]
"""Metrics of the model as it is; `minADE` (metres) decides which checkpoint is the best."""


class Session:
    """Runs a trainer and keeps its run folder.

    Args:
        trainer: what trains.
        run: the run folder.
        validate: metrics of the trainer's model (already carrying the averaged weights where there are any).
        data_fingerprint: of the training data, for resume.
        licence: of the training data, goes into every checkpoint.
        keep: checkpoints to keep beside the best.
        checkpoint_every_s: seconds of training between checkpoints within an epoch.

    Of several ranks the first one writes; `restore`, `run` and `save` are made by all of them together.
    """

    def __init__(
        self,
        trainer: Trainer,
        run: Path,
        *,
        validate: Validate,
        data_fingerprint: str,
        licence: str,
        keep: int = 3,
        checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    ) -> None:
        self.trainer = trainer
        self.run_folder = run
        self.validate = validate
        self.data_fingerprint = data_fingerprint
        self.licence = licence
        self.store = CheckpointStore(run, keep=keep)
        self.checkpoint_every_s = checkpoint_every_s
        self.metrics: dict[str, float] = {}
        self.validated_step = 0
        self.best = float("inf")
        self.last_train: dict[str, float] = {}
        self.first_train: dict[str, float] = {}
        self._shown_s = 0

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same recipe and data.

        Raises:
            ValueError: the recipe or the data differ, or the folder holds no training state.
        """
        trainer = self.trainer
        state = CheckpointStore.load_state(path)
        require_same(state, trainer.recipe, self.data_fingerprint, path)
        require_tensors(state.tensors, self._model_tensors(), path)
        copy_named(dict(trainer.model.named_parameters()), state.tensors, "weight/")
        copy_named(dict(trainer.model.named_buffers()), state.tensors, "buffer/")
        if trainer.average is not None:
            copy_named(trainer.average.average, state.tensors, "average/")
        restore_optimizer(trainer.optimizer, state.tensors, state.optimizer_groups)
        if trainer.sparse is not None:
            trainer.sparse.restore(state.tensors, state.sparse or {"layers": {}})
        restore_rank(
            state.tensors, state.random_state,
            rank=trainer.ranks.rank, count=trainer.ranks.count, seed=trainer.recipe.seed,
        )  # fmt: skip
        trainer.position = state.position
        self.metrics = dict(state.metrics)
        self.validated_step = state.validated_step
        self.best = float(state.metrics.get("best_minADE", float("inf")))

    def run(self) -> None:
        """Train to the recipe's end or an interrupt; either way the newest checkpoint is of the last step."""
        trainer = self.trainer
        start = trainer.position
        self._shown_s = int(start.elapsed_s)
        with (
            trainer.interrupt.watch(),
            self._log(start.step) as log,
            _bar(trainer) as advance,
        ):
            saved_at = start.elapsed_s

            def on_step(numbers: Mapping[str, float]) -> None:
                nonlocal saved_at
                self.first_train = self.first_train or dict(numbers)
                self.last_train = dict(numbers)
                step = trainer.position.step
                if log is not None and (step % LOG_EVERY_STEPS == 0 or step == 1 or trainer.finished):
                    links = {} if trainer.sparse is None else trainer.sparse.numbers()
                    log.write(step, "train", {"epoch": float(trainer.position.epoch), **numbers, **links})
                seconds = int(trainer.position.elapsed_s) - self._shown_s
                self._shown_s += seconds
                advance(
                    seconds if trainer.length.by_time else 1,
                    f"step {step}, epoch {trainer.position.epoch + 1}, loss {numbers.get('loss', math.nan):.2f}",
                )
                # By the clock of the training itself, on which all ranks agree.
                if trainer.position.elapsed_s - saved_at > self.checkpoint_every_s:
                    self.save()
                    saved_at = trainer.position.elapsed_s

            def on_epoch() -> None:
                every = trainer.recipe.validate_every
                due = every > 0 and trainer.position.epoch % every == 0 and not trainer.finished
                if due and not trainer.stopping:
                    self._validate_and_save(log)

            if start.step > self.validated_step and start.group == 0:
                on_epoch()  # the validation that an interrupt put off
            trainer.run(on_step=on_step, on_epoch=on_epoch)
            if trainer.stopping:
                self.save()
            elif self.validated_step != trainer.position.step:
                self._validate_and_save(log)

    def _log(self, step: int) -> AbstractContextManager[TrainingLog | None]:
        return TrainingLog(self.run_folder, keep_until_step=step) if self.trainer.ranks.is_first else nullcontext()

    def _validate_and_save(self, log: TrainingLog | None) -> None:
        interrupt, together = self.trainer.interrupt, self.trainer.ranks.count > 1
        if together:
            # One rank alone cannot save when a validation fails, and the others would wait for one that was interrupted.
            self.save()
        try:
            with self._evaluated_weights(), nullcontext() if together else interrupt.at_once():
                metrics = dict(self.validate())
        except BaseException as error:
            # Whatever stops a validation, the steps before it are not lost; a resumed run validates first.
            if not together:
                self.save()
            if not isinstance(error, KeyboardInterrupt):
                raise
            interrupt.requested = True
            return
        self.validated_step = self.trainer.position.step
        if metrics and log is not None:
            log.write(self.trainer.position.step, "validation", metrics)
        quality = metrics.get("minADE", float("nan"))
        is_best = quality < self.best
        self.best = quality if is_best else self.best
        self.metrics = {**metrics, "best_minADE": self.best} if math.isfinite(self.best) else metrics
        self.save(best=is_best)

    def _evaluated_weights(self) -> AbstractContextManager[None]:
        average = self.trainer.average
        return nullcontext() if average is None else average.swapped_into(self.trainer.model)

    def save(self, *, best: bool = False) -> Path | None:
        """Write a checkpoint of this moment; None on the ranks that leave that to the first."""
        trainer = self.trainer
        random_tensors, random_plain = joined_states(trainer.ranks.gathered(capture_random_state()))
        if not trainer.ranks.is_first:
            return None
        tensors, groups = optimizer_tensors(trainer.optimizer)
        tensors |= random_tensors
        tensors |= {name: _stored(value) for name, value in self._model_tensors().items()}
        links, sparse = ({}, None) if trainer.sparse is None else trainer.sparse.state()
        tensors |= links
        state = TrainingState(
            position=trainer.position,
            sparse=sparse,
            recipe=read_plain(trainer.recipe),
            data_fingerprint=self.data_fingerprint,
            licence=self.licence,
            metrics={key: value for key, value in self.metrics.items() if math.isfinite(value)},
            tensors=tensors,
            optimizer_groups=groups,
            random_state=random_plain,
            validated_step=self.validated_step,
        )
        with self._evaluated_weights():
            return self.store.save(trainer.model, state, best=best)

    def _model_tensors(self) -> dict[str, torch.Tensor]:
        """Weights, buffers and averaged weights by their names in a training state."""
        trainer = self.trainer
        named: dict[str, torch.Tensor] = {f"weight/{name}": value for name, value in trainer.model.named_parameters()}
        named |= {f"buffer/{name}": value for name, value in trainer.model.named_buffers()}
        if trainer.average is not None:
            named |= {f"average/{name}": value for name, value in trainer.average.average.items()}
        return named

    def summary(self) -> dict[str, object]:
        """What goes into the run's report."""
        trainer = self.trainer
        return {
            "position": asdict(trainer.position),
            "parameters": sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad),
            "scenes": len(trainer.scenes),
            "targets": trainer.scenes.selection.num_targets,
            "scenes_left_out": trainer.scenes.selection.scenes_left_out,
            "targets_left_out": trainer.scenes.selection.targets_left_out,
            "first_step": self.first_train,
            "last_step": self.last_train,
            "validation": self.metrics,
            "data_fingerprint": self.data_fingerprint,
            "licence": self.licence,
            "ranks": trainer.ranks.count,
            "interrupted": trainer.stopping,
            "sparse": None if trainer.sparse is None else trainer.sparse.summary(),
        }


def _stored(value: torch.Tensor) -> torch.Tensor:
    # A clone, since safetensors refuses tensors that share memory and the weights go on changing.
    return value.detach().cpu().clone().contiguous()


@contextmanager
def _no_bar() -> Iterator[Advance]:
    def advance(units: int = 1, note: str = "") -> None:
        """Show nothing."""

    yield advance


def _bar(trainer: Trainer) -> AbstractContextManager[Advance]:
    """Progress in steps, or in seconds where time alone sets the length; shown by the first rank."""
    if not trainer.ranks.is_first:
        return _no_bar()
    total = trainer.length.total_steps(trainer.steps_per_epoch)
    if total is not None:
        return progress("training", total - trainer.position.step, "steps")
    assert trainer.length.seconds is not None
    return progress("training", round(trainer.length.seconds) - int(trainer.position.elapsed_s), "s")
