"""Ways of doing one thing, timed in turns: what the benchmarks of updates have in common."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def cpu_seconds(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of this process for every way and round; all take turns, so that a slow moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name].append(time.process_time() - start)
    return times


def spread(slow: list[float], fast: list[float]) -> tuple[float, float, float]:
    """Median, smallest and largest ratio over the rounds."""
    ratios = sorted(one / other for one, other in zip(slow, fast, strict=True))
    return statistics.median(ratios), ratios[0], ratios[-1]
