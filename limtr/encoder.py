"""The context encoder: agents, polylines and LiDAR as tokens, and local self-attention among them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from limtr.agent_batch import AgentBatch
from limtr.agent_features import HISTORY_CHANNELS
from limtr.attention import masked_attention
from limtr.config import AttentionPath, ModelConfig
from limtr.dropout import Dropout
from limtr.neighbor_attention import neighbor_attention
from limtr.neighbors import Neighbors, nearest_tokens
from limtr.point_encoder import LidarEncoder
from limtr.polyline_encoder import PolylineEncoder
from limtr.position import sine_code


@dataclass(frozen=True, kw_only=True)
class EncodedScene:
    """Encoded tokens of C centre agents; features of invalid tokens are zero."""

    center: torch.Tensor
    """(C, D)"""
    agents: torch.Tensor
    """(C, A, D)"""
    agent_valid: torch.Tensor
    """(C, A) bool"""
    agent_position: torch.Tensor
    """(C, A, 3)"""
    agent_velocity: torch.Tensor
    """(C, A, 2) at the current step, zero where the agent is not seen then"""
    center_velocity: torch.Tensor
    """(C, 2)"""
    polylines: torch.Tensor
    """(C, P, D)"""
    polyline_valid: torch.Tensor
    """(C, P) bool"""
    polyline_position: torch.Tensor
    """(C, P, 3)"""
    lidar: torch.Tensor | None
    """(C, 1, D)"""
    lidar_valid: torch.Tensor | None
    """(C, 1) bool"""
    lidar_position: torch.Tensor | None
    """(C, 1, 3) mean of the centre agent's history, where invalid steps count as zero"""
    lidar_side: torch.Tensor | None = None
    """(C, 30) metres to the left in the coming 3 s as the points alone tell it; for the loss"""


_FEW_TOKENS = 16
"""Up to so many tokens for each neighbour, a mask is as fast as lists (benchmarks/attention.py)."""

SIDE_STEPS = 30
"""Steps of 0.1 s for which the LiDAR feature alone has to tell the side: what comes later drowns what points can know."""

VELOCITY_CHANNELS = slice(HISTORY_CHANNELS.index("vx"), HISTORY_CHANNELS.index("vy") + 1)


class LocalAttention(nn.Module):
    """Self-attention among neighbours, with one packed projection for query, key and value."""

    def __init__(self, dim: int, num_heads: int, dropout: float, path: AttentionPath) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.path = num_heads, dropout, path
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: torch.Tensor, position_code: torch.Tensor, neighbors: Neighbors) -> torch.Tensor:
        """Tokens (B, L, D) attend to their neighbours."""
        dim = x.shape[-1]
        both = functional.linear(x + position_code, self.in_proj_weight[: 2 * dim], self.in_proj_bias[: 2 * dim])
        query, key = both[..., :dim], both[..., dim:]
        value = functional.linear(x, self.in_proj_weight[2 * dim :], self.in_proj_bias[2 * dim :])
        dropout = self.dropout if self.training else 0.0
        if self.by_lists(neighbors, dropout):
            mixed = neighbor_attention(query, key, value, neighbors, num_heads=self.num_heads, dropout=dropout)
        else:
            mixed = masked_attention(query, key, value, neighbors.allowed(), num_heads=self.num_heads, dropout=dropout)
        out: torch.Tensor = self.out_proj(mixed)
        return out

    def by_lists(self, neighbors: Neighbors, dropout: float) -> bool:
        """Whether these neighbours are attended to by their lists, or else by a mask over all tokens."""
        # A mask over all tokens is what one CUDA kernel, and any exported graph, takes whole; a CPU does without that work,
        # unless tokens are few and torch's kernel can be used, which knows no dropout.
        if self.path == "auto":
            if neighbors.index.device.type != "cpu" or torch.compiler.is_compiling():
                return False
            num_tokens, count = neighbors.index.shape[1:]
            return dropout > 0.0 or num_tokens > _FEW_TOKENS * count
        return self.path == "gathered"


class EncoderLayer(nn.Module):
    """A post-norm transformer layer over the nearest tokens."""

    def __init__(self, dim: int, num_heads: int, dropout: float, path: AttentionPath) -> None:
        super().__init__()
        self.self_attn = LocalAttention(dim, num_heads, dropout, path)
        self.linear1 = nn.Linear(dim, 4 * dim)
        self.linear2 = nn.Linear(4 * dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor, position_code: torch.Tensor, neighbors: Neighbors) -> torch.Tensor:
        """(B, L, D) to (B, L, D)."""
        x = self.norm1(x + self.dropout(self.self_attn(x, position_code, neighbors)))
        hidden = self.dropout(functional.relu(self.linear1(x)))
        out: torch.Tensor = self.norm2(x + self.dropout(self.linear2(hidden)))
        return out


