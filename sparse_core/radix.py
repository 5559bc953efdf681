"""Top-k of a long row of float32 scores on a CPU, without sorting it: histograms of the scores' bits find the threshold.

A float32 is turned into an int32 key of the same order. The k-th largest key is then found exactly, by counting keys: either
half a key at a time, or in a window that a sample of the row points at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_BINS = 1 << 16  # a histogram over one half of a 32-bit key
_PIECE = 1 << 16  # entries whose keys are made at once: the temporaries stay in the cache
_SPREADS = (
    32  # over how many bins entries are spread that need no bin of their own: additions to one number wait for each other
)
_SPREAD = torch.arange(_PIECE, dtype=torch.int32) % _SPREADS

# Keys from the lowest: negative NaN, -inf, finite numbers, inf, NaN. Here by the upper half of the key, counted from 0.
_BIN_OF_NO_CANDIDATE = 64  # keys that only signalling NaN could have, and arithmetic makes those quiet
_BIN_OF_NEGATIVE_INF = 127
_FIRST_FINITE_BIN = 128
_BIN_OF_INF = _BINS // 2 + 0x7F80

_WINDOW = 1 << 18  # keys around the sampled threshold that get a bin each
_SAMPLE = 1 << 16
_WINDOW_FROM = 1 << 20  # shorter rows are counted by halves: a sample would not save a pass


def take(scores: Tensor, candidates: Tensor, count: int, smallest: bool) -> tuple[Tensor, int]:
    """Take the `count` candidates with the largest scores, or the smallest; equal scores by the lowest index.

    Args:
        scores: (n,) float32, contiguous, on the CPU.
        candidates: (n,) bool, at least `count` of them.

    Returns:
        (n,) bool, and how many candidates have a score that is not finite.
    """
    found = _threshold_by_window(scores, candidates, count, smallest) if len(scores) >= _WINDOW_FROM else None
    threshold, ties_wanted, ties, not_finite = found or _threshold_by_halves(scores, candidates, count, smallest)
    if not_finite:  # NaN of one sign is counted where it is no candidate too
        not_finite = number((candidates & ~torch.isfinite(scores)).sum())
    border = _score_of(threshold, smallest)
    taken = (scores <= border if smallest else scores >= border) & candidates
    if ties_wanted < ties:
        equal = (scores == border) & candidates
        taken &= ~equal | (equal.cumsum(0, dtype=torch.int32) <= ties_wanted)
    return taken, not_finite


def number(tensor: Tensor) -> int:
    """A whole number read from a one-element tensor."""
    value: Any = tensor.tolist()
    return int(value[0] if isinstance(value, list) else value)


def count_true(mask: Tensor) -> Tensor:
    """(groups, units) bool -> (groups,) int64, without the slow sum of bools on a CPU."""
    if mask.shape[0] != 1 or mask.numel() == 0 or not mask.is_contiguous() or mask.stride(1) != 1 or mask.storage_offset() % 8:
        return mask.to(torch.int32).sum(dim=1, dtype=torch.int32).to(torch.int64)
    flat = mask.view(torch.uint8).view(-1)
    whole = len(flat) // 1024 * 1024
    # Eight bools are one whole number; 128 of those are added before one of the eight bytes could overflow.
    counts = flat[:whole].view(torch.int64).view(-1, 128).sum(dim=1).view(torch.uint8).sum(dtype=torch.int64)
    return (counts + flat[whole:].sum(dtype=torch.int64)).view(1)


def _threshold_by_halves(scores: Tensor, candidates: Tensor, count: int, smallest: bool) -> tuple[int, int, int, int]:
    """(key of the last one taken, how many of that key are taken, how many there are, scores that are not finite)."""
    keys = torch.empty(len(scores), dtype=torch.int32)
    for piece, made in _keys(scores, candidates, smallest, _BIN_OF_NO_CANDIDATE):
        keys[piece] = made
    spare = torch.bitwise_right_shift(keys, 16).add_(_BINS // 2)
    upper = torch.bincount(spare, minlength=_BINS)
    not_finite = number(upper[:_BIN_OF_NO_CANDIDATE].sum() + upper[_BIN_OF_NEGATIVE_INF] + upper[_BIN_OF_INF:].sum())
    # The outermost bins hold nothing but NaN; without them, nothing below overflows.
    bin_, need = _descend(upper, count, lowest=1, highest=_BINS - 2)
    base = (bin_ - _BINS // 2) << 16
    below, above = base - 1 - _SPREAD, base + _BINS + _SPREAD
    for piece in _pieces(len(keys)):
        size = len(keys[piece])
        torch.minimum(torch.maximum(keys[piece], below[:size]), above[:size], out=spare[piece])
    inside = torch.bincount(spare.sub_(base - _SPREADS), minlength=_BINS + 2 * _SPREADS)[_SPREADS:-_SPREADS]
    bin_, left = _descend(inside, need, lowest=0, highest=_BINS - 1)
    return base + bin_, left, number(inside[bin_]), not_finite


def _threshold_by_window(scores: Tensor, candidates: Tensor, count: int, smallest: bool) -> tuple[int, int, int, int] | None:
    """The same from one pass: a sample says around which key to count. None where it misled or a score is not finite."""
    if not torch.isfinite(scores.sum()).tolist():
        return None  # some score is not finite, if only of no candidate, or the sum is too large: the other way counts them
    stride = (len(scores) // _SAMPLE) | 1
    some = candidates[::stride].contiguous()
    sampled = torch.cat([made for _, made in _keys(scores[::stride].contiguous(), some, smallest, _FIRST_FINITE_BIN)])
    among, total = number(count_true(some.view(1, -1))), number(count_true(candidates.view(1, -1)))
    place = round(count / max(total, 1) * among)
    if not 0 < place < among:
        return None
    center = number(sampled.kthvalue(len(sampled) - place + 1).values)
    base = center - _WINDOW // 2
    lowest_finite = (_FIRST_FINITE_BIN << 16) - 2**31
    if base - _SPREADS <= lowest_finite + (_SPREADS << 16) or base + _WINDOW + _SPREADS >= 0x7F800000:
        return None  # the window would meet the keys of those that are no candidates, or of infinity
    below, above = base - 1 - _SPREAD, base + _WINDOW + _SPREAD
    places = torch.empty(len(scores), dtype=torch.int32)
    for piece, made in _keys(scores, candidates, smallest, _FIRST_FINITE_BIN):
        torch.minimum(torch.maximum(made, below[: len(made)], out=made), above[: len(made)], out=places[piece])
    counts = torch.bincount(places.sub_(base - _SPREADS), minlength=_WINDOW + 2 * _SPREADS)
    inside, need = counts[_SPREADS:-_SPREADS], count - number(counts[-_SPREADS:].sum())
    if not 0 < need <= number(inside.sum()):
        return None
    bin_, left = _descend(inside, need, lowest=0, highest=_WINDOW - 1)
    return base + bin_, left, number(inside[bin_]), 0


def _keys(scores: Tensor, candidates: Tensor, smallest: bool, last_bin: int) -> Iterator[tuple[slice, Tensor]]:
    """Piece by piece, int32 keys in the order of the scores or in the opposite one; no candidates from `last_bin` on."""
    last = ((last_bin + _SPREAD) << 16) - 2**31
    span = 0x7FFFFFFF - last
    for piece in _pieces(len(scores)):
        bits = (scores[piece] + 0.0).view(torch.int32)  # the sum makes -0.0 the zero that it equals
        bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))
        if smallest:
            bits.bitwise_not_()
        size = len(bits)
        highest = candidates[piece].to(torch.int32).mul_(span[:size]).add_(last[:size])  # wraps around, and comes out right
        yield piece, torch.minimum(bits, highest, out=bits)


def _score_of(key: int, smallest: bool) -> float:
    """The score that has this key."""
    key = ~key if smallest else key
    bits = key if key >= 0 else key ^ 0x7FFFFFFF
    value: Any = torch.tensor(bits, dtype=torch.int32).view(torch.float32).tolist()
    return float(value)


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
