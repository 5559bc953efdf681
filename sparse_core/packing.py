"""Masks as bits: eight links a byte in saved states."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WEIGHTS = (1, 2, 4, 8, 16, 32, 64, 128)


def pack(mask: Tensor) -> Tensor:
    """A bool tensor as uint8, the first entry in the lowest bit, on the CPU."""
    flat = mask.detach().reshape(-1).cpu()
    padded = torch.zeros(math.ceil(flat.numel() / 8) * 8, dtype=torch.uint8)
    padded[: flat.numel()] = flat
    return (padded.view(-1, 8) * torch.tensor(_WEIGHTS, dtype=torch.uint8)).sum(dim=1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The bool tensor of that shape.

    Raises:
        ValueError: not the number of bytes that the shape needs.
    """
    size = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.numel() != math.ceil(size / 8):
        raise ValueError(f"{packed.numel()} bytes of {packed.dtype} do not hold a mask of shape {tuple(shape)}")
    bits = packed.cpu().view(-1, 1).bitwise_and(torch.tensor(_WEIGHTS, dtype=torch.uint8)).ne(0)
    return bits.view(-1)[:size].view(shape)
