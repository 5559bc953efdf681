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
from sparse_core import Method, OffMask, SparseEngine, Structure, layout, masks, scores
from sparse_core.schedules import Linear
from tests.sparse_core.small_trainings import Training, backward, batches, copied, mlp, same, through_a_file, training

DATA = batches(12, 8, 8, 4)
DOUBLE = batches(12, 8, 8, 4, torch.float64)
KAST, STE = sparse_core.TopKAST(0.25, every=2, penalty=0.01), sparse_core.SRSTE(0.5, penalty=0.01)
METHODS = pytest.mark.parametrize("method", [KAST, STE], ids=["Top-KAST", "SR-STE"])


def started(method: Method, optimizer: str = "Adam", dtype: torch.dtype = torch.float32, **options: Any) -> Training:
    return training(mlp(8, 16, 4, dtype=dtype), method, optimizer, **options)


def everything(run: Training) -> dict[str, Tensor]:
    weights = {f"dense {name}": value for name, value in run.engine.dense_weights().items()}
    return copied({**weights, **run.engine.masks, **{f"model {name}": p for name, p in run.model.named_parameters()}})


def close(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-12) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[key].double(), b[key].double(), rtol=0, atol=tolerance) for key in a)


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


def test_state_stays_with_what_moves_and_only_with_it() -> None:
    run = started(sparse_core.TopKAST(0.25, every=1, penalty=0.0), "AdamW", lr=0.1)
    left = came = 0
    explored = copied(run.engine.masks)
    for batch in DATA:
        before = [(layer.mask.clone(), layer.moving.clone()) for layer in run.engine._layers]
        moments = [
            run.optimizer.state[layer.target.parameter].get("exp_avg", torch.zeros(())).clone() for layer in run.engine._layers
        ]
        run.step(batch)
        explored = {name: links | run.engine.masks[name] for name, links in explored.items()}
        assert same(run.engine.explored, explored)
        for layer, (mask, moving), moment in zip(run.engine._layers, before, moments, strict=True):
            state, gradient = run.optimizer.state[layer.target.parameter], layer.target.parameter.grad
            assert gradient is not None
            for value in (state["exp_avg"], state["exp_avg_sq"]):
                assert not value[~layer.moving].any()
            on, new = moving & layer.moving, layer.moving & ~moving
            assert torch.allclose(state["exp_avg"][on], (0.9 * moment + 0.1 * gradient)[on], atol=1e-7)
            assert not state["exp_avg"][new].any()
            if new.any():
                assert torch.allclose(state["exp_avg_sq"][new], state["exp_avg_sq"][on].mean())
            left += int(state["exp_avg"][mask & ~layer.mask & layer.moving].count_nonzero())  # links no more, they move on
            came += int(new.sum())
    assert left > 0
    assert came > 0


def test_after_the_end_only_links_have_state() -> None:
    run = started(sparse_core.SRSTE(0.5, end=3), "Adam")
    for batch in DATA[:5]:
        run.step(batch)
    for layer in run.engine._layers:
        assert not run.optimizer.state[layer.target.parameter]["exp_avg"][~layer.mask].any()
        assert run.engine.off_mask[layer.name].any()  # they rest


# Around the training.


def test_an_asked_for_update_exchanges_no_more_than_its_share() -> None:
    run = started(sparse_core.TopKAST(0.25, every=1000), "SGD", lr=0.5)
    for batch in DATA[:4]:
        run.step(batch)
    before, dense = copied(run.engine.masks), run.engine.dense_weights()
    proposed = run.engine.propose()
    run.engine.update(0.0)
    run.step(DATA[4])
    assert same(run.engine.masks, before)
    assert any(grown.any() for grown in proposed.grown.values())
    for name, grown in proposed.grown.items():
        order = dense[name].abs().reshape(-1).argsort(descending=True)[: int(before[name].sum())]
        best = torch.zeros_like(before[name]).view(-1).index_fill_(0, order, True).view_as(before[name])
        assert torch.equal(grown, best & ~before[name])
    for group in run.optimizer.param_groups:
        group["lr"] = 0.0  # then what is proposed is what happens
    before, proposed = copied(run.engine.masks), run.engine.propose()
    run.engine.update(1.0)
    run.step(DATA[5])
    assert run.engine.updates == 2
    assert same({name: mask & ~before[name] for name, mask in run.engine.masks.items()}, dict(proposed.grown))
    assert same({name: before[name] & ~mask for name, mask in run.engine.masks.items()}, dict(proposed.dropped))
    dense = run.engine.dense_weights()
    for name, mask in run.engine.masks.items():
        assert dense[name][mask].abs().min() >= dense[name][~mask].abs().max()


