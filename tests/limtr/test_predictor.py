"""The predictor as a whole: what must not change its answer, and what it must survive."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limtr.agent_batch import AgentBatch
from limtr.config import LossConfig, ModelConfig, limtr, mtr, tiny
from limtr.decoder import DecoderOutputs, LayerPrediction
from limtr.loss import compute_loss
from limtr.prediction import Prediction
from limtr.predictor import MotionPredictor
from limtr.scene import PREDICTED_TYPES
from tests.limtr.model_builders import random_batch, small_config, with_garbage


def small_model(config: ModelConfig, seed: int = 0) -> MotionPredictor:
    torch.manual_seed(seed)
    return MotionPredictor(config).double()


def answers(model: MotionPredictor, batch: AgentBatch) -> dict[str, torch.Tensor]:
    """Evaluation modes, training loss and every gradient."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    prediction = model.eval()(batch)
    assert isinstance(prediction, Prediction)
    model.train().zero_grad()
    outputs = model(batch)
    assert isinstance(outputs, DecoderOutputs)
    total = compute_loss(outputs, batch, model.config).total
    total.backward()
    gradients = {f"grad {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.load_state_dict(state)
    found = {"trajectories": prediction.trajectories, "scores": prediction.scores, "loss": total, **gradients}
    return {name: value.detach().clone() for name, value in found.items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(value.abs().max()) for name, value in expected.items() if value.numel() and name.startswith("grad"))
    for name, value in expected.items():
        floor = 1e-11 * largest if name.startswith("grad") else 1e-9
        torch.testing.assert_close(found[name], value, rtol=1e-7, atol=max(floor, 1e-12), msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("preset", "parameters"), [(mtr, 64_139_094), (limtr, 85_745_750)])
def test_presets_have_the_published_sizes_less_what_is_never_trained(preset, parameters: int) -> None:
    with torch.device("meta"):
        model = MotionPredictor(preset())
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == parameters


@settings(max_examples=6, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30]),
    st.sampled_from(["linear", "pooled", None]),
    st.sampled_from(["dense", "gathered"]),
)
def test_garbage_in_masked_slots_changes_neither_outputs_nor_gradients(seed, garbage, lidar, path) -> None:
    config = replace(small_config(lidar=lidar), attention=path)
    model, batch = small_model(config, seed), random_batch(config, seed=seed, share_valid=0.6)
    clean = answers(model, with_garbage(batch, 0.0))
    spoilt = answers(model, with_garbage(batch, garbage))
    for name, value in clean.items():
        assert torch.equal(spoilt[name], value), name
        assert torch.isfinite(value).all(), name


def test_garbage_never_acts_where_graphs_keep_their_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiled and exported graphs work on padded tensors, not on the valid rows alone.
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    config = small_config(lidar="linear")
    model, batch = small_model(config), random_batch(config, share_valid=0.6)
    assert_same(answers(model, with_garbage(batch, float("nan"))), answers(model, with_garbage(batch, 0.0)))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000))
