"""One update of one or many layers, as pure functions of masks, scores and counts: what goes, what comes.

Every tensor is (groups, units). What is dropped was active; what is grown was not kept; inactive units never win or lose by
being zero, for they are no candidates. Counts are tensors on the device: nothing here waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_core.selection import ranks, take_largest, take_smallest


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


def exchange_quota(active: Tensor, free: Tensor, rate: float) -> Quota:
    """min(floor(rate * active), free) for the tensor, shared out over its groups.

    Each group gives its share, rounded down; the total is made up by groups that give one more. With one group, that is the
    formula itself; with small groups (2:4 has two active units) rounding down alone would never change anything.

    Args:
        active: (groups,) int64, active units.
        free: (groups,) int64, allowed units that are not active, before anything is dropped.
    """
    share = active.to(torch.float64) * rate
    limit = torch.minimum(active, free)
    each = torch.minimum(share.floor().to(torch.int64), limit)
    most = torch.minimum(share.ceil().to(torch.int64), limit)
    wanted = (active.sum().to(torch.float64) * rate).floor().to(torch.int64)
    extra = (torch.minimum(wanted, most.sum()) - each.sum()).clamp(min=0)
    return Quota(each, most > each, extra)


def drop(active: Tensor, scores: Tensor, quota: Quota, shrink: Tensor) -> Dropped:
    """Drop the active units with the smallest scores: `shrink` per group for good, and the quota of an exchange."""
    counts = shrink + quota.each
    if active.shape[0] == 1:
        taken = take_smallest(scores, active, counts + quota.extra)
        return Dropped(active & ~taken.taken, counts + quota.extra, taken.not_finite)
    place = ranks(-scores, active)
    next_score = torch.where(active & (place == counts.unsqueeze(1)), scores, torch.inf).amin(dim=1)
    more = take_smallest(next_score.nan_to_num().unsqueeze(0), quota.may_give_more.unsqueeze(0), quota.extra.view(1))
    counts = counts + more.taken[0]
    not_finite = (active & ~torch.isfinite(scores)).sum()
    return Dropped(active & (place >= counts.unsqueeze(1)), counts, not_finite)


def drop_over_all(active: Sequence[Tensor], scores: Sequence[Tensor], count: Tensor) -> list[Tensor]:
    """Drop the `count` units with the smallest scores over all layers (one group per layer): the kept units of each."""
    sizes = [layer.shape[1] for layer in active]
    taken = take_smallest(torch.cat(list(scores), dim=1), torch.cat(list(active), dim=1), count.view(1)).taken
    return [layer & ~part for layer, part in zip(active, torch.split(taken, sizes, dim=1), strict=True)]


@dataclass(frozen=True, eq=False)
class Grown:
    """The grow half: the new mask of units, and how many candidates had a score that is not finite."""

    units: Tensor
    not_finite: Tensor


def grow(kept: Tensor, allowed: Tensor | None, scores: Tensor, counts: Tensor) -> Grown:
    """Grow the allowed units with the largest scores that were not kept, those just dropped included."""
    candidates = ~kept if allowed is None else allowed & ~kept
    taken = take_largest(scores, candidates, counts)
    return Grown(kept | taken.taken, taken.not_finite)
