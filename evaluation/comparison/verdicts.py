"""What a difference says in words - and only where its interval excludes zero."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from evaluation.comparison.analyse import Comparison
from evaluation.metric_config import METRIC_NAMES
from evaluation.table import DIGITS, HIGHER_IS_BETTER

SHOWN = ("minADE", "minFDE", "miss_rate", "mAP", "soft_mAP")
NAMES = {"minADE": "minADE", "minFDE": "minFDE", "miss_rate": "miss rate", "overlap_rate": "overlap rate", "mAP": "mAP",
         "soft_mAP": "soft mAP"}  # fmt: skip
UNITS = {"minADE": " m", "minFDE": " m"}


def class_name(kind: str) -> str:
    """For people."""
    return "mean of classes" if kind == "mean" else kind.lower()


def better_or_worse(metric: str, low: float, high: float) -> str:
    """`better`, `worse`, or nothing where the interval holds zero or is unknown."""
    if np.isnan(low) or np.isnan(high) or low <= 0 <= high:
        return ""
    return "better" if (low > 0) == (metric in HIGHER_IS_BETTER) else "worse"


def verdicts(comparison: Comparison, variant: str) -> Iterator[str]:
    """A sentence for every class and metric (mean over horizons) whose interval excludes zero."""
    numbers = comparison.variants[variant]
    if numbers.difference is None:
        return
    base = comparison.variants[comparison.baseline].values.estimate
    for position, kind in comparison.shown_classes():
        for metric in SHOWN:
            at = (position, -1, METRIC_NAMES.index(metric))
            estimate, low, high = (float(part[at]) for part in _parts(comparison, variant))
            word = better_or_worse(metric, low, high)
            if word:
                digits, unit = DIGITS[metric], UNITS.get(metric, "")
                small, large = sorted((abs(low), abs(high)))
                share = f" ({abs(estimate) / abs(base[at]):.1%})" if base[at] else ""
                yield (
                    f"{class_name(kind)}, {NAMES[metric]}: {variant} is {word} than {comparison.baseline} by "
                    f"{abs(estimate):.{digits}f}{unit}{share}, {numbers.difference.level:.0%} interval "
                    f"{small:.{digits}f} to {large:.{digits}f}{unit}"
                )


def _parts(comparison: Comparison, variant: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    difference = comparison.variants[variant].difference
    assert difference is not None
    return difference.estimate, difference.low, difference.high


def count_intervals(comparison: Comparison) -> tuple[int, int]:
    """How many differences (classes alone, mean over horizons, shown metrics) were looked at, and how many exclude zero."""
    columns = [METRIC_NAMES.index(metric) for metric in SHOWN]
    rows = [position for position, _ in comparison.shown_classes()]
    looked = excluded = 0
    for numbers in comparison.variants.values():
        if numbers.difference is not None:
            looked += int((~np.isnan(numbers.difference.low[rows, -1][:, columns])).sum())
            excluded += int(numbers.difference.excludes_zero[rows, -1][:, columns].sum())
    return looked, excluded
