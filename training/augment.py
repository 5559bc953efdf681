"""Augmentations on agent-centric batches."""

from __future__ import annotations

from dataclasses import replace

import torch

from limtr.agent_batch import AgentBatch


def hide_maps(agents: AgentBatch, share: float) -> AgentBatch:
    """Hide the whole map from a random share of the centre agents (LiMTR's "map half masked" with 0.5).

    Draws from torch's global generator of the CPU, so that a resumed run draws alike on every device.
    """
    hidden = torch.rand(agents.polyline_mask.shape[0]) < share
    return replace(agents, polyline_mask=agents.polyline_mask & ~hidden.to(agents.polyline_mask.device)[:, None, None])
