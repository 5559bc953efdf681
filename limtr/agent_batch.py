"""AgentBatch: what the predictor reads, one centre agent per row, in that agent's frame."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch

FUTURE_FIELDS = ("x", "y", "vx", "vy")


@dataclass(frozen=True, kw_only=True)
class AgentBatch:
    """C centre agents, each with its A context agents and P nearest polylines (motion_model 1.2).

    The frame of row c: zero at the centre agent's position at the current step, x along its heading.
    """

    agent_history: torch.Tensor
    """(C, A, 11, 29) see `limtr.agent_view` for the channels"""
    agent_history_mask: torch.Tensor
    """(C, A, 11) bool"""
    agent_last_position: torch.Tensor
    """(C, A, 3) last valid history position"""
    polylines: torch.Tensor
    """(C, P, 20, 9), or 18 channels with traffic-light states"""
    polyline_mask: torch.Tensor
    """(C, P, 20) bool"""
    polyline_center: torch.Tensor
    """(C, P, 3) mean of the valid points"""
    center_index: torch.Tensor
    """(C,) int64 position of the centre agent on the A axis"""
    center_type: torch.Tensor
    """(C,) int64 `limtr.scene.ObjectType`"""
    lidar_points: torch.Tensor | None = None
    """(C, T, N, F) box-frame points of the centre agent"""
    lidar_mask: torch.Tensor | None = None
    """(C, T, N) bool"""
    agent_future: torch.Tensor | None = None
    """(C, A, 80, 4) `FUTURE_FIELDS`; None where the future is unknown"""
    agent_future_mask: torch.Tensor | None = None
    """(C, A, 80) bool"""
    center_future: torch.Tensor | None = None
    """(C, 80, 4)"""
    center_future_mask: torch.Tensor | None = None
    """(C, 80) bool"""
    center_position: torch.Tensor | None = None
    """(C, 3) zero of the row's frame in the scene frame"""
    center_heading: torch.Tensor | None = None
    """(C,) heading of the row's frame in the scene frame"""

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy on `device`; floating tensors become `dtype`."""
        moved: dict[str, torch.Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, torch.Tensor):
                moved[field.name] = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        return replace(self, **moved)
