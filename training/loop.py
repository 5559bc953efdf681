"""The training loop: batches in, optimizer steps and checkpoints out."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

import torch

from limtr.agent_view import build_agent_batch
from limtr.batch import SceneBatch
from limtr.loss import compute_loss
from limtr.predictor import MotionPredictor
from training.augment import hide_maps
from training.checkpoint import Position
from training.config import Recipe
from training.data import SelectedScenes, epoch_batches, load_batches
from training.ema import WeightAverage
from training.schedules import learning_rate


class NonFiniteLossError(ValueError):
    """The loss became NaN or infinite; the message names the scenarios of the batch."""


class Interrupt:
    """Turns Ctrl-C and SIGTERM into a flag that the loop looks at between steps; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside the block a signal raises KeyboardInterrupt: for work that may take long and has nothing to save."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Listen inside the block (only possible in the main thread; elsewhere the flag can be set by hand)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or self._at_once:
            raise KeyboardInterrupt
        self.requested = True


@dataclass(frozen=True, kw_only=True)
class Length:
    """When a training ends, from a recipe and the number of optimizer steps in an epoch."""

    steps: int | None
    epochs: int | None
    seconds: float | None

    @classmethod
    def of(cls, recipe: Recipe) -> Length:
        """The recipe's length."""
        seconds = None if recipe.minutes is None else 60.0 * recipe.minutes
        return cls(steps=recipe.steps, epochs=recipe.epochs, seconds=seconds)

    @property
    def by_time(self) -> bool:
        """Whether the time budget alone sets the length."""
        return self.seconds is not None and self.steps is None and self.epochs is None

    def share(self, position: Position, steps_per_epoch: int) -> float:
        """How much of the training is done, 0..1: the largest of the step, epoch and time shares."""
        shares = [0.0]
        if self.steps is not None:
            shares.append(position.step / self.steps)
        if self.epochs is not None:
            shares.append(position.step / (self.epochs * steps_per_epoch))
        if self.seconds is not None:
            shares.append(position.elapsed_s / self.seconds)
        return min(max(shares), 1.0)

    def total_steps(self, steps_per_epoch: int) -> int | None:
        """Steps in all; None where a time budget alone decides."""
        known = [] if self.steps is None else [self.steps]
        if self.epochs is not None:
            known.append(self.epochs * steps_per_epoch)
        return min(known, default=None)


class Trainer:
    """A model, its optimizer and how far they have come; `run` goes on until the recipe's end or an interrupt."""

    def __init__(
        self, model: MotionPredictor, scenes: SelectedScenes, recipe: Recipe, *, device: torch.device, workers: int = 0
    ) -> None:
        self.model = model.to(device)
        self.scenes = scenes
        self.recipe = recipe
        self.device = device
        self.workers = workers
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.average = None if recipe.ema_decay is None else WeightAverage(self.model, recipe.ema_decay)
        self.position = Position()
        self.length = Length.of(recipe)
        self.interrupt = Interrupt()
        num_batches = -(-len(scenes) // recipe.batch_size)
        self.steps_per_epoch = -(-num_batches // recipe.accumulate)

    @property
    def finished(self) -> bool:
        """Whether the recipe's end is reached."""
        return self.length.share(self.position, self.steps_per_epoch) >= 1.0

    def run(self, *, on_step: Callable[[Mapping[str, float]], None], on_epoch: Callable[[], None]) -> None:
        """Train until the end, calling `on_step` with the step's numbers and `on_epoch` after each whole epoch.

        Returns early, between two steps, once `interrupt.requested` is set.

        Raises:
            NonFiniteLossError: before the step that would have spoilt the weights.
        """
        with self.interrupt.watch():
            while not self.finished and not self.interrupt.requested:
                whole = self._epoch(on_step)
                if whole:
                    self.position = replace(self.position, epoch=self.position.epoch + 1, group=0)
                    on_epoch()

    def _epoch(self, on_step: Callable[[Mapping[str, float]], None]) -> bool:
        """The rest of the current epoch; False if it was left early."""
        recipe = self.recipe
        self.scenes.epoch = self.position.epoch
        batches = epoch_batches(len(self.scenes), recipe.batch_size, recipe.seed, self.position.epoch)
        groups = [batches[start : start + recipe.accumulate] for start in range(0, len(batches), recipe.accumulate)]
        left = groups[self.position.group :]
        view = self.model.config.view
        reader = load_batches(
            self.scenes,
            [batch for group in left for batch in group],
            num_lidar_points=view.lidar_points_to_load,
            workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )
        for index, group in enumerate(left):
            start = time.monotonic()
            try:
                batches_read = [next(reader) for _ in group]
            except RuntimeError:
                # The signal may have ended readers that were still starting; the step that they were to read is not begun.
                if not self.interrupt.requested:
                    raise
                return False
            numbers = self._step(batches_read)
            elapsed = time.monotonic() - start
            position = self.position
            self.position = replace(
                position,
                step=position.step + 1,
                group=position.group + 1,
                elapsed_s=position.elapsed_s + elapsed,
                samples=position.samples + int(numbers["samples"]),
            )
            on_step({**numbers, "samples_per_s": numbers["samples"] / max(elapsed, 1e-9)})
            if self.finished or self.interrupt.requested:
                return index == len(left) - 1
        return True

    def _step(self, group: Sequence[SceneBatch]) -> dict[str, float]:
        """One optimizer step over the batches of a group; each batch counts alike."""
        rate = learning_rate(
            self.recipe.schedule, self.recipe.learning_rate, self.length.share(self.position, self.steps_per_epoch)
        )
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = rate
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        numbers: dict[str, float] = {}
        samples = 0
        for batch in group:
            if batch.num_centers == 0:  # every target of these scenes was dropped this time
                continue
            samples += batch.num_centers
            for name, value in self._backward(batch, 1.0 / len(group)).items():
                numbers[name] = numbers.get(name, 0.0) + value / len(group)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        if not torch.isfinite(norm):
            raise NonFiniteLossError(self._describe("gradient norm", float(norm), group))
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model, self.position.step + 1)
        return {**numbers, "grad_norm": float(norm), "learning_rate": rate, "samples": float(samples)}

    def _backward(self, batch: SceneBatch, weight: float) -> dict[str, float]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            agents = build_agent_batch(batch.to(self.device), self.model.config.view)
            agents = hide_maps(agents, self.recipe.drop_map) if self.recipe.drop_map else agents
            outputs = self.model.decode(agents)
            terms = compute_loss(outputs, agents, self.model.config)
        if not torch.isfinite(terms.total):
            raise NonFiniteLossError(self._describe("loss", float(terms.total.detach()), [batch]))
        (terms.total * weight).backward()  # type: ignore[no-untyped-call]
        return {"loss": float(terms.total.detach()), **{name: float(value.detach()) for name, value in terms.terms.items()}}

    def _describe(self, what: str, value: float, group: Sequence[SceneBatch]) -> str:
        scenarios = ", ".join(name for batch in group for name in batch.scenario_ids)
        return (
            f"the {what} became {value} at step {self.position.step + 1}; scenarios of the batch: {scenarios}. The weights are"
            " those of the step before. Look at these scenarios, or lower --learning-rate or --clip-norm"
        )
