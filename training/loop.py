"""The training loop: batches in, optimizer steps and checkpoints out."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import torch

from limtr.agent_batch import AgentBatch
from limtr.agent_view import build_agent_batch
from limtr.batch import SceneBatch
from limtr.decoder import DecoderOutputs
from limtr.loss import LossTerms, compute_loss, loss_counts
from limtr.predictor import MotionPredictor
from training.augment import hide_maps
from training.checkpoint import Position
from training.config import Recipe
from training.data import SelectedScenes, epoch_batches, load_batches, rank_share
from training.distributed import ALONE, Ranks, require_even_split
from training.ema import WeightAverage
from training.schedules import learning_rate
from training.sparse_flops import prediction_flops
from training.sparsify import SparseTraining
from training.sparsity import Sparsity


class NonFiniteLossError(ValueError):
    """The loss became NaN or infinite; the message names the scenarios of the batch."""


class Interrupt:
    """Turns Ctrl-C and SIGTERM into a flag that the loop looks at between steps; a second Ctrl-C ends at once.

    Args:
        patient: a second signal changes nothing. For ranks of a launcher, which passes on to them what the terminal or the
            scheduler has told them already, and which kills them itself when they take too long.
        stop_file: its appearance counts as a signal; for processes that no signal reaches.
    """

    def __init__(self, *, patient: bool = False, stop_file: Path | None = None) -> None:
        self.requested = False
        self.stop_file = stop_file
        self._patient = patient
        self._at_once = False

    def look(self) -> bool:
        """Whether an interrupt was requested, by now or by the stop file."""
        if self.stop_file is not None and self.stop_file.exists():
            self.requested = True
        return self.requested

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
        if (self.requested and not self._patient) or self._at_once:
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
    """A model, its optimizer and how far they have come; `run` goes on until the recipe's end or an interrupt.

    Several ranks make every step together and end with the same weights: each reads its share of the batch, and losses and
    batch norms count what all of them have. All decisions are made from numbers that they have agreed upon.

    Raises:
        ValueError: the ranks cannot share a batch evenly.
    """

    def __init__(
        self,
        model: MotionPredictor,
        scenes: SelectedScenes,
        recipe: Recipe,
        *,
        device: torch.device,
        workers: int = 0,
        ranks: Ranks = ALONE,
    ) -> None:
        require_even_split(recipe.batch_size, ranks.count)
        self.ranks = ranks
        self.model = model.to(device)
        self.parallel = ranks.wrapped(self.model)
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
        self.interrupt = Interrupt(patient=ranks.count > 1)
        self._agreed_to_stop = False
        num_batches = -(-len(scenes) // recipe.batch_size)
        self.steps_per_epoch = -(-num_batches // recipe.accumulate)
        self.sparse = None if recipe.sparsity is None else self._sparse(recipe.sparsity)
        if self.sparse is not None and self.average is not None:
            self.average = WeightAverage(self.model, self.average.decay)  # of the weights that are left

    def _sparse(self, sparsity: Sparsity) -> SparseTraining:
        total = self.length.total_steps(self.steps_per_epoch)
        return SparseTraining(
            self.model, self.optimizer, sparsity, total_steps=total, seed=self.recipe.seed,
            count_flops=lambda: prediction_flops(self.model, self.scenes),
        )  # fmt: skip

    @property
    def finished(self) -> bool:
        """Whether the recipe's end is reached."""
        return self.length.share(self.position, self.steps_per_epoch) >= 1.0

    @property
    def stopping(self) -> bool:
        """Whether to stop between two steps: as soon as an interrupt is requested, or once all ranks know of it."""
        return self._agreed_to_stop if self.ranks.count > 1 else self.interrupt.requested

    def run(self, *, on_step: Callable[[Mapping[str, float]], None], on_epoch: Callable[[], None]) -> None:
        """Train until the end, calling `on_step` with the step's numbers and `on_epoch` after each whole epoch.

        Returns early, between two steps, once `interrupt.requested` is set on any rank.

        Raises:
            NonFiniteLossError: before the step that would have spoilt the weights.
        """
        with self.interrupt.watch():
            while not self.finished and not self.stopping:
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
        shares = [rank_share(batch, self.ranks.rank, self.ranks.count) for group in left for batch in group]
        # Without a scene of its own in a short batch, a rank reads one of another for its shapes and leaves the targets out.
        borrowed = [not share for share in shares]
        view = self.model.config.view
        reader = load_batches(
            self.scenes,
            [share or batch[:1] for share, batch in zip(shares, (batch for group in left for batch in group), strict=True)],
            num_lidar_points=view.lidar_points_to_load,
            workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )
        for index, group in enumerate(left):
            start = time.monotonic()
            batches_read: list[SceneBatch] = []
            try:
                for _ in group:
                    batch = next(reader)
                    batches_read.append(batch.without_centers() if borrowed.pop(0) else batch)
            except RuntimeError:
                # The signal may have ended readers that were still starting; the step that they were to read is not begun.
                if not self.interrupt.requested or (self.ranks.count > 1 and not self.workers):
                    raise
            if self._any_rank(len(batches_read) < len(group)):
                self._agreed_to_stop = True
                return False
            numbers = self._step(batches_read)
            elapsed = self._agree(time.monotonic() - start)
            position = self.position
            self.position = replace(
                position,
                step=position.step + 1,
                group=position.group + 1,
                elapsed_s=position.elapsed_s + elapsed,
                samples=position.samples + int(numbers["samples"]),
            )
            on_step({**numbers, "samples_per_s": numbers["samples"] / max(elapsed, 1e-9)})
            if self.finished or self.stopping:
                return index == len(left) - 1
        return True

    def _any_rank(self, reading_ended: bool) -> bool:
        # In this process itself, reading ends with an error or not at all.
        return self.ranks.total([float(reading_ended)])[0] > 0 if self.workers else reading_ended

    def _agree(self, elapsed_s: float) -> float:
        """What the ranks must know alike after a step: the first one's clock, and whether any of them is to stop."""
        stop = self.interrupt.look()
        elapsed, stops = self.ranks.total([elapsed_s if self.ranks.is_first else 0.0, float(stop)])
        self._agreed_to_stop = stops > 0
        return elapsed

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
        samples = [int(count) for count in self.ranks.total([batch.num_centers for batch in group])]
        # Left out where every target of the scenes was dropped this time, on all ranks.
        filled = [index for index, count in enumerate(samples) if count]
        for index in filled:
            with self._averaging(index == filled[-1]):
                values = self._backward(group[index], 1.0 / len(group))
            for name, value in values.items():
                numbers[name] = numbers.get(name, 0.0) + value / len(group)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        if not torch.isfinite(norm):
            raise NonFiniteLossError(self._describe("gradient norm", float(norm), group))
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model, self.position.step + 1)
            if self.sparse is not None:
                self.sparse.cut(self.average)
        return {**numbers, "grad_norm": float(norm), "learning_rate": rate, "samples": float(sum(samples))}

    def _averaging(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are averaged over ranks with the last batch of a step only."""
        return nullcontext() if self.parallel is None or last else self.parallel.no_sync()

    def _backward(self, batch: SceneBatch, weight: float) -> dict[str, float]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            agents = build_agent_batch(batch.to(self.device, dtype=self._dtype), self.model.config.view)
            agents = hide_maps(agents, self.recipe.drop_map) if self.recipe.drop_map else agents
            outputs = self._decode(agents)
            terms = compute_loss(outputs, agents, self.model.config, self._counts(agents))
        values = self._summed(terms)
        if not math.isfinite(values["loss"]):
            own = [] if torch.isfinite(terms.total) else [batch]
            raise NonFiniteLossError(self._describe("loss", values["loss"], own))
        # The wrapper averages gradients over ranks, and the loss is a sum over ranks.
        (terms.total * (weight * self.ranks.count)).backward()  # type: ignore[no-untyped-call]
        return values

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def _decode(self, agents: AgentBatch) -> DecoderOutputs:
        outputs: DecoderOutputs = self.model.decode(agents) if self.parallel is None else self.parallel(agents)
        return outputs

    def _counts(self, agents: AgentBatch) -> torch.Tensor | None:
        """What all ranks' targets together are averaged over; alone, the loss counts its own."""
        return None if self.parallel is None else self.ranks.add_up(loss_counts(agents, self.model.config))

    def _summed(self, terms: LossTerms) -> dict[str, float]:
        """The loss and its parts over all ranks, as numbers."""
        named = {"loss": terms.total, **terms.terms}
        if self.parallel is None:
            return {name: float(value.detach()) for name, value in named.items()}
        together = self.ranks.add_up(torch.stack([value.detach().double() for value in named.values()]))
        return dict(zip(named, together.tolist(), strict=True))

    def _describe(self, what: str, value: float, group: Sequence[SceneBatch]) -> str:
        named = self.ranks.gathered([name for batch in group for name in batch.scenario_ids])
        scenarios = ", ".join(dict.fromkeys(name for names in named for name in names))
        return (
            f"the {what} became {value} at step {self.position.step + 1}; scenarios of the batch: {scenarios}. The weights are"
            " those of the step before. Look at these scenarios, or lower --learning-rate or --clip-norm"
        )
