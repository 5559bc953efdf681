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
    keys, digits = _keys(torch.cat(list(scores)), smallest)
    sizes = torch.tensor([len(layer) for layer in scores], device=keys.device)
    layer_of = torch.repeat_interleave(torch.arange(len(sizes), device=keys.device), sizes, output_size=len(keys))
    counted_layers = torch.tensor([one is not None or shard.rank == 0 for one in shards], device=keys.device)
    equal, need, places = torch.cat(list(candidates)), count.view(1), None
    above, taken = torch.zeros_like(equal), torch.zeros_like(equal)
    shift = sum(digits)
    for place, bits in enumerate(digits):
        shift -= bits
        bins = 1 << bits
        digit = (keys >> shift) + bins // 2 if place == 0 else (keys >> shift).bitwise_and_(bins - 1)
        bin_, need = _descend(shard.sum(_histogram(digit, equal & counted_layers[layer_of], bins)), need)
        above |= equal & (digit > bin_)
        equal = equal & (digit == bin_)
        if place == 0 and keys.device.type == "cpu":  # few are left; elsewhere, to pick them out would be a wait
            places, taken = equal.nonzero().view(-1), above
            keys, layer_of, equal = keys[places], layer_of[places], equal[places]
            above = torch.zeros_like(equal)
    chosen = above | _first_equal(equal, need, layer_of, counted_layers, shard)
    if places is None:
        return list(torch.split(chosen, [len(layer) for layer in scores]))
    taken[places[chosen]] = True
    return list(torch.split(taken, [len(layer) for layer in scores]))


def _first_equal(equal: Tensor, need: Tensor, layer_of: Tensor, counted_layers: Tensor, shard: Shard) -> Tensor:
    """The first `need` of the equal ones on all ranks, in the order of layers, and of ranks within a layer."""
    here = torch.zeros_like(counted_layers, dtype=torch.int64).index_add_(0, layer_of, equal.to(torch.int64))
    ties = torch.zeros(len(here), shard.ranks, dtype=torch.int64, device=here.device)
    ties[:, shard.rank] = here * counted_layers
    ties = shard.sum(ties)
    before = (ties.view(-1).cumsum(0) - ties.view(-1)).view_as(ties)
    first_rank = torch.where(counted_layers & (shard.rank > 0), shard.rank, 0)  # a layer that all have counts at the first
    wanted = need - before.gather(1, first_rank.unsqueeze(1)).squeeze(1)
    rank = equal.cumsum(0) - (here.cumsum(0) - here)[layer_of]
    return equal & (rank <= wanted[layer_of])


def _keys(scores: Tensor, smallest: bool) -> tuple[Tensor, tuple[int, ...]]:
    """Whole numbers in the order of the scores, or in the opposite one, and how many bits each of their digits has."""
    if scores.dtype not in _DIGITS:
        scores = scores.float()
    scores = (-scores if smallest else scores).nan_to_num(nan=0.0) + 0.0  # the sum makes -0.0 the zero that it equals
    if scores.dtype == torch.float32:
        narrow = scores.view(torch.int32)
        return narrow ^ (narrow >> 31).bitwise_and_(0x7FFFFFFF), _DIGITS[torch.float32]
    bits = scores.view(torch.int64)
    return bits ^ (bits >> 63).bitwise_and_(0x7FFFFFFFFFFFFFFF), _DIGITS[torch.float64]


def _histogram(digit: Tensor, which: Tensor, bins: int) -> Tensor:
    """(bins,) int64: how many of `which` have each digit."""
    digit = torch.where(which, digit, bins)
    if digit.device.type == "cpu":
        return torch.bincount(digit, minlength=bins + 1)[:bins]
    counts = torch.zeros(bins + 1, dtype=torch.int64, device=digit.device)  # bincount would wait for the device
    return counts.scatter_add_(0, digit.to(torch.int64), torch.ones_like(digit, dtype=torch.int64))[:bins]


def _descend(histogram: Tensor, need: Tensor) -> tuple[Tensor, Tensor]:
    """(bin, left): the bin in which the `need`-th entry from the top lies, and how many of that bin's entries are needed."""
    from_top = histogram.flip(0).cumsum(0)
    last = histogram.numel() - 1
    place = torch.searchsorted(from_top, need).clamp(max=last)
    above = torch.where(place > 0, from_top[(place - 1).clamp(min=0)], 0)
    return last - place, need - above
