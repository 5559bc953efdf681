"""Model configurations: validated, and the same after a trip through JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from limtr.config import DecoderConfig, EncoderConfig, LossConfig, ModelConfig, limtr, mtr, tiny
from limtr.config_json import config_from_json, config_to_json
from tests.limtr.model_builders import small_config


@pytest.mark.parametrize(
    "config", [mtr(), limtr(), tiny(), small_config(lidar="pooled")], ids=["mtr", "limtr", "tiny", "pooled"]
)
def test_json_brings_a_configuration_back(config: ModelConfig) -> None:
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("depth",), 3, r"run/config\.json has unknown keys \['depth'\]"),
        (("encoder", "dim"), "wide", r"encoder\.dim must be of type int, is 'wide'"),
        (("encoder", "dim"), True, r"encoder\.dim must be of type int"),
        (("encoder", "num_heads"), 3, r"run/config\.json\.encoder: encoder: dim \(256\) must be a multiple"),
        (("decoder", "map_center_m"), [1.0], r"map_center_m must have 2 entries, has 1"),
        (("loss", "classification_reduction"), "median", r"must be one of \('mean', 'sum'\), is 'median'"),
        (("encoder", "agents"), {"hidden_dim": 3}, r"encoder\.agents lacks \['num_layers'\]"),
        (("loss",), [], r"loss must be an object"),
    ],
)
def test_what_json_must_not_say(path: tuple[str, ...], value: object, message: str) -> None:
    plain = config_to_json(mtr())
    inner = plain
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        config_from_json(plain, where="run/config.json")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EncoderConfig(dim=30), r"dim \(30\) must be a multiple of 4"),
        (lambda: EncoderConfig(dropout=1.0), "dropout must be"),
        (lambda: DecoderConfig(num_base_polylines=0, num_waypoint_polylines=0), "must not both be 0"),
        (lambda: DecoderConfig(num_layers=0), "num_layers must be at least 1, is 0"),
        (lambda: LossConfig(label_smoothing=1.0), "label_smoothing"),
        (lambda: LossConfig(class_weights=(1.0, -1.0, 1.0)), "must not be negative"),
        (lambda: replace(mtr(), num_modes=65), r"num_modes \(65\) must not exceed"),
        (lambda: replace(mtr(), nms_distance_m=(1.0, -1.0, 1.0)), "nms_distance_m"),
        (lambda: replace(limtr(), encoder=EncoderConfig()), "give both or neither"),
        (lambda: ModelConfig(decoder=DecoderConfig(lidar_with_center=True)), "need encoder.lidar"),
    ],
)
def test_contradictions_are_refused_with_the_value(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_model_can_lose_its_lidar_branch() -> None:
    config = limtr().without_lidar()
    assert not config.view.use_lidar
    assert config.without_lidar() == config
