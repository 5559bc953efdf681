"""Rates and densities over a training: pure functions of (step, end), as small frozen objects that print what they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[int, int | None], float]
"""(step, end) -> value. `end` is the method's last step with an update, None where updates never end."""


def _progress(step: int, end: int | None, begin: int = 0) -> float:
    if end is None:
        raise ValueError("this schedule changes until the last update: give the method an `end`, or use a constant")
    if step >= end:
        return 1.0
    return max(0.0, (step - begin) / (end - begin))


@dataclass(frozen=True)
class Constant:
    """The same value at every step."""

    value: float

    def __call__(self, step: int, end: int | None) -> float:
        """The value at a step."""
        return self.value


@dataclass(frozen=True)
class Linear:
    """From `start` to `stop` in a straight line."""

    start: float
    stop: float = 0.0

    def __call__(self, step: int, end: int | None) -> float:
        """The value at a step."""
        return self.start + (self.stop - self.start) * _progress(step, end)


@dataclass(frozen=True)
class Cosine:
    """From `start` to `stop` along half a cosine (RigL, Evci et al. 2020, with `stop` = 0)."""

    start: float
    stop: float = 0.0

    def __call__(self, step: int, end: int | None) -> float:
        """The value at a step."""
        return self.stop + (self.start - self.stop) * (1 + math.cos(math.pi * _progress(step, end))) / 2


@dataclass(frozen=True)
class Power:
    """`start` times the share of the training that is left, to a power (RigL's "exponential" decay)."""

    start: float
    power: float = 3.0

    def __call__(self, step: int, end: int | None) -> float:
        """The value at a step."""
        return float(self.start * (1 - _progress(step, end)) ** self.power)


@dataclass(frozen=True)
class Cubic:
    """From `start` to `stop`, fast at first (gradual magnitude pruning, Zhu and Gupta 2017), beginning at step `begin`."""

    start: float
    stop: float
    begin: int = 0

    def __call__(self, step: int, end: int | None) -> float:
        """The value at a step."""
        return self.stop + (self.start - self.stop) * (1 - _progress(step, end, self.begin)) ** 3


@dataclass(frozen=True)
class Sigmoid:
    """From `start` to `stop` along a logistic curve, slow at both ends (CHTss' decay of the density, Zhang et al. 2025).

    The curve 1 / (1 + exp(-steepness (p - 1/2))) of the progress p, scaled so that both ends are exact.
    """

    start: float
    stop: float
    steepness: float = 10.0

    def __post_init__(self) -> None:
        """Validate."""
        if not self.steepness > 0:
            raise ValueError(f"Sigmoid.steepness is {self.steepness}: expected a number above 0")

    def __call__(self, step: int, end: int | None) -> float:
        """The value at a step."""
        left = math.tanh(self.steepness / 2 * (0.5 - _progress(step, end))) / math.tanh(self.steepness / 4)
        return self.stop + (self.start - self.stop) * (1 + left) / 2


@dataclass(frozen=True)
class SoftBound:
    """A density that may be exceeded between updates: `value` first, then `extra` above it, half of that after 60 % of the
    training, and exactly `value` at the end (MEST's EM&S, with the steps that CHTs use)."""

    value: float
    extra: float

    def __call__(self, step: int, end: int | None) -> float:
        """The value at a step."""
        done = _progress(step, end)
        if step == 0 or done >= 1:
            return self.value
        return min(1.0, self.value + (self.extra if done < 0.6 else self.extra / 2))


def as_schedule(value: float | Schedule) -> Schedule:
    """A number as a constant schedule; a schedule as it is."""
    return value if callable(value) else Constant(float(value))
