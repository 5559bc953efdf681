"""The map as one centre agent sees it: the nearest polylines, in its frame, with the channels of MTR."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from limtr.agent_features import one_hot_or_zero
from limtr.frames import agent_from_world, rotate

NUM_CHANNELS = 9
NUM_SIGNAL_STATES = 9


@dataclass(frozen=True, kw_only=True)
class MapView:
    """P polylines for each of C centre agents; see `limtr.agent_batch.AgentBatch` for the three fields."""

    polylines: torch.Tensor
    mask: torch.Tensor
    center: torch.Tensor


def nearest_polylines(
    xy_mean: torch.Tensor, exists: torch.Tensor, scene: torch.Tensor, focus: torch.Tensor, num_polylines: int
) -> torch.Tensor:
    """(C, K) rows of the K nearest polylines of each centre agent's scene, in the scene's order; non-existing ones last chosen.

    Args:
        xy_mean: (S, P, 2) mean of each polyline's points.
        exists: (S, P) bool, whether it has any.
        scene: (C,) scene of each centre agent.
        focus: (C, 2) the point from which distances are measured, in the scene frame.
        num_polylines: the largest K; all P are kept if there are no more.
    """
    num_scene_polylines = xy_mean.shape[1]
    if num_scene_polylines <= num_polylines:
        return torch.arange(num_scene_polylines, device=xy_mean.device).expand(len(scene), -1)
    distance = torch.linalg.vector_norm(xy_mean[scene] - focus[:, None], dim=-1)
    distance = torch.where(exists[scene], distance, torch.inf)
    return distance.topk(num_polylines, dim=-1, largest=False).indices.sort(dim=-1).values


def map_view(
    polylines: torch.Tensor,
    mask: torch.Tensor,
    signal: torch.Tensor | None,
    *,
    scene: torch.Tensor,
    position: torch.Tensor,
    heading: torch.Tensor,
    focus_offset_m: tuple[float, float],
    num_polylines: int,
) -> MapView:
    """Polylines (S, P, 20, 7) with mask (S, P, 20) of the scenes as the centre agents see them.

    Channels: x, y, z, direction x, y, z, type id, x and y of the previous point (the first point's own), and with `signal`
    (S, P) the one-hot state of the lane's traffic light (all zero where none is seen). Masked points are all zero.
    """
    clean = torch.where(mask[..., None], polylines, 0.0)
    count = mask.sum(dim=-1, keepdim=True)
    xy_mean = clean[..., 0:2].sum(dim=-2) / count.clamp(min=1)
    offset = position.new_tensor(focus_offset_m).expand(len(scene), -1)
    focus = position[:, 0:2] + rotate(offset, heading)
    rows = nearest_polylines(xy_mean, mask.any(dim=-1), scene, focus, num_polylines)

    at = (scene[:, None], rows)
    chosen, chosen_mask = clean[at], mask[at]
    # One output tensor, filled channel by channel: this is the largest tensor of a batch, and every copy of it is felt.
    num_channels = NUM_CHANNELS + (0 if signal is None else NUM_SIGNAL_STATES)
    features = chosen.new_empty((*chosen.shape[:-1], num_channels))
    features[..., 0:3] = agent_from_world(chosen[..., 0:3], position, heading)
    features[..., 3:6] = rotate(chosen[..., 3:6], -heading)
    features[..., 6] = chosen[..., 6]
    features[..., 0, 7:9] = features[..., 0, 0:2]
    features[..., 1:, 7:9] = features[..., :-1, 0:2]
    if signal is not None:
        features[..., NUM_CHANNELS:] = one_hot_or_zero(signal[at], NUM_SIGNAL_STATES, features.dtype)[:, :, None]
    features.masked_fill_(~chosen_mask[..., None], 0.0)
    center = features[..., 0:3].sum(dim=-2) / chosen_mask.sum(dim=-1, keepdim=True).clamp(min=1)
    return MapView(polylines=features, mask=chosen_mask, center=center)
