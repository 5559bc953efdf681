"""Selection takes exactly what a stable sort would take."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_core.radix import count_true
from sparse_core.selection import ranks, take_largest, take_smallest

SORTED, BY_HALVES, BY_WINDOW = 50, 1 << 13, (1 << 20) + 3  # lengths at which the three ways of selecting begin


def by_stable_sort(scores: Tensor, candidates: Tensor, counts: list[int], largest: bool) -> Tensor:
    """Group by group: Python's stable sort of the candidates' scores."""
    taken = torch.zeros_like(candidates)
    for group, count in enumerate(counts):
        places = candidates[group].nonzero().view(-1).tolist()
        values = scores[group].tolist()
        places.sort(key=lambda place: -values[place] if largest else values[place])
        taken[group, places[:count]] = True
    return taken


def assert_exact(scores: Tensor, candidates: Tensor, counts: list[int]) -> None:
    for take, largest in ((take_largest, True), (take_smallest, False)):
        result = take(scores, candidates, torch.tensor(counts))
        assert torch.equal(result.taken, by_stable_sort(scores, candidates, counts, largest))
        assert int(result.not_finite) == int((candidates & ~torch.isfinite(scores)).sum())


KINDS = {
    "normal": lambda n, g: torch.randn(n, generator=g),
    "few values": lambda n, g: torch.randint(-2, 3, (n,), generator=g).float(),
    "all equal": lambda n, g: torch.full((n,), -1.5),
    "both zeros": lambda n, g: torch.zeros(n).copysign(torch.randn(n, generator=g)),
    "huge": lambda n, g: torch.randn(n, generator=g) * 3e37,
    "tiny": lambda n, g: torch.randn(n, generator=g) * 1e-41,
    "neighbours": lambda n, g: torch.randint(1 << 30, (1 << 30) + 70_000, (n,), generator=g).int().view(torch.float32),
    "halves apart": lambda n, g: torch.cat([torch.rand(n // 2, generator=g), 1e9 * torch.rand(n - n // 2, generator=g)]),
    "mostly zero": lambda n, g: torch.randn(n, generator=g) * (torch.rand(n, generator=g) < 0.05),
}


@pytest.mark.parametrize("size", [SORTED, BY_HALVES, BY_WINDOW])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.003, 0.3, 0.9, 1.0])
def test_one_group_of_any_length(size: int, kind: str, share: float) -> None:
    generator = torch.Generator().manual_seed(size)
    scores = KINDS[kind](size, generator).view(1, -1)
    candidates = torch.rand(1, size, generator=generator) < 0.4
    available = int(candidates.sum())
    if size == BY_WINDOW:  # Python's sort would take long: torch's stable sort of the same numbers is the judge
        for largest in (True, False):
            worth = torch.where(candidates, scores, -math.inf if largest else math.inf)
            places = worth[0].sort(descending=largest, stable=True).indices
            expected = torch.zeros_like(candidates)
            expected[0, places[: int(share * available)]] = True
            take = take_largest if largest else take_smallest
            assert torch.equal(take(scores, candidates, torch.tensor([int(share * available)])).taken, expected)
        return
    assert_exact(scores, candidates, [int(share * available)])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_groups(data: st.DataObject) -> None:
    groups, units = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 12))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-300, 3e38, -3e38, math.inf, -math.inf, 0.1, 1e-45])
    scores = torch.tensor([[data.draw(values) for _ in range(units)] for _ in range(groups)], dtype=dtype)
    candidates = torch.tensor([[data.draw(st.booleans()) for _ in range(units)] for _ in range(groups)])
    counts = [data.draw(st.integers(0, int(row.sum()))) for row in candidates]
    assert_exact(scores, candidates, counts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_candidates_of_a_long_row(dtype: torch.dtype) -> None:
    scores = torch.randn(1, BY_HALVES, dtype=dtype, generator=torch.Generator().manual_seed(3))
    everything = torch.ones(1, BY_HALVES, dtype=torch.bool)
    for count in (0, 1, BY_HALVES - 1, BY_HALVES):
        assert_exact(scores, everything, [count])


def test_float64_is_not_rounded() -> None:
    scores = torch.ones(1, BY_HALVES, dtype=torch.float64)
    scores[0, 5000] += 1e-12
    everything = torch.ones(1, BY_HALVES, dtype=torch.bool)
    assert take_largest(scores, everything, torch.tensor([1])).taken.nonzero().tolist() == [[0, 5000]]


@pytest.mark.parametrize("size", [SORTED, BY_HALVES, BY_WINDOW])
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_counted_among_candidates_only(size: int, bad: float) -> None:
    scores = torch.rand(1, size, generator=torch.Generator().manual_seed(1))
    candidates = torch.zeros(1, size, dtype=torch.bool)
    candidates[0, : size // 2] = True
    scores[0, [1, 2, size - 1, size - 2]] = bad
    for take in (take_largest, take_smallest):
        assert int(take(scores, candidates, torch.tensor([size // 4])).not_finite) == 2


def test_ranks_put_candidates_first_even_those_at_minus_infinity() -> None:
    scores = torch.tensor([[math.inf, -math.inf, 2.0, 2.0]])
    candidates = torch.tensor([[False, True, True, True]])
    assert ranks(scores, candidates).tolist() == [[3, 2, 0, 1]]


@pytest.mark.parametrize("size", [1, 7, 1024, 5000])
def test_counting_links_of_any_layout(size: int) -> None:
    mask = torch.rand(1, size, generator=torch.Generator().manual_seed(size)) < 0.7
    expected = [sum(mask[0].tolist())]
    assert count_true(mask).tolist() == expected
    assert count_true(mask[:, 1:]).tolist() == [expected[0] - int(mask[0, 0])]
    assert count_true(mask.expand(1, size)).tolist() == expected
    assert count_true(mask.repeat(3, 1)).tolist() == expected * 3
    spaced = mask.repeat_interleave(4, dim=1)[:, ::4]  # of a single unit with several members, torch says contiguous too
    assert count_true(spaced).tolist() == expected


@pytest.mark.parametrize("units", range(1, 11))
def test_groups_of_few_units_are_ranked_as_a_sort_would(units: int) -> None:
    generator = torch.Generator().manual_seed(units)
    scores = torch.randint(-2, 3, (60, units), generator=generator).float()  # many ties
    scores[torch.rand(60, units, generator=generator) < 0.1] = -torch.inf
    candidates = torch.rand(60, units, generator=generator) < 0.6
    found = ranks(scores, candidates)
    for row, allowed, places in zip(scores.tolist(), candidates.tolist(), found.tolist(), strict=True):
        order = sorted(range(units), key=lambda one, r=row, a=allowed: (not a[one], -r[one] if a[one] else 0.0, one))
        for place, one in enumerate(order):
            assert not allowed[one] or places[one] == place
        assert sorted(places) == list(range(units))
