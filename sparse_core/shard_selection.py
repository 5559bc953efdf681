"""Exact top-k over ranks that each hold some rows: histograms of the scores' bits are summed, and nothing else is sent.

What `selection` takes of the whole row, these functions take of its parts: the same candidates, equal scores by the lowest
index of the whole row, nothing read back from the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse_core.shard import Shard

_DIGITS = {torch.float32: (11, 11, 10), torch.float64: (11, 11, 11, 11, 11, 9)}  # bits of a key, the highest first


def take_over_ranks(
    scores: Sequence[Tensor],
    candidates: Sequence[Tensor],
    count: Tensor,
    shards: Sequence[Shard | None],
    smallest: bool,
) -> list[Tensor]:
    """Of the candidates of all layers on all ranks, take the `count` with the largest scores, or the smallest.

    Args:
        scores: for each layer, (n,) float32 or float64, of what this rank has of it. Scores that are not finite order somehow.
        candidates: for each layer, (n,) bool; at least `count` on all ranks together.
        count: one number, the same on every rank.
        shards: for each layer, how it is shared; None for one that every rank has whole. One mesh for all.

    Returns:
        For each layer, (n,) bool: what is taken of what is here. Equal scores go by layer, then by index in the whole weight.
    """
    shard = next(one for one in shards if one is not None)
    sizes = [len(layer) for layer in scores]
    keys, digits = _keys(torch.cat(list(scores)), smallest)
    mine = torch.cat(list(candidates))
    counted = torch.cat(
        [torch.full_like(layer, one is not None or shard.rank == 0) for layer, one in zip(candidates, shards, strict=True)]
    )
    taken, equal, need = torch.zeros_like(mine), mine, count.view(1)
    shift = sum(digits)
    for number, bits in enumerate(digits):
        shift -= bits
        bins = 1 << bits
        digit = (keys >> shift) + bins // 2 if number == 0 else (keys >> shift).bitwise_and_(bins - 1)
        bin_, need = _descend(shard.sum(_histogram(digit, equal & counted, bins)), need)
        taken |= equal & (digit > bin_)
        equal = equal & (digit == bin_)
    # `need` of the equal ones are wanted: the first in the order of layers, and of ranks within a layer.
    here = torch.stack([part.sum() for part in torch.split(equal & counted, sizes)])
    ties = torch.zeros(len(sizes), shard.ranks, dtype=torch.int64, device=keys.device)
    ties[:, shard.rank] = here
    ties = shard.sum(ties)
    before = (ties.reshape(-1).cumsum(0) - ties.reshape(-1)).view_as(ties)
    result = []
    for layer, (part, same) in enumerate(zip(torch.split(taken, sizes), torch.split(equal, sizes), strict=True)):
        earlier = before[layer, 0 if shards[layer] is None else shard.rank]
        result.append(part | (same & (same.cumsum(0) <= need - earlier)))
    return result


def _keys(scores: Tensor, smallest: bool) -> tuple[Tensor, tuple[int, ...]]:
    """int64 keys in the order of the scores, or in the opposite one, and how many bits each of their digits has."""
    if scores.dtype not in _DIGITS:
        scores = scores.float()
    scores = (-scores if smallest else scores).nan_to_num(nan=0.0) + 0.0  # the sum makes -0.0 the zero that it equals
    if scores.dtype == torch.float32:
        narrow = scores.view(torch.int32)
        return (narrow ^ (narrow >> 31).bitwise_and_(0x7FFFFFFF)).to(torch.int64), _DIGITS[torch.float32]
    bits = scores.view(torch.int64)
    return bits ^ (bits >> 63).bitwise_and_(0x7FFFFFFFFFFFFFFF), _DIGITS[torch.float64]


def _histogram(digit: Tensor, which: Tensor, bins: int) -> Tensor:
    """(bins,) int64: how many of `which` have each digit."""
    if digit.device.type == "cpu":
        return torch.bincount(digit[which], minlength=bins)
    counts = torch.zeros(bins + 1, dtype=torch.int64, device=digit.device)  # selecting them would wait for the device
    return counts.scatter_add_(0, torch.where(which, digit, bins), torch.ones_like(digit))[:bins]


def _descend(histogram: Tensor, need: Tensor) -> tuple[Tensor, Tensor]:
    """(bin, left): the bin in which the `need`-th entry from the top lies, and how many of that bin's entries are needed."""
    from_top = histogram.flip(0).cumsum(0)
    last = histogram.numel() - 1
    place = torch.searchsorted(from_top, need).clamp(max=last)
    above = torch.where(place > 0, from_top[(place - 1).clamp(min=0)], 0)
    return last - place, need - above
