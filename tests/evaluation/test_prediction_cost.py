"""What a prediction costs, dense and at its links."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from evaluation.prediction_cost import prediction_cost
from limtr.predictor import MotionPredictor
from tests.builders import tiny_scene
from tests.training.small import small_model

SCENES = [tiny_scene(seed, num_tracks=4, num_targets=2) for seed in range(3)]


def halved(model: MotionPredictor, *endings: str) -> int:
    """Set the first half of the rows of some weights to zero; returns how many zeros that makes."""
    zeros = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(endings):
                parameter[: len(parameter) // 2] = 0.0
                zeros += parameter[: len(parameter) // 2].numel()
    return zeros


def test_a_dense_model_has_as_many_links_as_parameters() -> None:
    model = small_model()
    cost = prediction_cost(model, SCENES)
    assert cost is not None
    assert cost.links == cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert cost.sparse_flops == cost.flops
    assert "dense" in str(cost)
    with FlopCounterMode(display=False) as counter:
        model.predict(SCENES)
    assert cost.flops == pytest.approx(counter.get_total_flops() / 6, rel=0.05)


def test_zeros_of_linear_and_packed_weights_are_no_links() -> None:
    model = small_model()
    zeros = halved(model, "linear1.weight", "in_proj_weight")
    cost = prediction_cost(model, SCENES)
    assert cost is not None
    assert cost.parameters - cost.links == zeros
    assert cost.sparse_flops < cost.flops
    assert f"{cost.links:,}" in str(cost)


def test_the_model_is_left_as_it_was_and_nothing_to_predict_is_no_cost() -> None:
    model = small_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert prediction_cost(model, SCENES) is not None
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert prediction_cost(model, [tiny_scene(0, num_targets=0)]) is None
