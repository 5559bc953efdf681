"""The LiDAR points of the centre agents, frame by frame, with the channels that the point encoder reads."""

from __future__ import annotations

import torch

from limtr.agent_features import one_hot_or_zero
from limtr.config import ViewConfig
from limtr.scene import LIDAR_FEATURES, NUM_HISTORY_STEPS, ObjectType


def lidar_frames(num_frames: int) -> list[int]:
    """History steps of `num_frames` frames spread evenly (rounded down) from the oldest to the current; one is the current."""
    last = NUM_HISTORY_STEPS - 1
    if num_frames == 1:
        return [last]
    return [index * last // (num_frames - 1) for index in range(num_frames)]


def lidar_view(
    points: torch.Tensor | None, mask: torch.Tensor | None, center_type: torch.Tensor, view: ViewConfig, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Channels (C, T, N, F) and mask (C, T, N) of the frames and points that `view` asks for.

    F: x, y, z in the box frame of each step, the features named in `view.lidar_features` in that order, and with
    `view.lidar_class_channels` the one-hot class (vehicle or other, pedestrian, cyclist). Masked points are all zero.
    Without LiDAR in the whole batch there is one masked point per frame, so that the axes exist.
    """
    if points is None or mask is None:
        shape = (len(center_type), view.num_lidar_frames, 1)
        empty = torch.zeros((*shape, view.num_lidar_channels), dtype=dtype, device=center_type.device)
        return empty, torch.zeros(shape, dtype=torch.bool, device=center_type.device)
    frames = torch.tensor(lidar_frames(view.num_lidar_frames), device=points.device)
    columns = [0, 1, 2, *(3 + LIDAR_FEATURES.index(name) for name in view.lidar_features)]
    channels = points[:, frames, : view.num_lidar_points][..., columns]
    kept = mask[:, frames, : view.num_lidar_points]
    if view.lidar_class_channels:
        label = (center_type == ObjectType.PEDESTRIAN) + 2 * (center_type == ObjectType.CYCLIST)
        kind = one_hot_or_zero(label, 3, dtype)[:, None, None]
        channels = torch.cat((channels, kind.expand(*kept.shape, -1)), dim=-1)
    return torch.where(kept[..., None], channels, 0.0), kept
