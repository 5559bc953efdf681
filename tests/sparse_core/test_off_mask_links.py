"""Weights off the mask: which of them move and have state, and how links come and go among them."""

from __future__ import annotations

import pytest
import torch

import sparse_core
from sparse_core import Method
from sparse_core.schedules import Linear
from tests.sparse_core.off_mask_runs import DATA, KAST, METHODS, everything, started
from tests.sparse_core.small_trainings import Training, copied, mlp, same


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
