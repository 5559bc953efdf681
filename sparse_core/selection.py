"""Exact top-k selection: as many as asked for, candidates only, ties to the lowest index, and no wait for the device.

Counts may be tensors on the device, so that nothing has to be read back before the selection is made. Scores of candidates
that are not finite are counted, for the caller to read once for all layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_BINS = 1 << 16  # a histogram over one half of a 32-bit key
_NEGATIVE_INFINITE = slice(1, 0x80)  # bins of the upper halves of -inf and negative NaN; bin 0 holds what is no candidate
_POSITIVE_INFINITE = slice(_BINS // 2 + 0x7F80, _BINS)  # of inf and NaN
_SORT_BELOW = 1 << 13  # short rows are sorted: two histograms would cost more


def number(tensor: Tensor) -> int:
    """A whole number read from a one-element tensor."""
    value: Any = tensor.tolist()
    return int(value[0] if isinstance(value, list) else value)


@dataclass(frozen=True)
class Selection:
    """What was taken, (groups, units) bool, and how many candidates had a score that is not finite, a scalar tensor."""

    taken: Tensor
    not_finite: Tensor


def take_largest(scores: Tensor, candidates: Tensor, counts: Tensor) -> Selection:
    """In each group, take the `counts` candidates with the largest scores; equal scores by the lowest index.

    Args:
        scores: (groups, units), float32 or float64.
        candidates: (groups, units) bool. At least `counts` in every group.
        counts: (groups,) int64, on the same device.
    """
    groups, units = scores.shape
    if groups == 1 and units >= _SORT_BELOW and scores.device.type == "cpu" and scores.dtype == torch.float32:
        taken, bad = _by_histogram(scores[0].contiguous(), candidates[0], number(counts))
        return Selection(taken.view(1, units), torch.tensor(bad))
    rank = ranks(scores, candidates)
    not_finite = (candidates & ~torch.isfinite(scores)).sum()
    return Selection((rank < counts.unsqueeze(1)) & candidates, not_finite)


def take_smallest(scores: Tensor, candidates: Tensor, counts: Tensor) -> Selection:
    """`take_largest` from the other end; equal scores by the lowest index too."""
    return take_largest(-scores, candidates, counts)


def ranks(scores: Tensor, candidates: Tensor) -> Tensor:
    """(groups, units) int64: the place of each candidate in its group, the largest score first, equal ones by index.

    Others than candidates come after all of them.
    """
    worth = torch.where(candidates, scores.nan_to_num(nan=0.0), -torch.inf)
    order = worth.argsort(dim=1, descending=True, stable=True)
    # A candidate whose score is -inf would tie with the others; a second stable sort puts every candidate before them.
    order = order.gather(1, (~candidates).gather(1, order).to(torch.uint8).argsort(dim=1, stable=True))
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place)


def _by_histogram(scores: Tensor, candidates: Tensor, count: int) -> tuple[Tensor, int]:
    """Two histograms, each over half a key, find the threshold exactly: a dozen passes over the keys and no sort.

    For tensors on the CPU, where reading a number costs nothing: `tolist` waits for no device here.
    """
    keys, spare = _keys(scores, candidates)
    torch.bitwise_right_shift(keys, 16, out=spare)
    upper = torch.bincount(spare.add_(_BINS // 2), minlength=_BINS)
    not_finite = number(upper[_NEGATIVE_INFINITE].sum() + upper[_POSITIVE_INFINITE].sum())
    # The outermost bins hold excluded entries and NaN alone; without them, nothing below overflows.
    bin_, need = _descend(upper, count, lowest=1, highest=_BINS - 2)
    base = (bin_ - _BINS // 2) << 16
    torch.clamp(keys, base - 1, base + _BINS, out=spare)  # what lies outside of the bin falls on the places beside it
    inside = torch.bincount(spare.sub_(base - 1), minlength=_BINS + 2)[1:-1]
    bin_, left = _descend(inside, need, lowest=0, highest=_BINS - 1)
    threshold = base + bin_
    taken = keys >= threshold
    ties = number(inside[bin_])
    if left < ties:
        equal = keys == threshold
        taken &= ~(equal & (equal.cumsum(0, dtype=torch.int32) > left))
    return taken & candidates, not_finite


def _keys(scores: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """float32 scores as int32 numbers in the same order, entries that are no candidates last; and a spare tensor alike."""
    bits = scores.view(torch.int32)
    keys = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)
    highest = candidates.to(torch.int32).sub_(1).bitwise_xor_(0x7FFFFFFF)  # the largest key, or the smallest
    return torch.minimum(keys, highest, out=keys), highest


def _descend(histogram: Tensor, need: int, lowest: int, highest: int) -> tuple[int, int]:
    """(bin, left): the bin in which the `need`-th entry from the top lies, and how many of that bin's entries are needed."""
    from_top = histogram.flip(0).cumsum(0)
    last = histogram.numel() - 1
    place = number(torch.searchsorted(from_top, need))
    bin_ = min(max(last - place, lowest), highest)
    above = 0 if bin_ == last else number(from_top[last - bin_ - 1])
    return bin_, need - above
