"""Random numbers as a hash of (seed, update, layer, index): the same on every rank and device, without a generator."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

_CHUNK = 1 << 16  # elements hashed at once: the temporaries stay in the cache
_LOW_WORD = 0xFFFFFFFF


def key_of(*parts: object) -> int:
    """A 64-bit key from any printable parts, equal in every process (unlike `hash`)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _signed(word: int) -> int:
    """A 32-bit word as the Python number that an int32 tensor holds."""
    return word - (1 << 32) if word >= 1 << 31 else word


def _scramble(x: Tensor) -> Tensor:
    """A bijection of 32-bit words with little bias (the multipliers are Wellons' lowbias32), in place."""
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))
    x.mul_(_signed(0x7FEB352D))
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF))
    x.mul_(_signed(0x846CA68B))
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def _words(low: Tensor, high: int, key: int) -> Tensor:
    """Hashed 32-bit words of positions `low + high * 2**32` (int32, overwritten)."""
    low.bitwise_xor_(_signed(key & _LOW_WORD))
    _scramble(low)
    low.add_(_signed(((key >> 32) + high * 0x9E3779B9) & _LOW_WORD))
    return _scramble(low)


def _to_unit(words: Tensor) -> Tensor:
    """The upper 24 bits of each word as float32 in [0, 1): all that a float32 can hold evenly."""
    return (words >> 8).bitwise_and_(0xFFFFFF).to(torch.float32).mul_(2.0**-24)


def uniform(count: int, key: int, device: torch.device | str = "cpu", start: int = 0) -> Tensor:
    """float32 numbers of the positions `start` to `start + count`, uniform in [0, 1): the one at position i depends on (key, i)
    alone. Hashed in chunks."""
    out = torch.empty(count, dtype=torch.float32, device=device)
    steps = torch.arange(min(count, _CHUNK), dtype=torch.int32, device=device)
    first = start
    while first < start + count:
        size = min(_CHUNK - first % _CHUNK, start + count - first)  # no chunk has positions on both sides of 2**32
        low = steps[:size] + _signed(first & _LOW_WORD)
        out[first - start : first - start + size] = _to_unit(_words(low, first >> 32, key))
        first += size
    return out


def uniform_at(index: Tensor, key: int) -> Tensor:
    """The numbers that `uniform` has at the positions `index` (int64, any shape), without making the others."""
    low = torch.bitwise_and(index, _LOW_WORD)
    low = torch.where(low >= 1 << 31, low - (1 << 32), low).to(torch.int32)
    if index.numel() < 1 << 31:
        return _to_unit(_words(low, 0, key))
    raise ValueError("tensors of 2**31 or more entries are hashed with `uniform`")


def normal_at(index: Tensor, key: int) -> Tensor:
    """Standard normal float32 numbers at the positions `index`, by the Box-Muller transform of two hashes."""
    radius = torch.sqrt(-2 * torch.log1p(-uniform_at(index, key_of(key, "radius")).double()))
    angle = 2 * math.pi * uniform_at(index, key_of(key, "angle")).double()
    return (radius * torch.cos(angle)).to(torch.float32)
