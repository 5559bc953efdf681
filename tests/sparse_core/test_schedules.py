"""Schedules at their ends and in between."""

import math

import pytest

from sparse_core.schedules import Constant, Cosine, Cubic, Linear, Power, Schedule, Sigmoid, SoftBound, as_schedule


def logistic(progress: float) -> float:
    """How much is left on a logistic curve of steepness 10 whose ends are moved to 1 and 0."""
    left, start, stop = (1 / (1 + math.exp(10 * (at - 0.5))) for at in (progress, 0, 1))
    return (left - stop) / (start - stop)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(0.3), [0.3, 0.3, 0.3, 0.3, 0.3]),
        (Linear(0.4, 0.2), [0.4, 0.35, 0.3, 0.2, 0.2]),
        (Cosine(0.3), [0.3, 0.15 * (1 + math.cos(math.pi / 4)), 0.15, 0.0, 0.0]),
        (Cosine(0.5, 0.1), [0.5, 0.1 + 0.2 * (1 + math.cos(math.pi / 4)), 0.3, 0.1, 0.1]),
        (Power(0.8, 3), [0.8, 0.8 * 0.75**3, 0.1, 0.0, 0.0]),
        (Cubic(1.0, 0.2), [1.0, 0.2 + 0.8 * 0.75**3, 0.3, 0.2, 0.2]),
        (Cubic(1.0, 0.2, begin=50), [1.0, 1.0, 1.0, 0.2, 0.2]),
        (Cubic(1.0, 0.2, begin=20), [1.0, 0.2 + 0.8 * (75 / 80) ** 3, 0.2 + 0.8 * (50 / 80) ** 3, 0.2, 0.2]),
        (Sigmoid(0.5, 0.1), [0.5, 0.1 + 0.4 * logistic(0.25), 0.3, 0.1, 0.1]),
        (SoftBound(0.2, 0.1), [0.2, 0.3, 0.3, 0.2, 0.2]),
        (SoftBound(0.95, 0.1), [0.95, 1.0, 1.0, 0.95, 0.95]),
    ],
    ids=repr,
)
def test_values(schedule: Schedule, expected: list[float]) -> None:
    assert [schedule(step, 100) for step in (0, 25, 50, 100, 170)] == pytest.approx(expected, abs=1e-15)


def test_the_soft_bound_is_halved_after_three_fifths() -> None:
    assert [SoftBound(0.2, 0.1)(step, 10) for step in (5, 6, 9, 10)] == pytest.approx([0.3, 0.25, 0.25, 0.2])


@pytest.mark.parametrize(
    "schedule", [Linear(0.4), Cosine(0.3), Power(0.3), Cubic(1.0, 0.2), Sigmoid(0.5, 0.1), SoftBound(0.1, 0.1)], ids=repr
)
def test_what_changes_needs_an_end(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match="give the method an `end`"):
        schedule(1, None)
    assert Constant(0.25)(10**9, None) == 0.25


def test_numbers_are_constant_schedules() -> None:
    assert as_schedule(1)(5, None) == 1.0
    cosine = Cosine(0.3)
    assert as_schedule(cosine) is cosine


def test_a_curve_without_steepness_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Sigmoid.steepness is 0: expected a number above 0"):
        Sigmoid(0.5, 0.1, 0)
