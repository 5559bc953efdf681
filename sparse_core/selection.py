"""Exact top-k selection: as many as asked for, candidates only, ties to the lowest index, and no wait for the device.

Counts may be tensors on the device, so that nothing has to be read back before the selection is made. Scores of candidates
that are not finite are counted, for the caller to read once for all layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_core import radix
from sparse_core.radix import number
from sparse_core.shard import Shard
from sparse_core.shard_selection import take_over_ranks

_COMPARED_UP_TO = 8  # units of a group: comparing each with each is faster than sorting many small groups
_SORT_BELOW = 1 << 13  # shorter rows are sorted: two histograms would cost more


@dataclass(frozen=True)
class Selection:
    """What was taken, (groups, units) bool, and how many candidates had a score that is not finite, a scalar tensor."""

    taken: Tensor
    not_finite: Tensor


def take_largest(scores: Tensor, candidates: Tensor, counts: Tensor, across: Shard | None = None) -> Selection:
    """In each group, take the `counts` candidates with the largest scores; equal scores by the lowest index.

    Args:
        scores: (groups, units), float32 or float64.
        candidates: (groups, units) bool. At least `counts` in every group.
        counts: (groups,) int64, on the same device.
        across: there is one group, and every rank has the part of it that belongs to its rows.
    """
    return _take(scores, candidates, counts, across, smallest=False)


def take_smallest(scores: Tensor, candidates: Tensor, counts: Tensor, across: Shard | None = None) -> Selection:
    """`take_largest` from the other end; equal scores by the lowest index too."""
    return _take(scores, candidates, counts, across, smallest=True)


def _take(scores: Tensor, candidates: Tensor, counts: Tensor, across: Shard | None, smallest: bool) -> Selection:
    groups, units = scores.shape
    if across is not None:
        [found] = take_over_ranks([scores[0]], [candidates[0]], counts, [across], smallest)
        return Selection(found.view(1, units), (candidates & ~torch.isfinite(scores)).sum())
    if groups == 1 and units >= _SORT_BELOW and scores.device.type == "cpu" and scores.dtype == torch.float32:
        taken, bad = radix.take(scores[0].contiguous(), candidates[0], number(counts), smallest)
        return Selection(taken.view(1, units), torch.tensor(bad))
    rank = ranks(-scores if smallest else scores, candidates)
    not_finite = (candidates & ~torch.isfinite(scores)).sum()
    return Selection((rank < counts.unsqueeze(1)) & candidates, not_finite)


def ranks(scores: Tensor, candidates: Tensor) -> Tensor:
    """(groups, units) whole numbers: the place of each candidate in its group, the largest score first, equal ones by index.

    Others than candidates come after all of them.
    """
    worth = torch.where(candidates, scores.nan_to_num(nan=0.0), -torch.inf)
    if scores.shape[1] <= _COMPARED_UP_TO:
        return _ranks_of_few(worth)
    order = worth.argsort(dim=1, descending=True, stable=True)
    # A candidate whose score is -inf would tie with the others; a second stable sort puts every candidate before them.
    order = order.gather(1, (~candidates).gather(1, order).to(torch.uint8).argsort(dim=1, stable=True))
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place)


def _ranks_of_few(worth: Tensor) -> Tensor:
    """`ranks` by comparing each with each; candidates are finite, the others -inf."""
    columns = worth.T.contiguous()
    place = torch.zeros(columns.shape, dtype=torch.int8, device=worth.device)
    for later in range(len(columns)):
        for earlier in range(later):
            before = columns[earlier] >= columns[later]
            place[later] += before
            place[earlier] += ~before
    return place.T
