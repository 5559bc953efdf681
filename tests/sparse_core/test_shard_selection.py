"""What ranks take together, each of its part, is what is taken of the whole. The ranks are threads that wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_core import Method, Structure, layout, rewire
from sparse_core.hashed_random import uniform
from sparse_core.layer import SparseLayer
from sparse_core.selection import take_largest, take_smallest
from sparse_core.shard import Shard
from sparse_core.shard_grid import grid_of_shard
from sparse_core.shard_selection import take_over_ranks
from sparse_core.structure import Grid
from sparse_core.targets import Target
from sparse_core.update import group_counts


@dataclass
class Meeting:
    """Where the threads add up what each brings."""

    ranks: int
    brought: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.ranks)

    def sum(self, rank: int, tensor: Tensor) -> Tensor:
        self.brought[rank] = tensor
        self.barrier.wait(timeout=30)
        total = torch.stack([self.brought[one] for one in range(self.ranks)]).sum(0)
        self.barrier.wait(timeout=30)
        return total


@dataclass(frozen=True, eq=False)
class ThreadShard(Shard):
    def sum(self, tensor: Tensor) -> Tensor:
        return self.mesh.sum(self.rank, tensor)


def shards(shape: tuple[int, ...], rows: list[int], meeting: Meeting) -> list[ThreadShard]:
    starts = [sum(rows[:rank]) for rank in range(len(rows))]
    return [ThreadShard(shape, starts[rank], rows[rank], rank, len(rows), meeting) for rank in range(len(rows))]


def on_threads(ranks: int, work: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(work, range(ranks)))


SPLITS = [[4, 4, 1], [9, 0, 0], [0, 3, 6], [5, 4]]


@pytest.mark.parametrize("rows", SPLITS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [3, 10**9], ids=["ties", "no ties"])
def test_a_row_over_ranks_is_taken_as_one_row(rows: list[int], dtype: torch.dtype, levels: int) -> None:
    torch.manual_seed(levels % 97)
    whole = (torch.randint(-levels, levels, (9, 7)).to(dtype) / 3) * torch.tensor(1e-3, dtype=dtype) ** torch.rand(9, 7)
    whole = whole.round() if levels == 3 else whole
    whole[0, :3] = torch.tensor([0.0, -0.0, 0.0])
    candidates = torch.rand(9, 7) < 0.7
    for count in (0, 1, 17, int(candidates.sum())):
        for smallest, take in ((True, take_smallest), (False, take_largest)):
            expected = take(whole.reshape(1, -1), candidates.reshape(1, -1), torch.tensor([count])).taken.view(9, 7)
            parts = shards((9, 7), rows, Meeting(len(rows)))

            def on_rank(rank: int, parts: Any = parts, take: Any = take, n: int = count) -> Tensor:
                here, which = parts[rank].of(whole), parts[rank].of(candidates)
                found = take(here.reshape(1, -1), which.reshape(1, -1), torch.tensor([n]), parts[rank])
                return found.taken.view(here.shape)  # type: ignore[attr-defined]

            assert torch.equal(torch.cat(on_threads(len(rows), on_rank)), expected), (count, smallest)


@pytest.mark.parametrize("levels", [2, 10**6], ids=["ties", "no ties"])
def test_layers_over_ranks_and_layers_that_all_have_compete_as_one_row(levels: int) -> None:
    torch.manual_seed(0)
    wholes = [torch.randint(0, levels, shape).double() for shape in ((9, 4), (3, 5), (2, 8))]
    candidates = [torch.rand(layer.shape) < 0.8 for layer in wholes]
    for count in (0, 5, 31):
        row, which = (torch.cat([layer.reshape(-1) for layer in side]).view(1, -1) for side in (wholes, candidates))
        expected = take_smallest(row, which, torch.tensor([count])).taken[0].split([36, 15, 16])
        meeting = Meeting(2)
        first, last = shards((9, 4), [5, 4], meeting), shards((2, 8), [2, 0], meeting)

        def on_rank(rank: int, n: int = count, first: Any = first, last: Any = last) -> list[Tensor]:  # type: ignore[type-arg]
            cut = [first[rank], None, last[rank]]  # every rank has the second layer whole
            here = [
                [(layer if shard is None else shard.of(layer)).reshape(-1) for layer, shard in zip(side, cut, strict=True)]
                for side in (wholes, candidates)
            ]
            return take_over_ranks(here[0], here[1], torch.tensor(n), cut, smallest=True)

        found = on_threads(2, on_rank)
        assert torch.equal(torch.cat([found[0][0], found[1][0]]), expected[0])
        assert torch.equal(found[0][1], expected[1])
        assert torch.equal(found[1][1], expected[1])
        assert torch.equal(torch.cat([found[0][2], found[1][2]]), expected[2])


@pytest.mark.parametrize("rows", SPLITS, ids=str)
@pytest.mark.parametrize("group", ["row", 4, 2])
def test_groups_over_ranks_give_one_more_as_groups_of_one_tensor_do(rows: list[int], group: str | int) -> None:
    torch.manual_seed(1)
    grid = Structure(group=group).fit("w", (9, 8))
    scores = torch.randint(0, 4, (9, 8)).double()
    active = torch.zeros_like(grid.units_of(scores), dtype=torch.bool)
    active[:, : grid.units // 2] = True
    mask, counts = grid.mask_of(active), active.sum(1)
    quota = rewire.exchange_quota(counts, counts, 0.3)
    expected = grid.mask_of(rewire.drop(active, grid.scores_of(scores), quota, torch.zeros_like(counts)).kept)
    assert quota.extra > 0
    parts = shards((9, 8), rows, Meeting(len(rows)))

    def on_rank(rank: int) -> Tensor:
        shard = parts[rank]
        here = grid_of_shard("w", grid, shard)
        units = here.units_of(shard.of(mask))
        own = units.sum(1)
        share = rewire.exchange_quota(own, own, 0.3, shard)
        done = rewire.drop(units, here.scores_of(shard.of(scores)), share, torch.zeros_like(own), groups_of=shard)
        return here.mask_of(done.kept)

    assert torch.equal(torch.cat(on_threads(len(rows), on_rank)), expected)


def test_scores_that_are_not_finite_are_counted_where_they_are() -> None:
    parts = shards((4, 1), [2, 2], Meeting(2))
    scores = torch.tensor([[float("nan"), 1.0], [2.0, float("inf")]])

    def on_rank(rank: int) -> int:
        which = torch.ones(1, 2, dtype=torch.bool)
        return int(take_largest(scores[rank : rank + 1], which, torch.tensor([2]), parts[rank]).not_finite)

    assert on_threads(2, on_rank) == [1, 1]


@pytest.mark.parametrize("start", [0, 5, 65_535, 65_536, 200_001, 2**32 - 100, 2**32 + 7])
def test_random_numbers_of_some_rows_are_those_of_the_whole(start: int) -> None:
    part = uniform(70_000, 12345, start=start)
    if start < 2**31:
        assert torch.equal(part, uniform(start + 70_000, 12345)[start:])
    assert torch.equal(part[1000:], uniform(69_000, 12345, start=start + 1000))
    assert len(part.unique()) > 60_000


@pytest.mark.parametrize("rows", [[2, 2, 1], [1, 0, 4], [5]], ids=str)
@pytest.mark.parametrize(("group", "unit", "columns"), [("row", "weight", 20), (4, "weight", 4), ("row", "kernel", 6)])
@pytest.mark.parametrize("fixed", [None, 0.25])
def test_a_rank_with_a_single_row_of_many_has_its_share_of_links(
    rows: list[int], group: str | int, unit: str, columns: int, fixed: float | None
) -> None:
    shape = (5, columns, 3) if unit == "kernel" else (5, columns)
    method = Method(density=0.5, layout=layout.uniform(), structure=Structure(unit=unit, group=group), every=2)
    grid = method.structure.fit("w", shape)

    def counts(grid: Grid, shard: Shard | None) -> list[int]:
        target = Target("w", nn.Module(), "w", nn.Parameter(torch.zeros(shape)))
        mask = torch.zeros(grid.shape, dtype=torch.bool)
        return group_counts([SparseLayer(target, grid, mask, mask, [], fixed, shard=shard)], method, 0.5)[0]

    parts = shards(shape, rows, Meeting(len(rows)))
    found = [count for part in parts for count in counts(grid_of_shard("w", grid, part), part)]
    assert found == counts(grid, None)


@pytest.mark.parametrize("rows", SPLITS, ids=str)
@pytest.mark.parametrize("group", ["tensor", "row"])
def test_a_rank_knows_its_part_of_the_allowed_region_and_the_room_of_the_whole(rows: list[int], group: str) -> None:
    region = (torch.arange(9 * 7).view(9, 7) % 5 > 1) & (torch.arange(9) < 7).view(9, 1)
    whole = Structure(group=group, allowed={"w": region}).fit("w", (9, 7))
    parts = shards((9, 7), rows, Meeting(len(rows)))
    grids = [grid_of_shard("w", whole, part) for part in parts]
    for grid, part in zip(grids, parts, strict=True):
        assert part.offset == part.start * 7
        assert torch.equal(grid.mask_of(grid.allowed_units(region.device)), part.of(region))
        if group == "tensor":
            assert grid.room() == whole.room()
    if group == "row":
        assert [room for grid in grids for room in grid.room()] == whole.room()