class ContextEncoder(nn.Module):
    """AgentBatch to EncodedScene."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        encoder, view = config.encoder, config.view
        self.dim, self.num_neighbors = encoder.dim, encoder.num_neighbors
        self.agent_encoder = PolylineEncoder(config.num_agent_channels + 1, encoder.agents, encoder.dim)
        self.polyline_encoder = PolylineEncoder(view.num_polyline_channels, encoder.polylines, encoder.dim)
        self.lidar_encoder = None
        self.lidar_shape = (view.num_lidar_frames, view.num_lidar_channels)
        if encoder.lidar is not None:
            self.lidar_encoder = LidarEncoder(view.num_lidar_channels, view.num_lidar_frames, encoder.lidar, encoder.dim)
        self.lidar_side_head = None
        if config.loss.lidar_side_weight > 0:
            self.lidar_side_head = nn.Linear(encoder.dim, min(SIDE_STEPS, config.num_future_steps))
        self.layers = nn.ModuleList(
            EncoderLayer(encoder.dim, encoder.num_heads, encoder.dropout, config.attention) for _ in range(encoder.num_layers)
        )

    def forward(self, batch: AgentBatch) -> EncodedScene:
        """Encode; masked slots of `batch` must be finite (see `limtr.predictor.without_garbage`)."""
        history, history_mask = batch.agent_history, batch.agent_history_mask
        agents = self.agent_encoder(torch.cat((history, history_mask.unsqueeze(-1).to(history.dtype)), dim=-1), history_mask)
        polylines = self.polyline_encoder(batch.polylines, batch.polyline_mask)
        features = [agents, polylines]
        valid = [history_mask.any(dim=-1), batch.polyline_mask.any(dim=-1)]
        position = [batch.agent_last_position, batch.polyline_center]
        rows = torch.arange(agents.shape[0], device=agents.device)
        lidar_side = None
        if self.lidar_encoder is not None:
            points, mask = self._lidar_input(batch)
            token = self.lidar_encoder(points, mask).to(agents.dtype)
            if self.lidar_side_head is not None:
                lidar_side = self.lidar_side_head(token)
            features.append(token.unsqueeze(1))
            valid.append(mask.flatten(start_dim=1).any(dim=-1, keepdim=True))
            position.append(history[rows, batch.center_index][..., :3].mean(dim=1, keepdim=True))

        all_valid, all_position = torch.cat(valid, dim=1), torch.cat(position, dim=1)
        x = torch.where(all_valid.unsqueeze(-1), torch.cat(features, dim=1), 0.0)
        neighbors = nearest_tokens(all_position, all_valid, self.num_neighbors)
        code = sine_code(all_position, self.dim)
        for layer in self.layers:
            x = layer(x, code, neighbors)
        x = torch.where(all_valid.unsqueeze(-1), x, 0.0)
        velocity = history[:, :, -1, VELOCITY_CHANNELS]
        parts = torch.split(x, [part.shape[1] for part in valid], dim=1)
        has_lidar = self.lidar_encoder is not None
        return EncodedScene(
            center=parts[0][rows, batch.center_index],
            agents=parts[0],
            agent_valid=valid[0],
            agent_position=position[0],
            agent_velocity=velocity,
            center_velocity=velocity[rows, batch.center_index],
            polylines=parts[1],
            polyline_valid=valid[1],
            polyline_position=position[1],
            lidar=parts[2] if has_lidar else None,
            lidar_valid=valid[2] if has_lidar else None,
            lidar_position=position[2] if has_lidar else None,
            lidar_side=lidar_side,
        )

    def _lidar_input(self, batch: AgentBatch) -> tuple[torch.Tensor, torch.Tensor]:
        if batch.lidar_points is not None and batch.lidar_mask is not None:
            return batch.lidar_points, batch.lidar_mask
        # No scene of the batch has LiDAR: the same layers run on nothing, so that ranks stay in step.
        frames, channels = self.lidar_shape
        shape = (batch.agent_history.shape[0], frames, 1)
        points = batch.agent_history.new_zeros((*shape, channels))
        return points, torch.zeros(shape, dtype=torch.bool, device=points.device)
