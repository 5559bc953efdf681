"""Quotas and selections of one update, as pure functions."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_core import rewire


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0, 1))
def test_one_group_exchanges_the_floor_of_its_share_or_what_is_free(active: int, free: int, rate: float) -> None:
    quota = rewire.exchange_quota(torch.tensor([active]), torch.tensor([free]), rate)
    assert int(quota.total) == min(math.floor(rate * active), free)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=8), st.floats(0, 1), st.integers(0, 99))
def test_groups_exchange_their_share_and_those_with_the_worst_units_make_up_the_total(
    sizes: list[tuple[int, int]], rate: float, seed: int
) -> None:
    units = max(1, *(active + free for active, free in sizes))
    active = torch.zeros(len(sizes), units, dtype=torch.bool)
    for group, (count, _) in enumerate(sizes):
        active[group, :count] = True
    free = torch.tensor([one for _, one in sizes])
    scores = torch.randint(0, 5, active.shape, generator=torch.Generator().manual_seed(seed)).float()
    counts = active.sum(dim=1)
    done = rewire.drop(active, scores, rewire.exchange_quota(counts, free, rate), torch.zeros_like(counts))
    dropped = active & ~done.kept
    assert not (done.kept & ~active).any()
    assert dropped.sum(dim=1).tolist() == done.counts.tolist()
    most = 0
    for group, (count, room) in enumerate(sizes):
        low, high = min(math.floor(count * rate), room), min(math.ceil(count * rate), room)
        assert low <= int(dropped[group].sum()) <= high
        most += high
        if dropped[group].any() and done.kept[group].any():
            assert scores[group][dropped[group]].max() <= scores[group][done.kept[group]].min()
    low = sum(min(math.floor(count * rate), room) for count, room in sizes)
    assert int(dropped.sum()) == max(low, min(math.floor(sum(count for count, _ in sizes) * rate), most))


def test_shrinking_comes_on_top_of_the_exchange() -> None:
    active = torch.tensor([[True] * 6 + [False] * 4])
    scores = torch.arange(10.0).view(1, -1)
    done = rewire.drop(active, scores, rewire.exchange_quota(torch.tensor([4]), torch.tensor([6]), 0.5), torch.tensor([2]))
    assert done.kept.nonzero()[:, 1].tolist() == [4, 5]
    assert done.counts.tolist() == [4]


def test_dropping_over_all_layers_takes_the_worst_wherever_they_are() -> None:
    active = [torch.tensor([[True, True, False]]), torch.tensor([[True, True]])]
    scores = [torch.tensor([[5.0, 1.0, -9.0]]), torch.tensor([[2.0, 1.0]])]
    kept = rewire.drop_over_all(active, scores, torch.tensor(2))
    assert [one.tolist() for one in kept] == [[[True, False, False]], [[True, False]]]


def test_growth_may_take_back_what_was_dropped_but_nothing_that_was_kept_or_is_forbidden() -> None:
    kept = torch.tensor([[True, False, False, False]])
    allowed = torch.tensor([[True, True, True, False]])
    scores = torch.tensor([[9.0, 1.0, 2.0, 8.0]])
    assert rewire.grow(kept, allowed, scores, torch.tensor([1])).units.tolist() == [[True, False, True, False]]
    assert rewire.grow(kept, None, scores, torch.tensor([1])).units.tolist() == [[True, False, False, True]]
