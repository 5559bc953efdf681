"""The motion decoder: intention queries, refined layer by layer into trajectories and scores."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from limtr.config import ModelConfig
from limtr.decoder_layer import DecoderBranch
from limtr.dense_future import DenseFuture
from limtr.encoder import EncodedScene
from limtr.kinematics import add_path, constant_velocity_path, intention_path
from limtr.map_collection import collect_polylines
from limtr.mixture import NUM_PARAMETERS, full_precision
from limtr.mlp import NormMLP, PlainMLP
from limtr.position import sine_code


@dataclass(frozen=True, kw_only=True)
class LayerPrediction:
    """What one decoder layer predicts."""

    scores: torch.Tensor
    """(C, Q) logits"""
    trajectories: torch.Tensor
    """(C, Q, T, 7) `limtr.prediction.TRAJECTORY_FIELDS`"""


@dataclass(frozen=True, kw_only=True)
class DecoderOutputs:
    """Predictions of every layer, and the dense futures: what the loss needs."""

    layers: tuple[LayerPrediction, ...]
    dense: torch.Tensor
    """(C, A, T, 7) rough future of every agent, zero for invalid ones"""
    intentions: torch.Tensor
    """(C, Q, 2) intention points of each centre agent"""
    scene: EncodedScene


def _copies(module: nn.Module, count: int) -> nn.ModuleList:
    # All layers start alike, as MTR's do.
    return nn.ModuleList(copy.deepcopy(module) for _ in range(count))


class MotionDecoder(nn.Module):
    """EncodedScene and intention points to the predictions of every layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        settings, width = config.decoder, config.encoder.dim
        dim, map_dim, depth = settings.dim, settings.map_dim, settings.num_layers
        self.settings = settings
        self.num_future_steps = config.num_future_steps
        num_outputs = config.num_future_steps * NUM_PARAMETERS
        center_width = 2 * width if settings.lidar_with_center else width
        self.center_projection = PlainMLP(center_width, [dim, dim])
        self.agent_projection = PlainMLP(width, [dim, dim])
        self.map_projection = PlainMLP(width, [map_dim, map_dim])
        self.dense_future = DenseFuture(dim, config.num_future_steps)
        self.intention_mlp = NormMLP(dim, [dim], dim)
        self.agent_layers = self._branches(dim, config.attention)
        self.map_layers = self._branches(map_dim, config.attention)
        self.map_content_projections = _copies(nn.Linear(dim, map_dim), depth)
        self.map_embedding_projection = nn.Linear(dim, map_dim)
        self.fusions = _copies(NormMLP(2 * dim + map_dim, [dim], dim), depth)
        self.regression_heads = _copies(NormMLP(dim, [dim, dim], num_outputs), depth)
        self.score_heads = _copies(NormMLP(dim, [dim, dim], 1), depth)

    def _branches(self, dim: int, path: str) -> nn.ModuleList:
        settings = self.settings
        way = "gathered" if path == "gathered" else "dense"  # queries see a large share of the keys
        first = DecoderBranch(dim, settings.num_heads, settings.dropout, way, is_first=True)
        later = copy.deepcopy(first)
        later.ca_qpos_proj = None
        return nn.ModuleList([first, *_copies(later, settings.num_layers - 1)])

    def forward(self, scene: EncodedScene, intentions: torch.Tensor) -> DecoderOutputs:
        """Decode; `intentions` (C, Q, 2) in metres."""
        settings = self.settings
        center = scene.center
        if settings.lidar_with_center:
            assert scene.lidar is not None
            center = torch.cat((center, scene.lidar.squeeze(1)), dim=-1)
        center = self.center_projection(center)
        agents, agent_valid, agent_position = self._agent_tokens(scene)
        agent_path, query_path = self._paths(scene, intentions, agents.shape[1])
        agents, dense = self.dense_future(
            torch.where(agent_valid.unsqueeze(-1), agents, 0.0), agent_valid, agent_position, agent_path
        )
        polylines = torch.where(scene.polyline_valid.unsqueeze(-1), self.map_projection(scene.polylines), 0.0)
        polyline_xy = scene.polyline_position[..., :2]

        embedding = self.intention_mlp(sine_code(intentions, settings.dim))
        map_embedding = self.map_embedding_projection(embedding)
        agent_code, polyline_code = sine_code(agent_position, settings.dim), sine_code(polyline_xy, settings.map_dim)
        content = torch.zeros_like(embedding)
        looks_at, waypoints = intentions, intentions.unsqueeze(2)
        predictions = []
        for index in range(settings.num_layers):
            from_agents = self.agent_layers[index](
                content, embedding, sine_code(looks_at, settings.dim), agents, agent_code,
                agent_valid.unsqueeze(1), agents.shape[1],
            )  # fmt: skip
            collected = collect_polylines(
                waypoints, polyline_xy, scene.polyline_valid, base_center_m=settings.map_center_m,
                num_base=settings.num_base_polylines, num_waypoint=settings.num_waypoint_polylines,
            )  # fmt: skip
            from_map = self.map_layers[index](
                self.map_content_projections[index](content), map_embedding, sine_code(looks_at, settings.map_dim),
                polylines, polyline_code, collected, settings.num_base_polylines + settings.num_waypoint_polylines,
            )  # fmt: skip
            beside = center.unsqueeze(1).expand(-1, intentions.shape[1], -1)
            content = self.fusions[index](torch.cat((beside, from_agents, from_map), dim=-1))
            prediction = self._predict(index, content, intentions.dtype, query_path)
            predictions.append(prediction)
            waypoints = prediction.trajectories[..., :2]
            looks_at = waypoints[:, :, -1]
        return DecoderOutputs(
            layers=tuple(predictions), dense=dense[:, : scene.agents.shape[1]], intentions=intentions, scene=scene
        )

    def _agent_tokens(self, scene: EncodedScene) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Projected agents with validity and position, the LiDAR token among them if it is wanted there."""
        features, valid, position = scene.agents, scene.agent_valid, scene.agent_position
        if self.settings.lidar_with_agents:
            assert scene.lidar is not None
            assert scene.lidar_valid is not None
            assert scene.lidar_position is not None
            features = torch.cat((features, scene.lidar), dim=1)
            valid = torch.cat((valid, scene.lidar_valid), dim=1)
            position = torch.cat((position, scene.lidar_position), dim=1)
        return self.agent_projection(features), valid, position

    def _paths(
        self, scene: EncodedScene, intentions: torch.Tensor, num_tokens: int
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """What agent tokens and queries predict offsets from, if anything; the LiDAR token stands still."""
        if not self.settings.kinematic_paths:
            return None, None
        velocity = functional.pad(scene.agent_velocity, (0, 0, 0, num_tokens - scene.agent_velocity.shape[1]))
        return (
            constant_velocity_path(velocity, self.num_future_steps),
            intention_path(scene.center_velocity.to(intentions.dtype), intentions, self.num_future_steps),
        )

    def _predict(self, index: int, content: torch.Tensor, dtype: torch.dtype, path: torch.Tensor | None) -> LayerPrediction:
        # Metres and logits do not survive bfloat16: the heads run in the parameters' precision.
        with full_precision(content):
            exact = content.to(dtype)
            scores = self.score_heads[index](exact).squeeze(-1)
            trajectories = self.regression_heads[index](exact).unflatten(-1, (-1, NUM_PARAMETERS))
            if path is not None:
                trajectories = add_path(trajectories, path)
        return LayerPrediction(scores=scores, trajectories=trajectories)
