"""Functions over masks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import masks
from tests.sparse_core.small_trainings import batches, mlp, training

A = {"one": torch.tensor([[True, True, False, False]]), "two": torch.tensor([[True, False]])}
B = {"one": torch.tensor([[True, False, True, False]]), "two": torch.tensor([[True, False]])}


def test_core_and_union_are_what_all_and_any_have() -> None:
    assert {name: mask.tolist() for name, mask in masks.core(A, B).items()} == {
        "one": [[True, False, False, False]],
        "two": [[True, False]],
    }
    assert {name: mask.tolist() for name, mask in masks.union(A, B).items()} == {
        "one": [[True, True, True, False]],
        "two": [[True, False]],
    }


def test_jaccard_and_churn_by_layer_and_of_all_links_together() -> None:
    assert masks.jaccard(A, B).layers == {"one": 1 / 3, "two": 1.0}
    assert masks.jaccard(A, B).total == 2 / 4
    assert masks.churn(A, B).layers == {"one": 1 / 2, "two": 0.0}
    assert masks.churn(A, B).total == 1 / 3
    fewer = {"one": A["one"] & B["one"], "two": A["two"]}
    assert masks.churn(A, fewer).layers["one"] == 1 / 2  # of two links, one is gone
    assert masks.churn(fewer, A).layers["one"] == 0.0  # a link that came is none that went
    empty = {"one": torch.zeros(2, 2, dtype=torch.bool)}
    assert masks.jaccard(empty, empty).total == 1.0
    assert masks.churn(empty, empty).total == 0.0


@pytest.mark.parametrize("function", [masks.core, masks.union, masks.jaccard, masks.churn])
def test_masks_of_different_models_are_refused_by_name(function: object) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match="two"):
        function(A, {"one": A["one"]})
    with pytest.raises(ValueError, match="one"):
        function(A, {**A, "one": torch.zeros(2, 2, dtype=torch.bool)})


def test_exploration_counts_every_link_that_was_ever_active() -> None:
    run = training(mlp(12, 16, 4), sc.ITOP(0.3, None, 1, rate=0.5))
    seen = {name: mask.clone() for name, mask in run.engine.masks.items()}
    for batch in batches(5, 8, 12, 4):
        run.step(batch)
        seen = masks.union(seen, run.engine.masks)
    sizes = {name: mask.numel() for name, mask in seen.items()}
    expected = sum(int(mask.sum()) for mask in seen.values()) / sum(sizes.values())
    assert masks.exploration_rate(run.engine).total == pytest.approx(expected)
    assert masks.exploration_rate(seen).total == pytest.approx(expected)
    assert expected > 0.3


def test_links_per_column_count_inputs_over_all_taps() -> None:
    mask = torch.zeros(2, 3, 1, 2, dtype=torch.bool)
    mask[0, 0] = True
    mask[1, 0, 0, 1] = True
    mask[1, 2, 0, 0] = True
    assert masks.links_per_column(mask).tolist() == [3, 0, 1]


def drifted() -> tuple[nn.Module, dict[str, Tensor]]:
    """A target network after a polyak update across a rewiring: links of before and after, five in all, three allowed."""
    target = nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        target.weight.copy_(torch.tensor([[0.5, -0.4, 0.3, 0.2, -0.1, 0.0]]))
    return target, {"weight": torch.tensor([[True, False, True, False, True, False]])}


def test_a_target_network_takes_the_online_mask() -> None:
    target, online = drifted()
    masks.sync_target(target, online, "mask")
    torch.testing.assert_close(target.weight.detach(), torch.tensor([[0.5, 0.0, 0.3, 0.0, -0.1, 0.0]]))


def test_a_target_network_keeps_its_own_largest_weights() -> None:
    target, online = drifted()
    masks.sync_target(target, online, "magnitude")
    torch.testing.assert_close(target.weight.detach(), torch.tensor([[0.5, -0.4, 0.3, 0.0, 0.0, 0.0]]))
    masks.sync_target(target, {"weight": torch.ones(1, 6, dtype=torch.bool)}, "magnitude")  # fewer than allowed: all stay
    torch.testing.assert_close(target.weight.detach(), torch.tensor([[0.5, -0.4, 0.3, 0.0, 0.0, 0.0]]))


def test_a_target_network_is_left_alone_or_refused() -> None:
    target, online = drifted()
    before = target.weight.detach().clone()
    masks.sync_target(target, online, "none")
    with pytest.raises(ValueError, match="mode"):
        masks.sync_target(target, online, "soft")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="other"):
        masks.sync_target(target, {**online, "other": online["weight"]}, "mask")
    assert torch.equal(target.weight, before)


def test_a_polyak_target_stays_on_the_mask_without_a_rewiring_and_drifts_with_one() -> None:
    run = training(mlp(12, 16, 4), sc.SET(0.3, None, 3, rate=0.5))
    target = copy.deepcopy(run.model)
    off = []
    for batch in batches(3, 8, 12, 4):
        run.step(batch)
        with torch.no_grad():
            for old, new in zip(target.parameters(), run.model.parameters(), strict=True):
                old.lerp_(new, 0.1)
        off.append(sum(int((target.get_parameter(name)[~mask] != 0).sum()) for name, mask in run.engine.masks.items()))
    assert off[:2] == [0, 0]
    assert off[2] > 0
    masks.sync_target(target, run.engine.masks, "mask")
    assert all(not bool(target.get_parameter(name)[~mask].any()) for name, mask in run.engine.masks.items())


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_frozen_links_keep_their_values_bit_for_bit_and_the_others_train(optimizer: str) -> None:
    model = mlp(12, 16, 4)
    run = training(model, sc.Static(0.5), optimizer, weight_decay=0.1)
    for batch in batches(3, 8, 12, 4):
        run.step(batch)
    frozen = {name: mask & (torch.arange(mask.numel()).view_as(mask) % 2 == 0) for name, mask in run.engine.masks.items()}
    values = {name: model.get_parameter(name).detach().clone() for name in frozen}
    handle = masks.freeze(run.optimizer, model, frozen, run.engine)
    for batch in batches(5, 8, 12, 4):
        run.step(batch)
    for name, mask in frozen.items():
        now = model.get_parameter(name).detach()
        assert torch.equal(now[mask], values[name][mask])
        free = run.engine.masks[name] & ~mask
        assert bool((now[free] != values[name][free]).any())
        assert not bool(now[~run.engine.masks[name]].any())
    handle.remove()
    run.step(batches(1, 8, 12, 4)[0])
    assert any(bool((model.get_parameter(name).detach()[mask] != values[name][mask]).any()) for name, mask in frozen.items())


def test_a_link_that_grows_into_a_frozen_place_gets_its_old_value_back() -> None:
    model = nn.Linear(10, 10, bias=False)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    frozen = {"weight": torch.rand(10, 10, generator=torch.Generator().manual_seed(0)) < 0.3}
    values = {"weight": torch.full((10, 10), 7.0)}
    engine = sc.sparsify(model, optimizer, sc.SET(0.3, None, 1, rate=0.9))
    awake = engine.masks["weight"].clone()  # these are frozen at the value that they have now
    kept = torch.where(awake, model.weight.detach(), values["weight"])
    masks.freeze(optimizer, model, frozen, engine, values)
    woken = 0
    for _ in range(4):
        before = engine.masks["weight"].clone()
        model(torch.randn(8, 10)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        new = engine.masks["weight"] & ~before & frozen["weight"]
        woken += int((new & ~awake).sum())
        assert torch.equal(model.weight.detach()[new], kept[new])
        assert not bool(model.weight[~engine.masks["weight"]].any())
    assert woken > 0


def test_freezing_refuses_masks_of_another_model_and_parameters_of_another_optimizer() -> None:
    model = mlp(6, 5, 4)
    optimizer = torch.optim.SGD([model.get_parameter("0.weight")], 0.1)
    good = torch.zeros(5, 6, dtype=torch.bool)
    with pytest.raises(ValueError, match="nowhere"):
        masks.freeze(optimizer, model, {"nowhere": good})
    with pytest.raises(ValueError, match=r"0\.weight"):
        masks.freeze(optimizer, model, {"0.weight": good.T})
    with pytest.raises(ValueError, match=r"2\.weight.*does not hold"):
        masks.freeze(optimizer, model, {"2.weight": torch.zeros(4, 5, dtype=torch.bool)})
    assert not optimizer._optimizer_step_post_hooks
