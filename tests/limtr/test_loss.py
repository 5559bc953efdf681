"""The training loss against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from limtr.agent_batch import AgentBatch
from limtr.config import LossConfig, ModelConfig
from limtr.decoder import DecoderOutputs, LayerPrediction
from limtr.loss import compute_loss
from limtr.mixture import step_nll
from limtr.predictor import MotionPredictor
from tests.limtr.model_builders import random_batch, small_config


def step(*, dx: float = 0.0, dy: float = 0.0, log_sx: float = 0.0, log_sy: float = 0.0, rho: float = 0.0) -> float:
    trajectory = torch.tensor([[-dx, -dy, log_sx, log_sy, rho, 0.0, 0.0]], dtype=torch.float64)
    return float(step_nll(trajectory, torch.zeros(1, 2, dtype=torch.float64))[0])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 0.0),
        ({"dx": 2.0}, 2.0),
        ({"dx": 2.0, "log_sx": math.log(2.0)}, 0.5 + math.log(2.0)),
        ({"log_sx": 99.0, "log_sy": -99.0}, 5.0 - 1.609),
        ({"rho": 0.3}, 0.5 * math.log(0.91)),
        ({"dx": 1.0, "dy": 1.0, "rho": 0.5}, 0.5 * math.log(0.75) + 0.5 / 0.75 * (2 - 1.0)),
        ({"dx": 1.0, "dy": 1.0, "rho": 0.9}, 0.5 * math.log(0.75) + 0.5 / 0.75 * (2 - 1.0)),
    ],
)
def test_likelihood_of_a_step(arguments: dict[str, float], expected: float) -> None:
    assert step(**arguments) == pytest.approx(expected)


def case(config: ModelConfig | None = None) -> tuple[DecoderOutputs, AgentBatch, ModelConfig]:
    config = small_config() if config is None else config
    torch.manual_seed(0)
    batch = random_batch(config)
    outputs = MotionPredictor(config).double().train().decode(batch)
    return outputs, batch, config


def terms(outputs: DecoderOutputs, batch: AgentBatch, config: ModelConfig, **changes: object) -> dict[str, float]:
    loss = compute_loss(outputs, batch, replace(config, loss=replace(config.loss, **changes)))
    return {name: float(value.detach()) for name, value in {**loss.terms, "total": loss.total}.items()}


def test_the_total_is_the_mean_of_the_layers_and_the_dense_loss() -> None:
    found = terms(*case())
    assert found["total"] == pytest.approx((found["layer0"] + found["layer1"]) / 2 + found["dense"])
    parts = [found[f"layer0_{part}"] for part in ("regression", "velocity", "classification")]
    assert found["layer0"] == pytest.approx(sum(parts))


def with_side_head() -> ModelConfig:
    config = small_config()
    return replace(config, loss=replace(config.loss, lidar_side_weight=2.0))


def test_the_side_that_points_tell_is_compared_with_the_way_of_the_coming_seconds() -> None:
    outputs, batch, config = case(with_side_head())
    steps = min(30, config.num_future_steps)
    assert batch.center_future is not None
    assert batch.center_future_mask is not None
    assert outputs.scene.lidar_side is not None
    assert outputs.scene.lidar_valid is not None
    agents = len(batch.center_future)
    future = torch.zeros_like(batch.center_future)
    future[..., 0], future[..., 1] = 50.0, 0.25
    future[1, :, 1] = 40.0  # counts as 3 m
    mask = torch.zeros_like(batch.center_future_mask)
    mask[:, 0] = mask[:, steps - 1] = True
    batch = replace(batch, center_future=future, center_future_mask=mask)
    said = torch.full((agents, steps), 0.75, dtype=torch.float64)
    said[:, 1 : steps - 1] = 9.0  # unknown steps do not count
    has_points = torch.arange(agents).unsqueeze(1) != 2
    scene = replace(outputs.scene, lidar_side=said, lidar_valid=has_points)
    errors = [0.5**2] * agents
    errors[1], errors[2] = (3.0 - 0.75) ** 2, 0.0
    found = terms(replace(outputs, scene=scene), batch, config)
    assert found["lidar_side"] == pytest.approx(2.0 * sum(errors) / agents)
    rest = (found["layer0"] + found["layer1"]) / 2 + found["dense"]
    assert found["total"] == pytest.approx(rest + found["lidar_side"])


def test_the_head_for_the_side_learns_from_points_and_changes_no_prediction() -> None:
    outputs, batch, config = case(with_side_head())
    assert outputs.scene.lidar_side is not None
    model = MotionPredictor(config).double().train()
    terms_of = compute_loss(model.decode(batch), batch, config).terms
    terms_of["lidar_side"].backward()
    touched = {name.split(".")[1] for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert touched == {"lidar_encoder", "lidar_side_head"}
    plain = MotionPredictor(small_config()).double().eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "lidar_side_head" not in name})
    with torch.no_grad():
        assert torch.equal(plain(batch).trajectories, model.eval()(batch).trajectories)


def test_without_lidar_there_is_no_side_to_tell() -> None:
    assert with_side_head().without_lidar().loss.lidar_side_weight == 0.0
    with pytest.raises(ValueError, match="lidar_side_weight needs"):
        replace(small_config().without_lidar(), loss=LossConfig(lidar_side_weight=1.0))


def test_weights_scale_their_terms() -> None:
    everything = case()
    one = terms(*everything)
    more = terms(*everything, regression_weight=2.0, velocity_weight=1.5, classification_weight=7.0, dense_weight=3.0)
    assert more["layer1_regression"] == pytest.approx(2 * one["layer1_regression"])
    assert more["layer1_velocity"] == pytest.approx(3 * one["layer1_velocity"])
    assert more["layer1_classification"] == pytest.approx(7 * one["layer1_classification"])
    assert more["dense"] == pytest.approx(3 * one["dense"])


def test_the_reference_sums_the_classification_over_agents_but_reports_its_mean() -> None:
    everything = case()
    mean, summed = terms(*everything), terms(*everything, classification_reduction="sum")
    assert summed["layer0_classification"] == pytest.approx(mean["layer0_classification"])
    assert summed["layer0"] - mean["layer0"] == pytest.approx(3 * mean["layer0_classification"])


def test_the_positive_query_is_the_one_whose_intention_is_nearest_to_the_last_valid_position() -> None:
    outputs, batch, config = case()
    intentions = 1000.0 * torch.arange(1.0, 9.0, dtype=torch.float64)[None, :, None].expand(4, 8, 2)
    future, mask = torch.zeros(4, 80, 4, dtype=torch.float64), torch.zeros(4, 80, dtype=torch.bool)
    future[:, 40, :2] = intentions[:, 3] + 1.0
    future[:, 60, :2] = float("nan")
    mask[:, :41] = True
    logits = torch.full((4, 8), -1e3, dtype=torch.float64)
    logits[:, 3] = 1e3
    layer = LayerPrediction(scores=logits, trajectories=outputs.layers[0].trajectories)
    outputs = replace(outputs, layers=(layer,), intentions=intentions)
    found = terms(outputs, replace(batch, center_future=future, center_future_mask=mask), config)
    assert found["layer0_classification"] == pytest.approx(0.0)


@pytest.mark.parametrize(("neighbours", "share_of_positive"), [(0, 0.9 + 0.1 / 8), (2, 0.9 + 0.1 / 2), (8, 0.9 + 0.1 / 8)])
def test_label_smoothing_spreads_its_share(neighbours: int, share_of_positive: float) -> None:
    outputs, batch, config = case()
    big = torch.zeros(4, 8, dtype=torch.float64)
    assert batch.center_future is not None
    assert batch.center_future_mask is not None
    steps = torch.arange(80) * batch.center_future_mask
    ends = batch.center_future[torch.arange(4), steps.amax(-1), :2]
    positive = (outputs.intentions - ends[:, None]).norm(dim=-1).argmin(-1)
    big[torch.arange(4), positive] = 50.0
    layer = LayerPrediction(scores=big, trajectories=outputs.layers[0].trajectories)
    found = terms(replace(outputs, layers=(layer,)), batch, config, label_smoothing=0.1, label_smoothing_neighbors=neighbours)
    # With one logit 50 above the rest, every unit of probability elsewhere costs 50.
    assert found["layer0_classification"] == pytest.approx(50.0 * (1 - share_of_positive), rel=1e-6)


def test_class_weights_weigh_agents_by_their_class() -> None:
    outputs, batch, config = case()
    only = replace(batch, center_type=torch.tensor([1, 2, 2, 3]))
    parts = [
        terms(outputs, only, config, class_weights=weights)["layer0"]
        for weights in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (2.0, 3.0, 4.0))
    ]
    assert parts[3] == pytest.approx(2 * parts[0] + 3 * parts[1] + 4 * parts[2])
    for kind, weights in ((1, (0.0, 5.0, 6.0)), (2, (5.0, 0.0, 6.0)), (3, (5.0, 6.0, 0.0))):
        alike = replace(batch, center_type=torch.full((4,), kind))
        assert terms(outputs, alike, config, class_weights=weights)["layer0"] == 0.0


def test_the_parts_of_a_layer_are_told_before_class_weights() -> None:
    outputs, batch, config = case()
    plain, weighted = terms(outputs, batch, config), terms(outputs, batch, config, class_weights=(7.0, 7.0, 7.0))
    assert weighted["layer1"] == pytest.approx(7 * plain["layer1"])
    for part in ("regression", "velocity", "classification"):
        assert weighted[f"layer1_{part}"] == plain[f"layer1_{part}"]


def test_agents_without_a_future_are_left_out_unless_the_reference_is_asked_for() -> None:
    outputs, batch, config = case()
    assert batch.center_future_mask is not None
    mask = batch.center_future_mask.clone()
    mask[1:] = False
    hidden = replace(batch, center_future_mask=mask)
    loss = compute_loss(outputs, hidden, config)
    gradient = torch.autograd.grad(loss.terms["layer0"], outputs.layers[0].scores, retain_graph=True)[0]
    assert gradient[0].any()
    assert not gradient[1:].any()
    quirk = replace(config, loss=LossConfig(reference_unknown_futures=True))
    gradient = torch.autograd.grad(compute_loss(outputs, hidden, quirk).terms["layer0"], outputs.layers[0].scores)[0]
    assert gradient.any(dim=-1).all()


def test_agents_without_a_history_are_left_out_of_the_dense_loss_unless_the_reference_is_asked_for() -> None:
    outputs, batch, config = case()
    unseen = ~outputs.scene.agent_valid
    assert batch.agent_future_mask is not None
    assert unseen.any()
    assert batch.agent_future_mask[unseen].any()
    forgotten = replace(batch, agent_future_mask=batch.agent_future_mask & ~unseen[..., None])
    assert terms(outputs, batch, config)["dense"] == terms(outputs, forgotten, config)["dense"]
    quirk = {"reference_unseen_agents": True}
    assert terms(outputs, batch, config, **quirk)["dense"] != terms(outputs, forgotten, config, **quirk)["dense"]


def test_a_batch_without_futures_is_refused() -> None:
    outputs, batch, config = case()
    with pytest.raises(ValueError, match="no center_future"):
        compute_loss(outputs, replace(batch, center_future=None), config)
    with pytest.raises(ValueError, match="no agent_future"):
        compute_loss(outputs, replace(batch, agent_future=None), config)
