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
_NOT_CANDIDATES = 64  # the first bin of the upper halves for entries that are no candidates; below are negative NaN
_NEGATIVE_INFINITE = 127  # the bin of -inf
_POSITIVE_INFINITE = _BINS // 2 + 0x7F80  # the first bin of inf and NaN
_PIECE = 1 << 16  # entries whose keys are made at once: the temporaries stay in the cache
_SPREADS = 32  # over how many bins entries are spread that need no bin of their own
_SPREAD = torch.arange(_PIECE, dtype=torch.int32) % _SPREADS
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
    return _take(scores, candidates, counts, smallest=False)


def take_smallest(scores: Tensor, candidates: Tensor, counts: Tensor) -> Selection:
    """`take_largest` from the other end; equal scores by the lowest index too."""
    return _take(scores, candidates, counts, smallest=True)


def _take(scores: Tensor, candidates: Tensor, counts: Tensor, smallest: bool) -> Selection:
    groups, units = scores.shape
    if groups == 1 and units >= _SORT_BELOW and scores.device.type == "cpu" and scores.dtype == torch.float32:
        taken, bad = _by_histogram(scores[0].contiguous(), candidates[0], number(counts), smallest)
        return Selection(taken.view(1, units), torch.tensor(bad))
    rank = ranks(-scores if smallest else scores, candidates)
    not_finite = (candidates & ~torch.isfinite(scores)).sum()
    return Selection((rank < counts.unsqueeze(1)) & candidates, not_finite)


def count_true(mask: Tensor) -> Tensor:
    """(groups, units) bool -> (groups,) int64, without the slow sum of bools on a CPU."""
    if mask.shape[0] > 1 or not mask.is_contiguous() or mask.storage_offset() % 8:
        return mask.to(torch.int32).sum(dim=1, dtype=torch.int32).to(torch.int64)
    flat = mask.view(torch.uint8).view(-1)
    whole = len(flat) // 1024 * 1024
    # Eight bools are one whole number; 128 of those are added before one of the eight bytes could overflow.
    counts = flat[:whole].view(torch.int64).view(-1, 128).sum(dim=1).view(torch.uint8).sum(dtype=torch.int64)
    return (counts + flat[whole:].sum(dtype=torch.int64)).view(1)


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


def _by_histogram(scores: Tensor, candidates: Tensor, count: int, smallest: bool) -> tuple[Tensor, int]:
    """Two histograms, each over half a key, find the threshold exactly: a few passes over the keys and no sort.

    For tensors on the CPU, where reading a number costs nothing: `tolist` waits for no device here. Entries that do not count
    are spread over some bins, since many additions to a single number wait for each other.
    """
    keys = _keys(scores, candidates, smallest)
    spare = torch.bitwise_right_shift(keys, 16).add_(_BINS // 2)
    upper = torch.bincount(spare, minlength=_BINS)
    not_finite = number(upper[:_NOT_CANDIDATES].sum() + upper[_NEGATIVE_INFINITE] + upper[_POSITIVE_INFINITE:].sum())
    # The outermost bins hold nothing but NaN; without them, nothing below overflows.
    bin_, need = _descend(upper, count, lowest=1, highest=_BINS - 2)
    base = (bin_ - _BINS // 2) << 16
    below = base - 1 - _SPREAD
    above = base + _BINS + _SPREAD
    for piece in _pieces(len(keys)):
        size = len(keys[piece])
        torch.minimum(torch.maximum(keys[piece], below[:size]), above[:size], out=spare[piece])
    inside = torch.bincount(spare.sub_(base - _SPREADS), minlength=_BINS + 2 * _SPREADS)[_SPREADS:-_SPREADS]
    bin_, left = _descend(inside, need, lowest=0, highest=_BINS - 1)
    threshold = base + bin_
    taken = keys >= threshold
    if left < number(inside[bin_]):
        ties = keys == threshold
        taken &= ~ties | (ties.cumsum(0, dtype=torch.int32) <= left)
    return taken & candidates, not_finite


def _keys(scores: Tensor, candidates: Tensor, smallest: bool) -> Tensor:
    """float32 scores as int32 numbers in the same order, or in the opposite one; entries that are no candidates last."""
    keys = torch.empty(len(scores), dtype=torch.int32)
    last = ((_NOT_CANDIDATES + _SPREAD) << 16) - 2**31  # keys that only signalling NaN has, and sums make those quiet
    for piece in _pieces(len(keys)):
        bits = (scores[piece] + 0.0).view(torch.int32)  # the sum makes -0.0 the zero that it equals
        bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))
        if smallest:
            bits.bitwise_not_()
        size = len(bits)
        highest = candidates[piece].to(torch.int32).mul_(0x7FFFFFFF - last[:size]).add_(last[:size])  # wraps around
        torch.minimum(bits, highest, out=keys[piece])
    return keys


def _pieces(size: int) -> list[slice]:
    return [slice(start, start + _PIECE) for start in range(0, size, _PIECE)]


def _descend(histogram: Tensor, need: int, lowest: int, highest: int) -> tuple[int, int]:
    """(bin, left): the bin in which the `need`-th entry from the top lies, and how many of that bin's entries are needed."""
    from_top = histogram.flip(0).cumsum(0)
    last = histogram.numel() - 1
    place = number(torch.searchsorted(from_top, need))
    bin_ = min(max(last - place, lowest), highest)
    above = 0 if bin_ == last else number(from_top[last - bin_ - 1])
    return bin_, need - above
