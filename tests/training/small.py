"""A model that is trained in milliseconds, and what its tests share."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from limtr.config import ModelConfig, tiny
from limtr.scene import PREDICTED_TYPES, FloatArray, ObjectType

NUM_QUERIES = 8


def small_config() -> ModelConfig:
    """The tiny preset with every part once, and small."""
    config = tiny()
    return replace(
        config,
        view=replace(config.view, num_polylines=8, num_lidar_points=8),
        encoder=replace(
            config.encoder,
            agents=replace(config.encoder.agents, hidden_dim=16),
            polylines=replace(config.encoder.polylines, hidden_dim=16),
            dim=16,
            num_layers=1,
            num_heads=2,
        ),
        decoder=replace(config.decoder, dim=16, map_dim=16, num_layers=1, num_heads=2, num_queries=NUM_QUERIES),
    )


def small_intentions(num_queries: int = NUM_QUERIES) -> dict[ObjectType, FloatArray]:
    rng = np.random.default_rng(0)
    return {kind: rng.uniform(-20, 20, (num_queries, 2)).astype(np.float32) for kind in PREDICTED_TYPES}


def assert_same_tensors(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name
