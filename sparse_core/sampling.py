"""Choosing at random in proportion to a score, without a generator: the soft rule of CHTs, for dropping and for growing."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_core.schedules import Schedule, as_schedule
from sparse_core.scores import Context, Score, needs_gradient, score_name, watches_every_step

_LOG_OF_SMALLEST = 745.0  # a float64 above zero is larger than exp(-745)


def sampled(score: Score, power: float | Schedule = 1.0, end: int | None = None) -> Score:
    """Keys whose k largest are k links drawn without replacement, each draw in proportion to score ** power.

    The key is power * log(score) + G, with a Gumbel number G that is hashed from (seed, update, layer, index): the same on
    every rank, and on every device to the last bits of a logarithm. As `drop` it samples the links that stay, as `grow`
    those that come. Links whose score is zero come after all others, in hashed order. With units of several weights,
    `Structure(pool="max")` draws units in proportion to the sum over their weights (the largest of Gumbel keys is a Gumbel
    key of the sum).

    Args:
        score: what the draws are in proportion to; below zero counts as zero.
        power: CHTs' temperature: 1 is plain proportion, large powers leave no chance to any but the best.
        end: the step at which a schedule of powers ends.

    Raises:
        ValueError: a power below zero, or a schedule that wants an `end` and has none.
    """
    powers = as_schedule(power)
    for step in (0, end or 1):
        if not powers(step, end) >= 0:
            raise ValueError(f"sampled: the power is {powers(step, end)} at step {step}, expected at least 0")

    def sample(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
        values = score(weight, gradient, context).to(torch.float64)
        exponent = powers(context.step, end)
        chance = _open_interval(context)
        keys = exponent * values.log() - (-chance.log()).log()
        # Below every key that a score above zero can have; what is not a number stays so, and is found.
        return torch.where(values <= 0, chance - exponent * _LOG_OF_SMALLEST - 100.0, keys)

    sample.__name__ = f"sampled({score_name(score)}, {power!r})"
    sample.needs_gradient = needs_gradient(score)  # type: ignore[attr-defined]
    sample.every_step = watches_every_step(score)  # type: ignore[attr-defined]
    return sample


def _open_interval(context: Context) -> Tensor:
    """Hashed float64 numbers inside (0, 1), of 48 bits: rare draws are told apart, and no logarithm is infinite."""
    coarse, fine = (context.uniform(salt).to(torch.float64) for salt in ("coarse", "fine"))
    return coarse + (fine + 2.0**-25) * 2.0**-24