def test_the_order_of_agents_polylines_points_and_rows_does_not_matter(seed: int) -> None:
    config = small_config()
    model, batch = small_model(config), random_batch(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rows, agents, polylines, points = (torch.randperm(n, generator=generator) for n in (4, 5, 12, 6))
    assert batch.lidar_points is not None
    assert batch.lidar_mask is not None
    changes: dict[str, torch.Tensor] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if value is None:
            continue
        if field.name.startswith("agent_"):
            value = value[:, agents]
        if field.name.startswith("polyline"):
            value = value[:, polylines]
        if field.name.startswith("lidar_"):
            value = value[:, :, points]
        if field.name == "center_index":
            value = agents.argsort()[value]
        changes[field.name] = value[rows]
    expected, found = answers(model, batch), answers(model, replace(batch, **changes))
    back = rows.argsort()
    for name in ("trajectories", "scores"):
        found[name] = found[name][back]
    assert_same(found, expected)


@pytest.mark.parametrize("lidar", ["linear", "pooled", None])
def test_both_attention_paths_and_more_padding_give_the_same(lidar: str | None) -> None:
    config = small_config(lidar=lidar)
    model, batch = small_model(config), random_batch(config)
    expected = answers(model, batch)
    gathered = MotionPredictor(replace(config, attention="gathered")).double()
    gathered.load_state_dict(model.state_dict())
    assert_same(answers(gathered, batch), expected)
    padded = replace(
        batch,
        **{
            name: torch.cat((getattr(batch, name), torch.zeros_like(getattr(batch, name))), dim=1)
            for name in ("agent_history", "agent_history_mask", "agent_last_position", "agent_future", "agent_future_mask")
        },
        **{
            name: torch.cat((getattr(batch, name), torch.zeros_like(getattr(batch, name))), dim=1)
            for name in ("polylines", "polyline_mask", "polyline_center")
        },
    )
    assert_same(answers(model, padded), expected)


def test_empty_batches_missing_maps_and_missing_lidar_work() -> None:
    config = small_config()
    model, batch = small_model(config), random_batch(config)
    assert batch.lidar_mask is not None
    no_map = replace(batch, polyline_mask=torch.zeros_like(batch.polyline_mask))
    cut = {name: getattr(batch, name)[:, :0] for name in ("polylines", "polyline_mask", "polyline_center")}
    masked_lidar = replace(batch, lidar_mask=torch.zeros_like(batch.lidar_mask))
    none_lidar = replace(batch, lidar_points=None, lidar_mask=None)
    for case in (no_map, replace(batch, **cut), masked_lidar, none_lidar, replace(none_lidar, **cut)):
        found = answers(model, case)
        assert all(torch.isfinite(value).all() for value in found.values())
        # Ranks of a distributed run must stay in step: every parameter has a gradient whatever the batch holds.
        assert sum(name.startswith("grad") for name in found) == len(list(model.parameters()))
    assert_same(answers(model, none_lidar), answers(model, masked_lidar))
    empty = answers(model, random_batch(config, num_centers=0))
    assert empty["trajectories"].shape == (0, 6, 80, 7)
    assert float(empty["loss"]) == 0.0
    assert sum(name.startswith("grad") for name in empty) == len(list(model.parameters()))
    one = answers(model, random_batch(config, num_centers=1))
    assert all(torch.isfinite(value).all() for value in one.values())


def test_lidar_reaches_the_prediction_through_each_place_of_fusion() -> None:
    config = small_config()
    batch = random_batch(config)
    assert batch.lidar_points is not None
    moved = replace(batch, lidar_points=batch.lidar_points + 1.0)
    for places in ({}, {"lidar_with_center": True}, {"lidar_with_agents": True}):
        off = replace(config.decoder, lidar_with_center=False, lidar_with_agents=False)
        # Without neighbours to see, the encoder's token alone reaches nothing.
        variant = replace(config, decoder=replace(off, **places), encoder=replace(config.encoder, num_neighbors=1))
        model = small_model(variant).eval()
        same = torch.equal(model(batch).trajectories, model(moved).trajectories)
        assert same == (not places)
    wide = replace(config, decoder=replace(config.decoder, lidar_with_center=False, lidar_with_agents=False))
    wide = replace(wide, encoder=replace(wide.encoder, num_neighbors=50))
    model = small_model(wide).eval()
    assert not torch.equal(model(batch).trajectories, model(moved).trajectories)


def test_all_layers_of_a_stack_start_alike() -> None:
    state = MotionPredictor(small_config()).state_dict()
    for name, value in state.items():
        if name.startswith(("decoder.fusions.1", "decoder.score_heads.1", "decoder.agent_layers.1", "decoder.map_layers.1")):
            assert torch.equal(value, state[name.replace(".1.", ".0.", 1)])


def test_dropout_acts_in_training_only() -> None:
    config = small_config(dropout=0.3)
    model, batch = small_model(config), random_batch(config)
    first, second = (model.train().decode(batch).layers[-1].trajectories for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (model.eval().decode(batch).layers[-1].trajectories for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_autocast_stays_near_and_predicts_in_float32(training: bool) -> None:
    config = small_config()
    model = small_model(config).float().train(training)
    batch = random_batch(config, dtype=torch.float32)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    exact = model.decode(batch)
    model.load_state_dict(state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.decode(batch)
        loss = compute_loss(rough, batch, config).total
    loss.backward()
    assert rough.layers[-1].trajectories.dtype == torch.float32
    assert loss.dtype == torch.float32
    # Norms over a handful of rows blow rounding up in training, so that only the loss is comparable there.
    torch.testing.assert_close(loss, compute_loss(exact, batch, config).total, rtol=0.1, atol=0.0)
    if not training:
        scale = exact.layers[-1].trajectories.abs().max()
        assert (rough.layers[-1].trajectories - exact.layers[-1].trajectories).abs().max() < 0.2 * scale
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_every_class_has_its_own_suppression_distance() -> None:
    config = replace(small_config(), num_modes=2, nms_distance_m=(0.5, 1.5, 3.5))
    model, batch = small_model(config).eval(), random_batch(config, num_centers=3)
    outputs = model.decode(batch)
    trajectories = torch.zeros_like(outputs.layers[-1].trajectories)
    # Query q ends q metres ahead and is the better the smaller q is.
    trajectories[..., -1, 0] = torch.arange(8)
    last = LayerPrediction(scores=-torch.arange(8.0, dtype=torch.float64).expand(3, -1), trajectories=trajectories)
    prediction = model.select(replace(outputs, layers=(last,)), torch.tensor([1, 2, 3]))
    assert prediction.trajectories[:, :, -1, 0].tolist() == [[0.0, 1.0], [0.0, 2.0], [0.0, 4.0]]


def test_every_class_has_its_own_intention_points() -> None:
    config = small_config()
    model, batch = small_model(config).eval(), random_batch(config)
    points = {kind: np.full((8, 2), float(kind)) + np.arange(8)[:, None] for kind in PREDICTED_TYPES}
    model.set_intentions(points)
    for kind in PREDICTED_TYPES:
        same_kind = replace(batch, center_type=torch.full_like(batch.center_type, int(kind)))
        outputs = model.decode(same_kind)
        assert torch.equal(outputs.intentions[0], torch.as_tensor(points[kind]))
    model.set_intentions({kind: np.zeros((9, 2)) for kind in PREDICTED_TYPES})
    assert model.config.decoder.num_queries == 9
    assert model.decode(batch).layers[0].scores.shape == (4, 9)


def test_a_batch_of_another_view_is_refused_with_the_remedy() -> None:
    model = small_model(small_config())
    other = random_batch(replace(small_config(), num_agent_channels=30))
    with pytest.raises(ValueError, match=r"agent_history must have 29 channels, has 30.*config\.view"):
        model(other)
    assert replace(small_config(), loss=LossConfig()) == small_config()


def test_the_demo_model_reads_lidar_and_is_small() -> None:
    config = tiny()
    assert config.view.use_lidar
    assert 300_000 < sum(p.numel() for p in MotionPredictor(config).parameters()) < 1_200_000
    assert sum(p.numel() for p in MotionPredictor(config.without_lidar()).parameters()) > 0
