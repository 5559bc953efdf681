"""PointNets: from the valid elements of a set (points of a polyline, steps of a track, frames) to one feature."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from limtr.config import PointStageConfig, PolylineEncoderConfig
from limtr.mlp import NormMLP, PlainMLP

Pooling = Literal["max", "average", "average-over-padding"]


def pool(x: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Pool non-negative features (..., L, D) over valid elements (..., L) to (..., D); zeros where none is valid."""
    return _pool_zeroed(torch.where(mask.unsqueeze(-1), x, 0.0), mask, pooling)


def _pool_zeroed(x: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """`pool` for features that are zero where masked."""
    if pooling == "max":
        # Features come from a ReLU, so that a zero in a masked slot never beats a valid element.
        return x.amax(dim=-2) if torch.compiler.is_exporting() or x.shape[-2] else x.sum(dim=-2)
    if pooling == "average-over-padding":
        return x.sum(dim=-2) / max(x.shape[-2], 1)
    return x.sum(dim=-2) / mask.sum(dim=-1, keepdim=True).clamp(min=1).to(x.dtype)


class PointNet(nn.Module):
    """Layers per element, pooling, the pooled feature beside every element, more layers, pooling.

    The norms see valid elements only.

    Source: Qi et al., CVPR 2017, in the form of VectorNet's and MTR's polyline encoders.
    """

    def __init__(self, in_dim: int, config: PointStageConfig, pooling: Pooling = "max") -> None:
        super().__init__()
        self.concat_pooled = config.concat_pooled
        self.pooling = pooling
        self.pre_mlps = NormMLP(in_dim, [config.pre_dim] * config.num_pre_layers)
        self.mlps = NormMLP(config.pre_dim * (2 if config.concat_pooled else 1), [config.dim] * config.num_layers)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Features (B, P, L, F) with `mask` (B, P, L) to (B, P, D); zeros where nothing is valid."""
        # Eager code works on the valid rows alone; a compiled or exported graph keeps its static shapes.
        return self._padded(x, mask) if torch.compiler.is_compiling() else self._packed(x, mask)

    def _padded(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.pre_mlps(x, mask)
        if self.concat_pooled:
            pooled = pool(x, mask, self.pooling)
            x = torch.cat((x, pooled.unsqueeze(-2).expand_as(x)), dim=-1)
        return pool(self.mlps(x, mask), mask, self.pooling)

    def _packed(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        flat = mask.reshape(-1)
        rows = flat.nonzero().squeeze(-1)
        polyline = rows // max(mask.shape[-1], 1)

        def pooled_of(values: torch.Tensor) -> torch.Tensor:
            padded = values.new_zeros((flat.shape[0], values.shape[-1])).index_copy(0, rows, values)
            return _pool_zeroed(padded.reshape(*mask.shape, values.shape[-1]), mask, self.pooling)

        values = self.pre_mlps(x.reshape(flat.shape[0], x.shape[-1])[rows])
        if self.concat_pooled:
            pooled = pooled_of(values)
            values = torch.cat((values, pooled.flatten(end_dim=-2)[polyline]), dim=-1)
        return pooled_of(self.mlps(values))


class PolylineEncoder(nn.Module):
    """A PointNet and two linear layers; polylines (or tracks) without a valid point become zeros."""

    def __init__(self, in_dim: int, config: PolylineEncoderConfig, out_dim: int) -> None:
        super().__init__()
        stage = PointStageConfig(
            num_pre_layers=config.num_pre_layers,
            pre_dim=config.hidden_dim,
            num_layers=config.num_layers - config.num_pre_layers,
            dim=config.hidden_dim,
        )
        self.points = PointNet(in_dim, stage)
        self.out_mlps = PlainMLP(config.hidden_dim, [config.hidden_dim, out_dim])

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Points (B, P, L, F) with `mask` (B, P, L) to (B, P, D)."""
        feature = self.out_mlps(self.points(x, mask))
        return torch.where(mask.any(dim=-1, keepdim=True), feature, 0.0)
