"""Student's intervals against tables."""

import pytest

from sparse_core.family.intervals import mean_of, t_quantile


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706205), (2, 4.302653), (3, 3.182446), (4, 2.776445), (5, 2.570582), (30, 2.042272)]
)
def test_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert t_quantile(0.95, freedom) == pytest.approx(expected, abs=2e-6)


def test_the_interval_of_five_seeds() -> None:
    found = mean_of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.value == 3.0
    assert found.half_width == pytest.approx(2.776445 * 2.5**0.5 / 5**0.5, rel=1e-6)


def test_one_seed_has_no_interval_and_none_is_an_error() -> None:
    assert mean_of([4.0]).half_width is None
    with pytest.raises(ValueError, match="no values"):
        mean_of([])
    with pytest.raises(ValueError, match="degrees"):
        t_quantile(0.95, 0)
