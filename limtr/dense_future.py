"""Dense future prediction: a rough future of every agent, fed back into the agents' features."""

from __future__ import annotations

import torch
from torch import nn

from limtr.kinematics import add_path
from limtr.mixture import NUM_PARAMETERS, full_precision
from limtr.mlp import NormMLP, PlainMLP


class DenseFuture(nn.Module):
    """Predicts every agent's future from its feature and mixes that future into the feature.

    Source: MTR, section "dense future prediction".
    """

    def __init__(self, dim: int, num_future_steps: int) -> None:
        super().__init__()
        self.position_mlp = PlainMLP(2, [dim, dim, dim])
        self.head = NormMLP(2 * dim, [dim, dim], num_future_steps * NUM_PARAMETERS)
        self.trajectory_mlp = PlainMLP(4 * num_future_steps, [dim, dim, dim])
        self.fusion_mlp = PlainMLP(2 * dim, [dim, dim, dim])

    def forward(
        self, feature: torch.Tensor, valid: torch.Tensor, position: torch.Tensor, path: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict and fuse.

        Args:
            feature: (C, A, D).
            valid: (C, A) bool.
            position: (C, A, 2 or more) last valid position, metres.
            path: (C, A, T, 4) x, y relative to the position, vx, vy from which the prediction is an offset; None: zeros.

        Returns:
            features (C, A, D) and trajectories (C, A, T, 7) in the centre agent's frame; both zero for invalid agents.
        """
        xy = position[..., :2]
        with full_precision(feature):
            # Metres do not survive bfloat16.
            exact = feature.to(xy.dtype)
            raw = self.head(torch.cat((self.position_mlp(xy), exact), dim=-1), valid).unflatten(-1, (-1, NUM_PARAMETERS))
            raw = raw if path is None else add_path(raw, path)
            trajectory = torch.cat((raw[..., :2] + xy.unsqueeze(-2), raw[..., 2:]), dim=-1)
            trajectory = torch.where(valid[..., None, None], trajectory, 0.0)
            states = trajectory[..., [0, 1, 5, 6]].flatten(start_dim=-2)
        fused = self.fusion_mlp(torch.cat((feature, self.trajectory_mlp(states).to(feature.dtype)), dim=-1))
        return torch.where(valid.unsqueeze(-1), fused, 0.0), trajectory
