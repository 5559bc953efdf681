"""Random agent batches of any size with plausible numbers: what graphs are traced with, checked on and timed with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from limtr.agent_batch import AgentBatch
from limtr.agent_features import HISTORY_CHANNELS
from limtr.config import ModelConfig
from limtr.scene import NUM_HISTORY_STEPS, POINTS_PER_POLYLINE, STEP_S


@dataclass(frozen=True, kw_only=True)
class ProbeSize:
    """Lengths of the free axes."""

    centers: int
    agents: int
    polylines: int
    points: int
    """LiDAR points per frame; ignored by models without LiDAR."""

    def __post_init__(self) -> None:
        """Validate."""
        if min(self.centers, self.agents) < 1 or min(self.polylines, self.points) < 0:
            raise ValueError(f"a batch has at least one centre agent and one agent, and no negative numbers: {self}")

    def __str__(self) -> str:
        return f"C={self.centers} A={self.agents} P={self.polylines} N={self.points}"


def probe_batch(config: ModelConfig, size: ProbeSize, *, seed: int = 0, share_valid: float = 0.9) -> AgentBatch:
    """A batch of `size`: agents that move straight on, short straight polylines, points in a box.

    Args:
        config: channels and kinds of input.
        size: lengths of the axes.
        seed: of everything random.
        share_valid: chance of each step, polyline point and LiDAR point to be there; the centre agent always is now.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    def chance(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator) < share_valid

    centers, agents = size.centers, size.agents
    center_type = torch.randint(1, 4, (centers,), generator=generator)
    center_index = torch.randint(0, agents, (centers,), generator=generator)
    rows = torch.arange(centers)
    mask = chance(centers, agents, NUM_HISTORY_STEPS)
    mask[rows, center_index, -1] = True

    position = uniform(centers, agents, 3, low=-60.0, high=60.0)
    position[rows, center_index] = 0.0
    velocity = uniform(centers, agents, 2, low=-12.0, high=12.0)
    time_s = STEP_S * torch.arange(1 - NUM_HISTORY_STEPS, 1, dtype=torch.float32)
    channels: dict[str, torch.Tensor] = {
        "x": position[..., :1] + velocity[..., :1] * time_s,
        "y": position[..., 1:2] + velocity[..., 1:] * time_s,
        "z": position[..., 2:] / 60.0 + 0 * time_s,
        "length": 4.5 + 0 * time_s,
        "width": 2.0 + 0 * time_s,
        "height": 1.6 + 0 * time_s,
        "time_s": time_s,
        "sin_heading": (velocity[..., 1] / velocity.norm(dim=-1).clamp(min=1e-3)).unsqueeze(-1) + 0 * time_s,
        "cos_heading": (velocity[..., 0] / velocity.norm(dim=-1).clamp(min=1e-3)).unsqueeze(-1) + 0 * time_s,
        "vx": velocity[..., :1] + 0 * time_s,
        "vy": velocity[..., 1:] + 0 * time_s,
    } | {f"is_step_{step}": (time_s == time_s[step]).float() for step in range(NUM_HISTORY_STEPS)}
    kind = torch.randint(1, 4, (centers, agents), generator=generator)
    kind[rows, center_index] = center_type
    for number, name in enumerate(("is_vehicle", "is_pedestrian", "is_cyclist"), start=1):
        channels[name] = (kind == number).float().unsqueeze(-1) + 0 * time_s
    history = torch.zeros(centers, agents, NUM_HISTORY_STEPS, config.num_agent_channels)
    for channel, name in enumerate(HISTORY_CHANNELS[: config.num_agent_channels]):
        history[..., channel] = channels.get(name, torch.zeros(()))
    history[rows, center_index, :, HISTORY_CHANNELS.index("is_center")] = 1.0

    polyline_mask = chance(centers, size.polylines, POINTS_PER_POLYLINE)
    start = uniform(centers, size.polylines, 1, 3, low=-90.0, high=90.0) * torch.tensor([1.0, 1.0, 0.02])
    angle = uniform(centers, size.polylines, 1, low=-3.14, high=3.14)
    direction = torch.stack((angle.cos(), angle.sin(), torch.zeros_like(angle)), dim=-1)
    along = start + 0.5 * torch.arange(POINTS_PER_POLYLINE)[:, None] * direction
    polylines = torch.zeros(centers, size.polylines, POINTS_PER_POLYLINE, config.view.num_polyline_channels)
    polylines[..., :3], polylines[..., 3:6], polylines[..., 6] = along, direction, 2.0
    polylines[..., 7:9] = along[..., :2] - 0.5 * direction[..., :2]

    lidar_points = lidar_mask = None
    if config.view.use_lidar:
        shape = (centers, config.view.num_lidar_frames, size.points)
        lidar_points = uniform(*shape, config.view.num_lidar_channels, low=-1.0, high=1.0)
        lidar_mask = chance(*shape)
    count = polyline_mask.sum(dim=-1, keepdim=True).clamp(min=1)
    return AgentBatch(
        agent_history=torch.where(mask.unsqueeze(-1), history, 0.0),
        agent_history_mask=mask,
        agent_last_position=torch.where(mask.any(dim=-1, keepdim=True), position, 0.0),
        polylines=torch.where(polyline_mask.unsqueeze(-1), polylines, 0.0),
        polyline_mask=polyline_mask,
        polyline_center=(along * polyline_mask.unsqueeze(-1)).sum(dim=2) / count,
        center_index=center_index,
        center_type=center_type,
        lidar_points=lidar_points,
        lidar_mask=lidar_mask,
    )
