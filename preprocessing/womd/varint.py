"""Protobuf varints of whole arrays at once: packed fields hold hundreds of thousands of them per range image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Unsigned = npt.NDArray[np.uint64]
Signed = npt.NDArray[np.int64]

MAX_VARINT_BYTES = 10
_PAYLOAD_BITS = 7
_PAYLOAD = (1 << _PAYLOAD_BITS) - 1
_MORE = 1 << _PAYLOAD_BITS
_LONG_PIECE = 1024
"""Bytes; pieces that are so long on average are copied faster one by one than their bytes are picked."""


class VarintError(ValueError):
    """Bytes that are no sequence of whole varints."""


def encode_varints(values: Unsigned) -> bytes:
    """The varints of `values` (N,), one after another, each as short as possible."""
    first = values.astype(np.uint8)
    longer = np.flatnonzero(values > _PAYLOAD)
    if not longer.size:
        return first.tobytes()
    # Most numbers need one byte: the work beyond it is done for the others alone.
    first[longer] |= _MORE
    rest = values[longer] >> np.uint64(_PAYLOAD_BITS)
    extra = np.ones(longer.shape, dtype=np.int64)
    for shift in range(_PAYLOAD_BITS, int(rest.max()).bit_length(), _PAYLOAD_BITS):
        extra += rest >= np.uint64(1 << shift)
    repeats = np.ones(values.shape, dtype=np.int64)
    repeats[longer] += extra
    encoded = np.repeat(first, repeats)
    place = longer + np.cumsum(extra) - extra + 1
    while place.size:
        more = np.flatnonzero(rest > _PAYLOAD)
        digits = rest.astype(np.uint8)
        digits[more] |= _MORE
        encoded[place] = digits
        place, rest = place[more] + 1, rest[more] >> np.uint64(_PAYLOAD_BITS)
    return encoded.tobytes()


def decode_varints(data: bytes) -> Unsigned:
    """The numbers (N,) of a sequence of varints.

    Raises:
        VarintError: the last varint is cut off, or one has more than ten bytes.
    """
    last, place, longer = _split(data)
    values = last.astype(np.uint64)
    values[place] = longer
    return values


def decode_signed(data: bytes) -> Signed | npt.NDArray[np.int32]:
    """The numbers (N,) of a sequence of zigzag varints: `unzigzag(decode_varints(data))`, in one step where a byte is enough.

    They come as int32 if neither they nor their sums need more: half the memory to walk through.

    Raises:
        VarintError: as `decode_varints`.
    """
    last, place, longer = _split(data)
    others = unzigzag(longer)
    # Sums stay below the largest number of a byte times their count, and what the longer ones add (in floats: no overflow).
    largest_sum = (_MORE // 2) * last.size + float(np.abs(others.astype(np.float64)).sum())
    small = (last >> 1 ^ -(last & 1)).view(np.int8)
    values: Signed | npt.NDArray[np.int32]
    values = small.astype(np.int64) if largest_sum >= 2**31 else small.astype(np.int32)
    values[place] = others
    return values


def _split(data: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp], Unsigned]:
    """Last bytes (N,) of a sequence of N varints; which varints have more bytes (n,), and those numbers (n,)."""
    raw = np.frombuffer(data, dtype=np.uint8)
    if raw.size and raw[-1] & _MORE:
        raise VarintError(f"the last of {raw.size} bytes promises another one")
    is_more = raw >= _MORE
    place = np.flatnonzero(is_more)
    if not place.size:
        return raw, np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.uint64)
    # Work beyond this line is done for the bytes that are not the last of their number; mostly there are few.
    if place.size * _LONG_PIECE < raw.size:
        ends = [*place.tolist(), raw.size]
        starts = [0, *(stop + 1 for stop in ends[:-1])]
        last = np.concatenate([raw[start:stop] for start, stop in zip(starts, ends, strict=True)])
    else:
        last = raw[~is_more]
    number = place - np.arange(place.size)
    begins = np.ones(place.size, dtype=np.bool_)
    np.not_equal(number[1:], number[:-1], out=begins[1:])
    if begins.all():  # two bytes each, as nearly all are
        low = (raw[place] & _PAYLOAD).astype(np.uint64)
        return last, number, low | last[number].astype(np.uint64) << np.uint64(_PAYLOAD_BITS)
    first = np.flatnonzero(begins)
    num_digits = np.diff(np.append(first, place.size))
    longest = int(num_digits.max()) + 1
    if longest > MAX_VARINT_BYTES:
        raise VarintError(f"a varint of {longest} bytes, at most {MAX_VARINT_BYTES} are allowed")
    digit = (np.arange(place.size) - np.repeat(first, num_digits)).astype(np.uint64)
    low = (raw[place] & _PAYLOAD).astype(np.uint64) << (digit * np.uint64(_PAYLOAD_BITS))
    number = number[first]
    high = last[number].astype(np.uint64) << (num_digits * _PAYLOAD_BITS).astype(np.uint64)
    return last, number, high | np.bitwise_or.reduceat(low, first)


def zigzag(values: Signed) -> Unsigned:
    """Signed numbers as protobuf's sint64 stores them: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    return ((values << 1) ^ (values >> 63)).view(np.uint64)


def unzigzag(values: Unsigned) -> Signed:
    """The signed numbers behind `zigzag`."""
    signed: Signed = (values >> np.uint64(1)).view(np.int64)
    signed ^= -(values & np.uint64(1)).view(np.int64)
    return signed
