"""Means over seeds with Student's t intervals, in the standard library alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        value: the mean.
        half_width: of the two-sided interval around it; None for a single seed, which has no interval.
        count: how many seeds.
    """

    value: float
    half_width: float | None
    count: int


def mean_of(values: Sequence[float], level: float = 0.95) -> Mean:
    """Mean and Student's t interval of independent values; of paired differences too.

    Raises:
        ValueError: no values.
    """
    count = len(values)
    if not count:
        raise ValueError("mean_of: no values")
    mean = math.fsum(values) / count
    if count == 1:
        return Mean(mean, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return Mean(mean, t_quantile(level, count - 1) * deviation / math.sqrt(count), count)


def t_quantile(level: float, freedom: int) -> float:
    """The t within which Student's distribution has `level` of its mass, on both sides of 0 together.

    Args:
        level: in (0, 1).
        freedom: degrees of freedom, at least 1.
    """
    if not 0 < level < 1 or freedom < 1:
        raise ValueError(f"t_quantile: level {level} with {freedom} degrees of freedom: expected 0 < level < 1 and at least 1")
    low, high = 0.0, 1.0
    while _mass_within(high, freedom) < level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _mass_within(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def _mass_within(t: float, freedom: int) -> float:
    """P(|T| < t), by the finite series for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for index in range(freedom // 2):
        total += term
        term *= cosine**2 * (2 * index + 1 + odd) / (2 * index + 2 + odd)
    return (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total
