"""Dropout that is cheap on a CPU, where drawing one random number a feature costs more than the arithmetic around it."""

from __future__ import annotations

import torch
from torch import nn

_LEVELS = 1 << 16
_PER_WORD = 4


class Dropout(nn.Module):
    """`torch.nn.Dropout`, with four decisions from each 64-bit random number where the features are on a CPU.

    There the probability is a multiple of 1/65536 (the nearest to `p`), and kept features are scaled by exactly its inverse,
    so that expectations stay.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"p must be in [0, 1), is {p}")
        self.p = p

    def extra_repr(self) -> str:
        """The probability, for printing."""
        return f"p={self.p}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of any shape; zero with probability p in training, untouched otherwise."""
        return drop(x, self.p) if self.training else x


def drop(x: torch.Tensor, p: float) -> torch.Tensor:
    """`x` with entries set to zero with probability `p` and the others scaled up, as `Dropout` does it in training."""
    if p == 0.0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return nn.functional.dropout(x, p)
    dropped = min(round(p * _LEVELS), _LEVELS - 1)
    words = torch.empty(-(-x.numel() // _PER_WORD), dtype=torch.int64).random_(-(1 << 63), None)
    draws = words.view(torch.int16)[: x.numel()].view(x.shape)
    kept = draws >= dropped - _LEVELS // 2
    return x * (kept.to(x.dtype) * (_LEVELS / (_LEVELS - dropped)))
