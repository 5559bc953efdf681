"""Small models and random agent batches for the predictor's tests."""

from __future__ import annotations

from dataclasses import replace

import torch

from limtr.agent_batch import AgentBatch
from limtr.config import (
    DecoderConfig,
    EncoderConfig,
    LidarEncoderConfig,
    ModelConfig,
    PointStageConfig,
    PolylineEncoderConfig,
    TimeStageConfig,
    ViewConfig,
)


def small_config(*, lidar: str | None = "linear", dropout: float = 0.0) -> ModelConfig:
    """A LiMTR of some ten thousand parameters; `lidar` is "linear", "pooled" or None."""
    stage = PointStageConfig(num_pre_layers=1, pre_dim=8, num_layers=1, dim=8)
    encoders = {
        None: None,
        "linear": LidarEncoderConfig(points=stage, linear_time=TimeStageConfig(num_layers=1, dim=8)),
        "pooled": LidarEncoderConfig(points=stage, pooled_time=stage),
    }
    return ModelConfig(
        view=ViewConfig(use_lidar=lidar is not None, num_polylines=16, num_lidar_points=6),
        encoder=EncoderConfig(
            agents=PolylineEncoderConfig(hidden_dim=8, num_layers=3),
            polylines=PolylineEncoderConfig(hidden_dim=8, num_layers=3),
            lidar=encoders[lidar],
            dim=8,
            num_layers=2,
            num_heads=2,
            num_neighbors=5,
            dropout=dropout,
        ),
        decoder=DecoderConfig(
            dim=16,
            map_dim=8,
            num_layers=2,
            num_heads=2,
            dropout=dropout,
            num_queries=8,
            num_base_polylines=4,
            num_waypoint_polylines=3,
            lidar_with_center=lidar is not None,
            lidar_with_agents=lidar is not None,
        ),
    )


def random_batch(
    config: ModelConfig,
    *,
    seed: int = 0,
    num_centers: int = 4,
    num_agents: int = 5,
    num_polylines: int = 12,
    dtype: torch.dtype = torch.float64,
    share_valid: float = 0.8,
) -> AgentBatch:
    """A random batch; the centre agent's first history step is always valid, everything else sometimes."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def chance(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator) < share_valid

    centers, agents, polylines = num_centers, num_agents, num_polylines
    view = config.view
    history_mask = chance(centers, agents, 11) & chance(centers, agents, 1)
    center_index = torch.randint(0, agents, (centers,), generator=generator)
    history_mask[torch.arange(centers), center_index, 0] = True
    polyline_mask = chance(centers, polylines, 20) & chance(centers, polylines, 1)
    future_mask = chance(centers, agents, config.num_future_steps)
    frames, points = view.num_lidar_frames, view.num_lidar_points
    lidar = None
    lidar_mask = None
    if view.use_lidar:
        lidar = normal(centers, frames, points, view.num_lidar_channels)
        lidar_mask = chance(centers, frames, points) & chance(centers, 1, 1)
    batch = AgentBatch(
        agent_history=normal(centers, agents, 11, config.num_agent_channels),
        agent_history_mask=history_mask,
        agent_last_position=20 * normal(centers, agents, 3),
        polylines=normal(centers, polylines, 20, view.num_polyline_channels),
        polyline_mask=polyline_mask,
        polyline_center=30 * normal(centers, polylines, 3),
        center_index=center_index,
        center_type=torch.randint(1, 4, (centers,), generator=generator),
        lidar_points=lidar,
        lidar_mask=lidar_mask,
        agent_future=10 * normal(centers, agents, config.num_future_steps, 4),
        agent_future_mask=future_mask,
        center_future=10 * normal(centers, config.num_future_steps, 4),
        center_future_mask=future_mask[torch.arange(centers), center_index],
    )
    return batch.to(dtype=dtype)


def with_garbage(batch: AgentBatch, value: float) -> AgentBatch:
    """The batch with `value` in every masked slot."""

    def spoil(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.where(mask.unsqueeze(-1), tensor, value)

    assert batch.agent_future is not None
    assert batch.agent_future_mask is not None
    assert batch.center_future is not None
    assert batch.center_future_mask is not None
    spoilt = {
        "agent_history": spoil(batch.agent_history, batch.agent_history_mask),
        "agent_last_position": spoil(batch.agent_last_position, batch.agent_history_mask.any(-1)),
        "polylines": spoil(batch.polylines, batch.polyline_mask),
        "polyline_center": spoil(batch.polyline_center, batch.polyline_mask.any(-1)),
        "agent_future": spoil(batch.agent_future, batch.agent_future_mask),
        "center_future": spoil(batch.center_future, batch.center_future_mask),
    }
    if batch.lidar_points is not None:
        assert batch.lidar_mask is not None
        spoilt["lidar_points"] = spoil(batch.lidar_points, batch.lidar_mask)
    return replace(batch, **spoilt)


def one_layer_config() -> ModelConfig:
    """Tracing takes a while per layer: one of each kind shows what can break."""
    config = small_config()
    return replace(
        config, encoder=replace(config.encoder, num_layers=1), decoder=replace(config.decoder, num_layers=1), num_modes=2,
        nms_distance_m=(0.0, 1.0, 50.0),
    )  # fmt: skip
