"""LiDAR points of a centre agent to one token (LiMTR's two encoders)."""

from __future__ import annotations

import torch
from torch import nn

from limtr.config import LidarEncoderConfig
from limtr.mlp import NormMLP, PlainMLP
from limtr.polyline_encoder import PointNet, Pooling


class PooledTime(nn.Module):
    """The time stage of "double-pointnet": a PointNet over the frames that have points, and two linear layers."""

    def __init__(self, points: PointNet, out: PlainMLP) -> None:
        super().__init__()
        self.points = points
        self.out_mlps = out

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Frame features (C, T, D) with `mask` (C, T) to (C, D)."""
        feature = self.points(frames.unsqueeze(1), mask.unsqueeze(1)).squeeze(1)
        return torch.where(mask.any(dim=-1, keepdim=True), self.out_mlps(feature), 0.0)


class LinearTime(nn.Module):
    """The time stage of "pointnet-linear": all frames concatenated, those without points as zeros."""

    def __init__(self, layers: NormMLP) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Frame features (C, T, D) to (C, D); agents without any point go through the norms like the others."""
        feature: torch.Tensor = self.layers(frames.flatten(start_dim=1))
        return feature


class LidarEncoder(nn.Module):
    """A PointNet per frame, shared by all frames, then a stage over time.

    Source: LiMTR (Vlottes et al., 2024).
    """

    def __init__(self, in_dim: int, num_frames: int, config: LidarEncoderConfig, out_dim: int) -> None:
        super().__init__()
        pooling: Pooling = config.pooling
        if config.reference_average and pooling == "average":
            pooling = "average-over-padding"
        self.points = PointNet(in_dim, config.points, pooling)
        self.time: PooledTime | LinearTime
        if config.linear_time is not None:
            widths = [config.linear_time.dim] * config.linear_time.num_layers + [out_dim]
            self.time = LinearTime(NormMLP(num_frames * config.points.dim, widths))
        else:
            assert config.pooled_time is not None
            stage = PointNet(config.points.dim, config.pooled_time, pooling)
            self.time = PooledTime(stage, PlainMLP(config.pooled_time.dim, [config.pooled_time.dim, out_dim]))

    def forward(self, points: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Points (C, T, N, F) with `mask` (C, T, N) to one feature (C, D)."""
        token: torch.Tensor = self.time(self.points(points, mask), mask.any(dim=-1))
        return token
