"""One update of one or many layers, as pure functions of masks, scores and counts: what goes, what comes.

Every tensor is (groups, units): what there is of them on this rank, where a `Shard` says that others have more. What is
dropped was active; what is grown was not kept; inactive units never win or lose by being zero, for they are no candidates.
Counts are tensors on the device: nothing here waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_core.selection import ranks, take_largest, take_smallest
from sparse_core.shard import Shard
from sparse_core.shard_selection import take_over_ranks


@dataclass(frozen=True, eq=False)
class Dropped:
    """The drop half of an update.

    Attributes:
        kept: (groups, units) bool.
        counts: (groups,) int64, units dropped in each group.
        not_finite: how many candidates had a score that is not finite.
    """

    kept: Tensor
    counts: Tensor
    not_finite: Tensor


@dataclass(frozen=True, eq=False)
class Quota:
    """How many units an exchange takes from each group.

    Attributes:
        each: (groups,) int64, what every group gives.
        may_give_more: (groups,) bool, the groups that may give one more.
        extra: scalar int64, how many of those do: the ones whose next unit scores lowest.
    """

    each: Tensor
    may_give_more: Tensor
    extra: Tensor

    @property
    def total(self) -> Tensor:
        """All units that the exchange takes."""
        return self.each.sum() + self.extra


def exchange_quota(active: Tensor, free: Tensor, rate: float, groups_of: Shard | None = None) -> Quota:
    """min(floor(rate * active), free) for the tensor, shared out over its groups.

    Each group gives its share, rounded down; the total is made up by groups that give one more. With one group, that is the
    formula itself; with small groups (2:4 has two active units) rounding down alone would never change anything.

    Args:
        active: (groups,) int64, active units.
        free: (groups,) int64, allowed units that are not active, before anything is dropped.
        groups_of: other ranks have groups of this tensor too.
    """
    share = active.to(torch.float64) * rate
    limit = torch.minimum(active, free)
    each = torch.minimum(share.floor().to(torch.int64), limit)
    most = torch.minimum(share.ceil().to(torch.int64), limit)
    sums = torch.stack([active.sum(), most.sum(), each.sum()])
    all_active, all_most, all_each = sums if groups_of is None else groups_of.sum(sums)
    wanted = (all_active.to(torch.float64) * rate).floor().to(torch.int64)
    extra = (torch.minimum(wanted, all_most) - all_each).clamp(min=0)
    return Quota(each, most > each, extra)


def drop(
    active: Tensor,
    scores: Tensor,
    quota: Quota,
    shrink: Tensor,
    units_of: Shard | None = None,
    groups_of: Shard | None = None,
) -> Dropped:
    """Drop the active units with the smallest scores: `shrink` per group for good, and the quota of an exchange.

    Args:
        units_of: other ranks have units of the one group too.
        groups_of: other ranks have groups of this tensor too.
    """
    counts = shrink + quota.each
    if active.shape[0] == 1 and groups_of is None:
        taken = take_smallest(scores, active, counts + quota.extra, units_of)
        return Dropped(active & ~taken.taken, counts + quota.extra, taken.not_finite)
    place = ranks(-scores, active)
    next_score = torch.where(active & (place == counts.unsqueeze(1)), scores, torch.inf).amin(dim=1)
    last = next_score.nan_to_num().unsqueeze(0)
    more = take_smallest(last, quota.may_give_more.unsqueeze(0), quota.extra.view(1), groups_of)
    counts = counts + more.taken[0]
    not_finite = (active & ~torch.isfinite(scores)).sum()
    return Dropped(active & (place >= counts.unsqueeze(1)), counts, not_finite)


def drop_over_all(
    active: Sequence[Tensor], scores: Sequence[Tensor], count: Tensor, shards: Sequence[Shard | None] = ()
) -> list[Tensor]:
    """Drop the `count` units with the smallest scores over all layers (one group per layer): the kept units of each.

    Args:
        shards: for each layer, whether other ranks have units of it too; empty: of none.
    """
    if any(shard is not None for shard in shards):
        found = take_over_ranks([one[0] for one in scores], [one[0] for one in active], count, shards, smallest=True)
        return [layer & ~part for layer, part in zip(active, found, strict=True)]
    sizes = [layer.shape[1] for layer in active]
    taken = take_smallest(torch.cat(list(scores), dim=1), torch.cat(list(active), dim=1), count.view(1)).taken
    return [layer & ~part for layer, part in zip(active, torch.split(taken, sizes, dim=1), strict=True)]


@dataclass(frozen=True, eq=False)
class Grown:
    """The grow half: the new mask of units, and how many candidates had a score that is not finite."""

    units: Tensor
    not_finite: Tensor


def grow(kept: Tensor, allowed: Tensor | None, scores: Tensor, counts: Tensor, units_of: Shard | None = None) -> Grown:
    """Grow the allowed units with the largest scores that were not kept, those just dropped included.

    Args:
        units_of: other ranks have units of the one group too.
    """
    candidates = ~kept if allowed is None else allowed & ~kept
    taken = take_largest(scores, candidates, counts, units_of)
    return Grown(kept | taken.taken, taken.not_finite)
