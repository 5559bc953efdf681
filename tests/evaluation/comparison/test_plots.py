"""Pictures of comparisons: looks of variants."""

from types import SimpleNamespace
from typing import Any

from evaluation.comparison.plots import COLORS, MARKERS, look_of


def test_no_two_of_many_variants_look_alike() -> None:
    comparison: Any = SimpleNamespace(variants={str(number): None for number in range(len(COLORS) * len(MARKERS))})
    assert len({look_of(comparison, name) for name in comparison.variants}) == len(comparison.variants)
