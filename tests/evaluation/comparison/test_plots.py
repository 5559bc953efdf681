"""Pictures of comparisons: looks of variants."""

from types import SimpleNamespace
from typing import Any

import pytest

from evaluation.comparison.plots import COLORS, MARKERS, look_of, side_by_side


def test_no_two_of_many_variants_look_alike() -> None:
    comparison: Any = SimpleNamespace(variants={str(number): None for number in range(len(COLORS) * len(MARKERS))})
    assert len({look_of(comparison, name) for name in comparison.variants}) == len(comparison.variants)


@pytest.mark.parametrize(
    ("spent", "place"),
    [
        ([5.0, 105.0], [5.0, 105.0]),
        ([10.0, 110.0, 10.0, 10.1], [8.0, 110.0, 10.0, 12.1]),
        ([4.0, 4.0], [3.96, 4.04]),
        ([0.0], [0.0]),
    ],
    ids=["apart", "three alike", "all alike", "none"],
)
def test_variants_of_one_cost_stand_side_by_side(spent: list[float], place: list[float]) -> None:
    assert side_by_side(spent) == pytest.approx(place)
