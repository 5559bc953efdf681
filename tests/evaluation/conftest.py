"""A small dataset and an untrained model that all tests of the verbs share."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from limtr.config import ModelConfig, tiny
from limtr.predictor import MotionPredictor
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset


def tiny_model_config() -> ModelConfig:
    config = tiny().without_lidar()
    return replace(config, view=replace(config.view, num_polylines=8))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = MotionPredictor(tiny_model_config())
    model.licence = "test terms"
    return model.save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenes = [tiny_scene(seed, with_lidar=False) for seed in range(5)]
    return write_dataset(
        tmp_path_factory.mktemp("dataset"),
        {
            "train": [tiny_scene(90, with_lidar=False)],
            "validation": scenes,
            "test": [tiny_scene(80, num_steps=11, with_lidar=False)],
        },
    )