@METHODS
def test_a_proposal_changes_nothing(method: Method) -> None:
    run = started(method)
    run.step(DATA[0])
    before = everything(run)
    run.engine.propose()
    run.engine.propose(sparse_core.SET(0.3, 9, 3, structure=method.structure))
    assert same(everything(run), before)


def test_a_density_that_falls_leaves_the_largest_of_all_weights() -> None:
    run = started(sparse_core.TopKAST(Linear(0.6, 0.2), end=6, every=2), "SGD", lr=0.2)
    for step, batch in enumerate(DATA[:8], 1):
        run.step(batch)
        dense = run.engine.dense_weights()
        for layer in run.engine._layers:
            density = run.engine.method.density_at(min(step // 2 * 2, 6))
            assert layer.links == pytest.approx(density * layer.size, abs=1)  # type: ignore[operator]
            assert int(layer.mask.sum()) == layer.links
            if step <= 6 and step % 2 == 0:
                size = dense[layer.name].abs()
                assert size[layer.mask].min() >= size[~layer.mask].max()


def test_a_layer_that_stays_full_has_nothing_off_the_mask() -> None:
    model = mlp(8, 16, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    engine = sparse_core.sparsify(model, optimizer, KAST, density={"2": 1.0})
    run = Training(model, optimizer, engine)
    for batch in DATA[:4]:
        run.step(batch)
    assert engine.masks["2.weight"].all()
    assert not engine.off_mask["2.weight"].any()
    assert int(engine.masks["0.weight"].sum()) == 32


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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grow": scores.gradient}, "does not go with Method.grow = gradient"),
        ({"drop": scores.mest(1.0)}, "does not go with Method.drop = mest"),
        ({"scope": "global"}, "does not go with Method.scope = global"),
        ({"share": scores.magnitude}, "does not go with Method.share = magnitude"),
        ({"grown_value": 0.5}, "does not go with Method.grown_value = 0.5"),
        ({"on_update": "skip"}, "does not go with Method.on_update = skip"),
        ({"final_prune": True, "end": 9}, "does not go with Method.final_prune = True"),
        ({"density": None, "layout": layout.epsilon(3)}, "needs a Method.density, and the layout epsilon"),
        ({"backward": 0.1}, "OffMask.backward is 0.1, below the density of links 0.25"),
        ({"backward": 0.0}, "OffMask.backward is 0.0: expected a share"),
        ({"penalty": math.inf}, "OffMask.penalty is inf: expected a factor from 0"),
        ({"backward": 1.5}, "OffMask.backward is 1.5: expected a share"),
        ({"penalty": -1.0}, "OffMask.penalty is -1.0: expected a factor from 0"),
        ({"rate": 1.5}, "Method.rate is 1.5"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
def test_what_does_not_go_together_is_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        sparse_core.TopKAST(**{"density": 0.25, **fields})


def test_weights_that_are_not_finite_are_told_with_the_layer() -> None:
    run = started(STE, "SGD")
    run.step(DATA[0])
    before = copied(run.engine.masks)
    backward(run.model, DATA[1])
    run.model[2].weight.grad.view(-1)[3] = torch.nan  # type: ignore[index, union-attr, operator]
    with pytest.raises(FloatingPointError, match=r"2\.weight"):
        run.optimizer.step()
    assert same(run.engine.masks, before)


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


def engine_of_sparse_weights(method: Method, layers: tuple[int, ...] = (0, 2)) -> SparseEngine:
    model = mlp(8, 16, 4)
    with torch.no_grad():
        for weight in (model[layer].weight for layer in layers):
            weight.mul_(torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.1)  # type: ignore[operator]
    return sparse_core.sparsify(model, torch.optim.SGD(model.parameters(), lr=0.1), method)


def test_a_model_that_was_saved_sparse_begins_at_zero_off_the_mask_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"0\.weight and all others are zero off the mask"):
        engine = engine_of_sparse_weights(KAST)
    assert not any(value.any() for value in engine.off_mask.values())


def test_a_single_layer_that_is_zero_off_the_mask_is_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine_of_sparse_weights(KAST, layers=(2,))


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
