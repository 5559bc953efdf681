from pathlib import Path
from typing import Any

import pytest

from training.config import PRESETS, TrainConfig

HERE = {"data": Path("data"), "out": Path("run")}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resolves(preset: Any) -> None:
    recipe = TrainConfig(**HERE, preset=preset).recipe(on_cuda=False)
    assert (recipe.preset, recipe.precision, recipe.lidar) == (preset, "fp32", preset != "mtr")
    assert TrainConfig(**HERE, preset=preset).recipe(on_cuda=True).precision == "bf16"


def test_given_options_replace_the_presets() -> None:
    recipe = TrainConfig(**HERE, learning_rate=0.5, lidar=False, classes=("cyclist",)).recipe(on_cuda=False)
    assert (recipe.learning_rate, recipe.lidar, recipe.classes) == (0.5, False, ("cyclist",))


def test_the_average_of_a_preset_can_be_left_out() -> None:
    assert TrainConfig(**HERE).recipe(on_cuda=False).ema_decay == 0.99
    assert TrainConfig(**HERE, ema_decay=0).recipe(on_cuda=False).ema_decay is None


@pytest.mark.parametrize(("option", "kept"), [({"steps": 5}, None), ({"minutes": 1.0}, None), ({"steps": 5, "epochs": 2}, 2)])
def test_steps_or_minutes_alone_set_the_length(option: dict[str, Any], kept: int | None) -> None:
    assert TrainConfig(**HERE, **option).recipe(on_cuda=False).epochs == kept


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"batch_size": 0}, "batch_size must be above 0, is 0"),
        ({"fraction": 1.5}, "fraction .* is 1.5"),
        ({"ema_decay": 1.0}, "ema_decay .* is 1.0"),
        ({"learning_rate": -1.0}, "learning_rate .* is -1.0"),
        ({"drop_map": 1.0}, "drop_map .* is 1.0"),
        ({"classes": ()}, "classes"),
        ({"weight_decay": -0.1}, "weight_decay .* is -0.1"),
    ],
)
def test_a_wrong_option_is_named_with_its_value(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**HERE, **option).recipe(on_cuda=False)
