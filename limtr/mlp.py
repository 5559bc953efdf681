"""Multi-layer perceptrons, with batch norm over valid entries or without norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from limtr.masked_norm import MaskedBatchNorm


class NormMLP(nn.Sequential):
    """[Linear without bias, MaskedBatchNorm, ReLU] per width, then, if `out_dim` is given, one Linear with bias.

    The layers are numbered as in a flat `Sequential` (MTR's parameter names have the same numbers).
    """

    def __init__(self, in_dim: int, widths: Sequence[int], out_dim: int | None = None) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(in_dim, width, bias=False), MaskedBatchNorm(width), nn.ReLU()]
            in_dim = width
        if out_dim is not None:
            layers.append(nn.Linear(in_dim, out_dim))
        super().__init__(*layers)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(..., in_dim) to (..., out): entries where `mask` (...) is False take no part in the statistics."""
        for layer in self:
            x = layer(x, mask) if isinstance(layer, MaskedBatchNorm) else layer(x)
        return x


class PlainMLP(nn.Sequential):
    """Linear layers with bias and ReLU between them."""

    def __init__(self, in_dim: int, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for index, width in enumerate(widths):
            layers += ([nn.ReLU()] if index else []) + [nn.Linear(in_dim, width)]
            in_dim = width
        super().__init__(*layers)
