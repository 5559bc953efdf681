"""Augmentations: hidden maps in agent-centric batches, mirrored scenes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from limtr.agent_batch import AgentBatch
from limtr.scene import STATE_FIELDS, Scene

_MIRROR_STATES = np.array([-1.0 if name in ("y", "heading", "vy") else 1.0 for name in STATE_FIELDS], dtype=np.float32)
_MIRROR_POINTS = np.array([1.0, -1.0, 1.0], dtype=np.float32)


def hide_maps(agents: AgentBatch, share: float) -> AgentBatch:
    """Hide the whole map from a random share of the centre agents (LiMTR's "map half masked" with 0.5).

    Draws from torch's global generator of the CPU, so that a resumed run draws alike on every device.
    """
    hidden = torch.rand(agents.polyline_mask.shape[0]) < share
    return replace(agents, polyline_mask=agents.polyline_mask & ~hidden.to(agents.polyline_mask.device)[:, None, None])


def mirrored(scene: Scene) -> Scene:
    """The scene with left and right exchanged: as plausible as the scene itself, but for the side that traffic drives on."""
    lidar = scene.lidar
    return replace(
        scene,
        track_states=scene.track_states * _MIRROR_STATES,
        map_points_m=scene.map_points_m * _MIRROR_POINTS,
        signal_stop_m=scene.signal_stop_m * _MIRROR_POINTS,
        lidar=None if lidar is None else replace(lidar, points_m=lidar.points_m * _MIRROR_POINTS),
    )
