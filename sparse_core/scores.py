"""Scores that say which links to drop (the smallest) and which to grow (the largest).

Every score is a plain function `(weight, gradient, context) -> tensor` of the weight's shape; a new one is written the same
way, and a sum is a function of three lines. Weight and gradient arrive in float32 (float64 stays), the gradient unscaled;
it is None where no dense gradient is at hand. Only `ema` keeps something between steps, in the context's memory.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparse_core.hashed_random import key_of, uniform
from sparse_core.radix import number


@dataclass(frozen=True)
class Context:
    """What a score may know about a weight besides its value and gradient.

    Attributes:
        name: the parameter's name.
        mask: bool, of the weight's shape: the links that are active before the update.
        step: the number of the optimizer step, from 1.
        update: the number of the update, from 0 (the initial mask).
        seed: the engine's seed.
        role: "drop", "grow" or "layout": keeps their random numbers apart.
        explored: bool, of the weight's shape: links that were ever active.
        kept: bool, of the weight's shape: where something is to grow, the links that the update does not drop.
        state: the optimizer's state of this parameter.
        options: the optimizer's options for this parameter (its parameter group), such as lr.
        active: how many links are active, where it is known.
        memory: what stateful scores keep between steps, saved with the engine.
        dry: a dry run, which must leave the memory as it is.
        offset: the position of the mask's first entry in the whole weight, of which a rank under FSDP2 sees some rows.
    """

    name: str
    mask: Tensor
    step: int = 0
    update: int = 0
    seed: int = 0
    role: str = "drop"
    explored: Tensor | None = None
    kept: Tensor | None = None
    state: MutableMapping[str, Any] = field(default_factory=dict)
    options: MutableMapping[str, Any] = field(default_factory=dict)
    active: int | None = None
    memory: MutableMapping[str, Tensor] = field(default_factory=dict)
    dry: bool = False
    offset: int = 0

    def key(self, salt: str = "") -> int:
        """The hash key of this weight's random numbers at this update."""
        return key_of(self.seed, self.update, self.name, self.role, salt)

    def uniform(self, salt: str = "") -> Tensor:
        """float32 numbers in [0, 1) of the weight's shape, the same on every rank."""
        return uniform(self.mask.numel(), self.key(salt), self.mask.device, self.offset).view(self.mask.shape)

    def active_index(self) -> Tensor:
        """Flat positions of the active links, ascending (int64)."""
        count = number(self.mask.sum()) if self.active is None else self.active
        return positions(self.mask, count)


Score = Callable[[Tensor, Tensor | None, Context], Tensor]


def positions(mask: Tensor, count: int) -> Tensor:
    """The flat positions of `count` True entries, ascending, for a number known beforehand: nothing is read back."""
    running = mask.reshape(-1).cumsum(0, dtype=torch.int32)
    return torch.searchsorted(running, torch.arange(1, count + 1, dtype=torch.int32, device=mask.device))


def needs_gradient(score: Score | None) -> bool:
    """Whether a score reads the gradient; unless it says no (`score.needs_gradient = False`), it does."""
    return score is not None and bool(getattr(score, "needs_gradient", True))


def watches_every_step(score: Score | None) -> bool:
    """Whether a score wants the dense gradient of every step (`score.every_step = True`), as averages over time do."""
    return score is not None and bool(getattr(score, "every_step", False))


ELEMENTWISE = "Set `elementwise = True` on the score if every entry depends on that entry's weight, gradient and state only"
"""The advice to whoever wrote a score that has to be told apart."""


def is_elementwise(score: Score | None) -> bool:
    """Whether a score of some rows is those rows of the score (`score.elementwise = True`): it looks at no other weight.

    Under FSDP2 such a score is computed where the rows are; for others, the layer is gathered during an update.
    """
    return score is None or bool(getattr(score, "elementwise", False))


def score_name(score: Score | None) -> str:
    """What a score is called in reports and saved states."""
    return "none" if score is None else str(getattr(score, "__name__", repr(score)))


def _without_gradient(score: Score) -> Score:
    score.needs_gradient = False  # type: ignore[attr-defined]
    return score


def _elementwise(score: Score) -> Score:
    score.elementwise = True  # type: ignore[attr-defined]
    return score


def _present(gradient: Tensor | None, context: Context) -> Tensor:
    if gradient is None:
        raise RuntimeError(
            f"{context.name}: this score needs the dense gradient, which exists between the backward pass and the step of an "
            "update; ask for the update before the backward pass"
        )
    return gradient


