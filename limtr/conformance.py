"""Comparisons of computed quantities with golden ones: the common words of every `limtr verify` verb."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One compared quantity: it agrees if the largest difference is within the tolerance (NaN never is)."""

    name: str
    difference: float
    tolerance: float
    note: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the difference is a number within the tolerance."""
        return not math.isnan(self.difference) and self.difference <= self.tolerance


def print_comparisons(comparisons: Sequence[Comparison]) -> int:
    """Print every quantity with difference and tolerance; return the exit status: 0 only if there are some and all agree."""
    for item in comparisons:
        verdict = "ok  " if item.agrees else "FAIL"
        note = f"  ({item.note})" if item.note else ""
        print(f"{verdict} {item.name:<56} difference {item.difference:.3e}  tolerance {item.tolerance:.3e}{note}")
    failures = sum(not item.agrees for item in comparisons)
    if not comparisons:
        print("FAIL nothing was compared: the golden file holds no known quantity")
        return 1
    print(f"{len(comparisons) - failures} of {len(comparisons)} quantities agree")
    return 1 if failures else 0
