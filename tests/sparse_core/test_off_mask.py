"""Weights off the mask: where they are in and between steps, and what a training loop may do with them around."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparse_core
from sparse_core import Method, OffMask, Structure, masks
from tests.sparse_core.off_mask_runs import DATA, DOUBLE, KAST, METHODS, STE, close, everything, started
from tests.sparse_core.small_trainings import Training, backward, copied, mlp, same, through_a_file, training


@METHODS
def test_first_links_are_the_largest_weights_and_the_engine_holds_the_others(method: Method) -> None:
    dense = copied(dict(mlp(8, 16, 4).named_parameters()))
    run = started(method)
    for name, mask in run.engine.masks.items():
        assert torch.equal(run.engine.dense_weights()[name], dense[name])
        assert torch.equal(run.model.get_parameter(name), dense[name] * mask)
        assert torch.equal(run.engine.off_mask[name], dense[name] * ~mask)
        if method is KAST:
            assert dense[name][mask].abs().min() > dense[name][~mask].abs().max()


@METHODS
def test_the_optimizer_sees_what_moves_and_the_model_has_links_alone(method: Method) -> None:
    run = started(method)
    seen: list[dict[str, Tensor]] = []
    run.optimizer.register_step_pre_hook(lambda *_: seen.append(copied(dict(run.model.named_parameters()))))
    for batch in DATA[:4]:
        dense, moving = run.engine.dense_weights(), {layer.name: layer.moving.clone() for layer in run.engine._layers}
        run.step(batch)
        for name in run.engine.masks:
            assert torch.equal(seen[-1][name], dense[name] * moving[name])
            assert not run.model.get_parameter(name)[~run.engine.masks[name]].any()
            assert not run.engine.off_mask[name][run.engine.masks[name]].any()


def test_what_top_kast_does_not_move_stays_bit_for_bit_under_any_decay() -> None:
    for optimizer in ("SGD", "AdamW", "Muon", "Adafactor"):
        options = {"momentum": 0.9} if optimizer == "SGD" else {}
        model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 4, bias=False))
        run = training(model, sparse_core.TopKAST(0.25, every=5), optimizer, weight_decay=0.1, **options)
        before = run.engine.dense_weights()
        for batch in DATA[:4]:
            run.step(batch)
        after = run.engine.dense_weights()
        for layer in run.engine._layers:
            assert torch.equal(after[layer.name][~layer.moving], before[layer.name][~layer.moving]), optimizer
            assert (after[layer.name] != before[layer.name])[layer.moving & ~layer.mask].any(), optimizer


@METHODS
def test_micro_batches_make_the_step_of_the_whole_batch(method: Method) -> None:
    whole, parts = (started(method, "SGD", torch.float64) for _ in range(2))
    for x, y in DOUBLE[:6]:
        whole.step((x, y))
        parts.optimizer.zero_grad()
        for some in range(4):
            backward(parts.model, (x[2 * some : 2 * some + 2], y[2 * some : 2 * some + 2]), share=0.25)
        parts.optimizer.step()
    assert close(everything(parts), everything(whole))


@METHODS
def test_a_closure_makes_the_same_step(method: Method) -> None:
    plain, closed = (started(method) for _ in range(2))
    for batch in DATA[:5]:
        plain.step(batch)

        def closure(batch: tuple[Tensor, Tensor] = batch) -> Tensor:
            closed.optimizer.zero_grad()
            return backward(closed.model, batch)

        closed.optimizer.step(closure)  # type: ignore[arg-type]
    assert same(everything(plain), everything(closed))


def test_clipping_sees_the_gradients_of_what_moves_without_the_penalty() -> None:
    run = started(sparse_core.TopKAST(0.25, every=100, penalty=5.0), "SGD", torch.float64)
    for batch in DOUBLE[:3]:
        run.optimizer.zero_grad()
        backward(run.model, batch)
        gradients = {name: p.grad.clone() for name, p in run.model.named_parameters()}  # type: ignore[union-attr]
        for layer in run.engine._layers:
            assert not gradients[layer.name][~layer.moving].any()
            assert gradients[layer.name][layer.moving & ~layer.mask].any()
        norm = nn.utils.clip_grad_norm_(run.model.parameters(), 1e9)
        wanted = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
        assert float(norm) == pytest.approx(wanted)
        run.optimizer.step()


def test_a_step_without_gradients_changes_nothing() -> None:
    run = started(STE)
    run.step(DATA[0])
    before = everything(run)
    run.optimizer.zero_grad()
    run.optimizer.step()
    assert same(everything(run), before)
    assert run.engine.steps == 1


def test_an_optimizer_that_fails_in_the_middle_costs_that_step_only() -> None:
    whole, broken = (started(STE) for _ in range(2))
    for run in (whole, broken):
        run.step(DATA[0])
    group = broken.optimizer.param_groups[0]
    backward(broken.model, DATA[1])
    betas, group["betas"] = group["betas"], None
    with pytest.raises(TypeError):
        broken.optimizer.step()
    group["betas"] = betas
    dense = whole.engine.dense_weights()
    assert all(torch.equal(value, dense[name]) for name, value in broken.engine.dense_weights().items())
    with pytest.warns(UserWarning, match=r"ended with an error and left weights off the mask in the model"):
        broken.step(DATA[2])
    assert_zero_off_the_mask(broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        broken.step(DATA[3])


def assert_zero_off_the_mask(run: Training) -> None:
    for name, mask in run.engine.masks.items():
        assert not run.model.get_parameter(name)[~mask].any()


@pytest.mark.parametrize("after", ["detach", "state_dict", "load_state_dict", "a step without gradients"])
def test_after_an_optimizer_has_failed_the_model_is_sparse_again_and_nothing_off_the_mask_is_lost(after: str) -> None:
    run = training(mlp(8, 16, 4), STE, "SGD")
    run.step(DATA[0])
    state, kept = through_a_file(run.engine.state_dict()), copied(run.engine.off_mask)
    backward(run.model, DATA[1])

    def half_done(*_: Any) -> None:
        with torch.no_grad():
            run.model.get_parameter("0.weight").mul_(2)
        raise ArithmeticError

    failing = run.optimizer.register_step_pre_hook(half_done)  # after the engine's
    with pytest.raises(ArithmeticError):
        run.optimizer.step()
    failing.remove()
    assert run.model.get_parameter("0.weight")[~run.engine.masks["0.weight"]].any()
    if after == "detach":
        run.engine.detach()
    elif after == "state_dict":
        run.engine.state_dict()
    elif after == "load_state_dict":
        run.engine.load_state_dict(state)
    run.optimizer.zero_grad()
    run.optimizer.step()
    assert_zero_off_the_mask(run)
    assert same(run.engine.off_mask, kept)


@METHODS
def test_what_is_written_into_the_model_off_the_mask_is_not_added_to_what_the_engine_holds(method: Method) -> None:
    plain, written = (started(method) for _ in range(2))
    for run in (plain, written):
        run.step(DATA[0])
        backward(run.model, DATA[1])
    with torch.no_grad():
        for name, mask in written.engine.masks.items():
            written.model.get_parameter(name).add_((~mask).float())
    for run in (plain, written):
        run.optimizer.step()
    assert_zero_off_the_mask(written)
    assert close(everything(plain), everything(written), 1e-6)


@pytest.mark.parametrize("decoupled", [False, True], ids=["in the gradient", "decoupled"])
@METHODS
def test_a_layer_without_a_gradient_is_left_alone(method: Method, decoupled: bool) -> None:
    assert method.off_mask is not None
    run = started(replace(method, off_mask=replace(method.off_mask, decoupled=decoupled)))
    run.step(DATA[0])
    run.optimizer.zero_grad()
    backward(run.model, DATA[1])
    run.model.get_parameter("0.weight").grad = None
    before = run.engine.dense_weights()
    run.optimizer.step()
    after = run.engine.dense_weights()
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["2.weight"], before["2.weight"])


# Loss scaling.


def scaled(method: Method, fused: bool, scale: float, overflow: tuple[int, ...] = ()) -> Training:
    run = started(method, "AdamW", lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    for number, (x, y) in enumerate(DATA[:8], 1):
        run.optimizer.zero_grad()
        scaler.scale(nn.functional.mse_loss(run.model(x), y)).backward()
        if number in overflow:
            next(run.model.parameters()).grad.view(-1)[0] = torch.inf
        before = everything(run)
        scaler.step(run.optimizer)
        scaler.update()
        assert same(everything(run), before) == (number in overflow)
    return run


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("decoupled", [False, True], ids=["in the gradient", "decoupled"])
@pytest.mark.parametrize("make", [sparse_core.TopKAST, sparse_core.SRSTE])
def test_a_skipped_step_leaves_everything_and_the_scale_does_not_reach_the_penalty(
    make: Any, decoupled: bool, fused: bool
) -> None:
    method = make(0.5, every=3, penalty=0.1, decoupled=decoupled)
    one, large = (scaled(method, fused, scale, overflow=(2, 3)) for scale in (1.0, 1024.0))
    assert one.engine.updates == large.engine.updates == 2
    assert close(everything(one), everything(large), 1e-5)


# The optimizer's state.


def test_two_optimizers_have_an_engine_each() -> None:
    model = mlp(8, 16, 4)
    optimizers = [torch.optim.Adam(model[place].parameters(), lr=0.02) for place in (0, 2)]
    engines = [sparse_core.sparsify(model, one, method) for one, method in zip(optimizers, (KAST, STE), strict=True)]
    for batch in DATA[:4]:
        model.zero_grad()
        backward(model, batch)
        optimizers[0].step()
        assert not model[0].weight[~engines[0].masks["0.weight"]].any()
        optimizers[1].step()
    assert [list(engine.off_mask) for engine in engines] == [["0.weight"], ["2.weight"]]
    assert [engine.updates for engine in engines] == [2, 4]


def test_detached_the_model_is_sparse_and_the_dense_weights_can_be_had() -> None:
    run = started(STE)
    for batch in DATA[:3]:
        run.step(batch)
    run.engine.detach()
    for name, dense in run.engine.dense_weights().items():
        weight, mask = run.model.get_parameter(name), run.engine.masks[name]
        assert not weight[~mask].any()
        assert torch.equal(weight[mask], dense[mask])
        assert dense[~mask].all()
        with torch.no_grad():
            weight.copy_(dense)
    run.step(DATA[3])
    assert run.model[0].weight.all()  # type: ignore[index, union-attr]


def test_other_methods_have_dense_weights_that_are_their_weights() -> None:
    run = started(sparse_core.RigL(0.3, end=9, every=3))
    assert dict(run.engine.off_mask) == {}
    assert all(torch.equal(value, run.model.get_parameter(name)) for name, value in run.engine.dense_weights().items())


def test_weights_off_the_mask_are_scaled_with_their_output() -> None:
    run = started(KAST)
    before = run.engine.dense_weights()
    sparse_core.scale_to_fan_in(run.model, run.engine.masks)
    for name, after in run.engine.dense_weights().items():
        links = run.engine.masks[name].sum(1, keepdim=True)
        scale = torch.where(links > 0, (before[name].shape[1] / links.clamp(min=1)).sqrt(), 1.0)
        torch.testing.assert_close(after, before[name] * scale)


@METHODS
def test_frozen_links_keep_their_values_on_and_off_the_mask(method: Method) -> None:
    run = started(method, "SGD", lr=0.3)
    run.step(DATA[0])
    frozen = {
        name: torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)) < 0.5
        for name, mask in run.engine.masks.items()
    }
    before = run.engine.dense_weights()
    handle = masks.freeze(run.optimizer, run.model, frozen, run.engine)
    links = copied(run.engine.masks)
    for batch in DATA[1:8]:
        run.step(batch)
        dense = run.engine.dense_weights()
        for name, mask in frozen.items():
            assert torch.equal(dense[name][mask], before[name][mask])
            assert not torch.equal(dense[name][~mask], before[name][~mask])
            assert not run.model.get_parameter(name)[~run.engine.masks[name]].any()
    assert not same(run.engine.masks, links)
    handle.remove()
    run.step(DATA[8])
    assert any(not torch.equal(run.engine.dense_weights()[name][mask], before[name][mask]) for name, mask in frozen.items())


def test_bfloat16_weights_are_ranked_and_kept_in_their_own_type() -> None:
    run = started(STE, "AdamW", torch.bfloat16)
    for x, y in DATA[:3]:
        run.step((x.bfloat16(), y.bfloat16()))
    assert {value.dtype for value in run.engine.off_mask.values()} == {torch.bfloat16}


def test_regions_where_no_link_may_be_hold_nothing() -> None:
    lower = Structure(allowed=lambda name, shape: torch.ones(shape).tril().bool())
    for method in (sparse_core.TopKAST(0.3, structure=lower), sparse_core.SRSTE(0.3, structure=lower)):
        run = started(method, "AdamW", weight_decay=0.1)
        for batch in DATA[:4]:
            run.step(batch)
        for layer in run.engine._layers:
            outside = ~torch.ones(layer.mask.shape).tril().bool()
            assert not run.engine.dense_weights()[layer.name][outside].any()
            assert not layer.moving[outside].any()


@pytest.mark.parametrize("optimizer", ["Adam", "Adamax", "Muon"])
def test_state_of_what_moves_off_the_mask_is_kept_between_steps(optimizer: str) -> None:
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 4, bias=False))
    run = training(model, sparse_core.SRSTE(0.5, every=100), optimizer)
    run.step(DATA[0])
    for layer in run.engine._layers:
        state = run.optimizer.state[layer.target.parameter]
        moment = state["momentum_buffer" if optimizer == "Muon" else "exp_avg"]
        assert moment[~layer.mask].any()


def test_the_rule_itself() -> None:
    assert OffMask(backward=0.5).share(0.2) == pytest.approx(0.375)
    assert OffMask().share(0.2) == pytest.approx(0.25)
    assert OffMask().share(0.7) == 1.0
    assert OffMask(backward=0.3).share(0.3) == 0.0
    assert OffMask(0.5, 0.1).factors(0.2) == (0.1, 0.5)
    assert OffMask(0.5, 0.1, 0.3).factors(0.2) == (0.1, 0.3)
