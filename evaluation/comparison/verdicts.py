"""What a difference says in words - and only where its interval excludes zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from evaluation.comparison.analyse import Comparison
from evaluation.metric_config import METRIC_NAMES
from evaluation.table import DIGITS, HIGHER_IS_BETTER

Float = npt.NDArray[np.float64]
SHOWN = ("minADE", "minFDE", "miss_rate", "mAP", "soft_mAP")
NAMES = {"minADE": "minADE", "minFDE": "minFDE", "miss_rate": "miss rate", "overlap_rate": "overlap rate", "mAP": "mAP",
         "soft_mAP": "soft mAP"}  # fmt: skip
UNITS = {"minADE": " m", "minFDE": " m"}


def metric_title(metric: str) -> str:
    """A metric with its unit."""
    return NAMES[metric] + UNITS.get(metric, "")


def class_name(kind: str) -> str:
    """For people."""
    return "mean of classes" if kind == "mean" else kind.lower()


def percent(level: float) -> str:
    """A level of intervals for people: `95%`, `97.5%`."""
    return f"{100.0 * level:.6g}%"


def coverage(comparison: Comparison, names: Sequence[str] | None = None) -> str:
    """What the intervals of the differences (of some variants) are over: with one seed they say nothing of other seeds."""
    numbers = [comparison.variants[name] for name in (comparison.variants if names is None else names)]
    alone = [len(item.shared_seeds) < 2 for item in numbers if item.difference is not None]
    alone = alone or [len(item.seeds) < 2 for item in numbers]
    if all(alone):
        return "scenes (one seed)"
    return "scenes and seeds" + (" (scenes alone where there is one seed)" if any(alone) else "")


def base_of(comparison: Comparison, variant: str) -> Float:
    """(classes, H + 1, metrics) of the first variant over the seeds that it shares with another."""
    first = comparison.variants[comparison.baseline]
    rows = [first.seeds.index(seed) for seed in comparison.variants[variant].shared_seeds]
    return np.asarray(first.by_seed[rows].mean(axis=0))


def excludes_zero(low: float, high: float) -> bool:
    """Whether an interval is known and does not hold zero."""
    return not (np.isnan(low) or np.isnan(high) or low <= 0 <= high)


def better_or_worse(metric: str, low: float, high: float) -> str:
    """`better`, `worse`, or nothing where the interval holds zero or is unknown."""
    if not excludes_zero(low, high):
        return ""
    return "better" if (low > 0) == (metric in HIGHER_IS_BETTER) else "worse"


def verdicts(comparison: Comparison, variant: str) -> Iterator[str]:
    """A sentence for every class and metric (mean over horizons) whose interval excludes zero."""
    numbers = comparison.variants[variant]
    if numbers.difference is None:
        return
    base = base_of(comparison, variant)
    over = " (over scenes, one seed)" if len(numbers.shared_seeds) < 2 else ""
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
                    f"{abs(estimate):.{digits}f}{unit}{share}, {percent(numbers.difference.level)} interval "
                    f"{small:.{digits}f} to {large:.{digits}f}{unit}{over}"
                )


def _parts(comparison: Comparison, variant: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    difference = comparison.variants[variant].difference
    assert difference is not None
    return difference.estimate, difference.low, difference.high


def count_intervals(comparison: Comparison, names: Sequence[str] | None = None) -> tuple[int, int]:
    """How many intervals of differences are known (mean over horizons, shown metrics; of some variants), and exclude zero."""
    columns = [METRIC_NAMES.index(metric) for metric in SHOWN]
    rows = [position for position, _ in comparison.shown_classes()]
    looked = excluded = 0
    for name, numbers in comparison.variants.items():
        if names is not None and name not in names:
            continue
        if numbers.difference is not None:
            looked += int((~np.isnan(numbers.difference.low[rows, -1][:, columns])).sum())
            excluded += int(numbers.difference.excludes_zero[rows, -1][:, columns].sum())
    return looked, excluded
