"""A model that is trained in milliseconds, and what its tests share."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limtr.config import ModelConfig, tiny
from limtr.intentions import save_intentions
from limtr.predictor import MotionPredictor
from limtr.scene import PREDICTED_TYPES, FloatArray, ObjectType
from preprocessing.shards import scene_entry
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset
from training.config import Recipe, TrainConfig
from training.data import SelectedScenes, select
from training.loop import Trainer
from training.session import Session

NUM_QUERIES = 8
SCENES = [tiny_scene(seed, num_tracks=4, num_targets=2) for seed in range(6)]
CPU = torch.device("cpu")


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


def small_model(seed: int = 0) -> MotionPredictor:
    torch.manual_seed(seed)
    return MotionPredictor(small_config())


def recipe(**options: Any) -> Recipe:
    given = {"steps": 4, "batch_size": 2, "validate_every": 0, "schedule": "cosine", "learning_rate": 1e-3, **options}
    return TrainConfig(data=Path("data"), out=Path("run"), **given).recipe(on_cuda=False)


def session(run: Path, wanted: Recipe, *, fingerprint: str = "data", minade: float = 1.0, seed: int = 0) -> Session:
    index = [scene_entry(scene, row) for row, scene in enumerate(SCENES)]
    chosen = select(index, range(len(SCENES)), wanted.object_types, wanted.max_distance_m)
    scenes = SelectedScenes(SCENES, chosen, drop_vehicles=wanted.drop_vehicles, seed=wanted.seed)
    trainer = Trainer(small_model(seed), scenes, wanted, device=CPU)
    return Session(trainer, run, validate=lambda: {"minADE": minade}, data_fingerprint=fingerprint, licence="CC0")


def small_dataset(folder: Path) -> Path:
    """Shards of four small scenes to train on, with their intention points."""
    write_dataset(folder, {"train": SCENES[:4]})
    save_intentions(folder, small_intentions())
    return folder