@_elementwise
@_without_gradient
def magnitude(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """|w|."""
    return weight.abs()


@_without_gradient
def signed(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """SET's rule (Mocanu et al. 2018): the same share of the positive and of the negative weights, those nearest to zero.

    As a score: the rank by |w| among the active weights of its sign, over the number of them. Active weights that are
    exactly zero come first.
    """
    rank, size, zero = _ranks_within_sign(weight, context)
    return _spread(torch.where(zero, -1.0, rank / size), weight, context)


@_without_gradient
def signed_count(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """SET's rule as later code reads it ("Fantastic weights", 2023): the same number of positive and of negative weights."""
    rank, _, zero = _ranks_within_sign(weight, context)
    return _spread(torch.where(zero, -1.0, rank), weight, context)


def _ranks_within_sign(weight: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
    """Of the active weights: the rank by |w| within the sign from 0, the size of the sign, and which are zero."""
    values = weight.reshape(-1)[context.active_index()].to(torch.float64)
    order = values.abs().argsort(stable=True)
    positive, negative = values[order] > 0, values[order] < 0
    rank_in_order = torch.where(positive, positive.cumsum(0), negative.cumsum(0)) - 1
    size_in_order = torch.where(positive, positive.sum(), negative.sum())
    rank = torch.empty_like(rank_in_order).scatter_(0, order, rank_in_order)
    size = torch.empty_like(size_in_order).scatter_(0, order, size_in_order)
    return rank.to(torch.float64), size.clamp(min=1).to(torch.float64), values == 0


def _spread(values: Tensor, weight: Tensor, context: Context) -> Tensor:
    """Values of the active links at their places; elsewhere 0."""
    scores = torch.zeros(weight.numel(), dtype=weight.dtype, device=weight.device)
    return scores.scatter_(0, context.active_index(), values.to(weight.dtype)).view_as(weight)


@_elementwise
def gradient(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """|g|, the dense gradient (RigL, Evci et al. 2020)."""
    return _present(gradient, context).abs()


@_elementwise
def snip(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """|w g|: how much the loss would change without the link, to first order (SNIP, Lee et al. 2019)."""
    return (weight * _present(gradient, context)).abs()


@_elementwise
def taylor(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """(w g)**2 (Molchanov et al. 2019)."""
    return (weight * _present(gradient, context)).square()


@_elementwise
def sensitivity(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """|g| / |w|."""
    return _present(gradient, context).abs() / (weight.abs() + 1e-8)


@_elementwise
def reciprocal_sensitivity(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """|w| / |g|. Weights without a gradient score highest, so dead ones stay."""
    return weight.abs() / (_present(gradient, context).abs() + 1e-8)


def mest(lam: float = 1.0) -> Score:
    """|w| + lam |g| (MEST, Yuan et al. 2021)."""

    def score(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
        return weight.abs() + lam * _present(gradient, context).abs()

    score.__name__ = f"mest({lam})"
    return _elementwise(score)


@_elementwise
@_without_gradient
def random(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """Uniform random numbers."""
    return context.uniform().to(weight.dtype)


@_elementwise
@_without_gradient
def unfired(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """Random, but links that were never active come before all others (ITOP, Liu et al. 2021)."""
    scores = context.uniform().to(weight.dtype)
    return scores if context.explored is None else scores + (~context.explored).to(weight.dtype)


@_without_gradient
def survivors(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """1 for every link. As a method's `share`: growth goes to the layers in proportion to the links they have left (DSR)."""
    return torch.ones_like(weight)


def ema(score: Score, beta: float = 0.9) -> Score:
    """The exponential moving average of another score over the optimizer steps; the only score with a memory.

    A method that uses it keeps gradients dense until `step()` in every step, not only in those of an update. The memory is
    one tensor of the weight's size, saved with the engine.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"ema: beta is {beta}, expected 0 <= beta < 1")
    label = f"ema({score_name(score)}, {beta})"

    def averaged(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
        value, when = context.memory.get(label), context.memory.get(label + " step")
        if value is not None and when is not None and number(when) == context.step:
            return value
        now = score(weight, gradient, context) * (1 - beta)
        value = now if value is None else value * beta + now
        if not context.dry:
            context.memory[label], context.memory[label + " step"] = value, torch.tensor(context.step)
        return value

    averaged.__name__ = label
    averaged.every_step = True  # type: ignore[attr-defined]
    averaged.elementwise = is_elementwise(score)  # type: ignore[attr-defined]
    return averaged


@_elementwise
def _raw_gradient(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    return _present(gradient, context)


_raw_gradient.__name__ = "signed gradient"
_momentum = ema(_raw_gradient, 0.9)


@_elementwise
def momentum(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """|average of the dense gradient over time| (SNFS, Dettmers and Zettlemoyer 2019).

    The engine's own average: the optimizer's momentum of inactive links is zero here, as it should be.
    """
    return _momentum(weight, gradient, context).abs()


momentum.every_step = True  # type: ignore[attr-defined]
