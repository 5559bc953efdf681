"""Top-KAST and SR-STE do, number by number, what dense straight-through trainings from the papers' formulas do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import sparse_core
from sparse_core import Method, OffMask, SparseEngine, Structure
from tests.sparse_core.straight_through import DenseLoop, largest, largest_of_neighbours

INPUTS, HIDDEN, OUTPUTS = 12, 20, 8
Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Optimizer] = {
    "SGD": lambda weights: torch.optim.SGD(weights, lr=0.3),
    "SGD with momentum and decay": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": lambda weights: torch.optim.Adam(weights, lr=0.02),
    "AdamW": lambda weights: torch.optim.AdamW(weights, lr=0.02, weight_decay=0.1),
}


def network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Linear(INPUTS, HIDDEN, dtype=torch.float64), nn.Tanh(), nn.Linear(HIDDEN, OUTPUTS, dtype=torch.float64)
    )


def dense_loop(optimizer: Optimizer, **how: object) -> DenseLoop:
    first, _, second = network()
    weights, biases = [first.weight, second.weight], [first.bias, second.bias]
    return DenseLoop(weights, biases, optimizer([*weights, *biases]), **how)  # type: ignore[arg-type]


def assert_alike(plain: DenseLoop, method: Method, optimizer: Optimizer, steps: int = 12) -> SparseEngine:
    """Train both, and compare links, weights on and off the mask, and what the model is in every step."""
    model = network()
    first, _, second = model
    steps_of_ours = optimizer([first.weight, second.weight, first.bias, second.bias])
    engine = sparse_core.sparsify(model, steps_of_ours, method)
    generator = torch.Generator().manual_seed(5)
    changes = 0
    for _ in range(steps):
        x = torch.randn(16, INPUTS, generator=generator, dtype=torch.float64)
        y = torch.sin(3 * x[:, :OUTPUTS]) + x[:, -OUTPUTS:].flip(1)
        before = {name: mask.clone() for name, mask in engine.masks.items()}
        plain.step(x, y)
        steps_of_ours.zero_grad()
        (model(x) - y).square().mean().backward()
        steps_of_ours.step()
        dense = engine.dense_weights()
        for layer, weight, mask, moved in zip(engine._layers, plain.weights, plain.masks, plain.moved, strict=True):
            assert torch.equal(layer.mask, mask)
            assert torch.equal(layer.moving, moved)
            torch.testing.assert_close(dense[layer.name], weight.detach(), rtol=0, atol=1e-12)
            torch.testing.assert_close(layer.target.parameter.detach(), (weight * mask).detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close(first.bias, plain.biases[0], rtol=0, atol=1e-12)
        changes += any(not torch.equal(mask, before[name]) for name, mask in engine.masks.items())
    assert changes > 1
    return engine


def sparse_refined(rule: float, wanted: Callable[[Tensor], Tensor]) -> dict[str, object]:
    return {
        "links": wanted,
        "moving": lambda weight: torch.ones_like(weight, dtype=torch.bool),
        "penalty": lambda weight, mask, moved: rule * torch.where(mask | ~moved, 0.0, weight),
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("count", "size"), [(2, 4), (1, 4), (3, 4)], ids=["2:4", "1:4", "3:4"])
def test_sr_ste_is_the_dense_loop_with_n_of_m_masks(count: int, size: int, optimizer: str) -> None:
    plain = dense_loop(OPTIMIZERS[optimizer], **sparse_refined(0.05, lambda weight: largest_of_neighbours(weight, count, size)))
    method = sparse_core.SRSTE(count / size, penalty=0.05)
    engine = assert_alike(plain, method, OPTIMIZERS[optimizer])
    assert engine.updates == 12


@pytest.mark.parametrize("every", [1, 3])
def test_sr_ste_goes_unstructured_and_every_so_many_steps(every: int) -> None:
    plain = dense_loop(OPTIMIZERS["AdamW"], **sparse_refined(2e-4, lambda weight: largest(weight, 0.3)), every=every)
    method = sparse_core.SRSTE(0.3, every=every, structure=Structure())
    assert assert_alike(plain, method, OPTIMIZERS["AdamW"], steps=16).updates == 16 // every


def test_sr_ste_without_its_term_is_the_plain_straight_through_estimator() -> None:
    plain = dense_loop(OPTIMIZERS["SGD"], **sparse_refined(0.0, lambda weight: largest_of_neighbours(weight, 2, 4)))
    assert_alike(plain, sparse_core.SRSTE(0.5, penalty=0.0), OPTIMIZERS["SGD"])


def top_kast(density: float, backward: float, factor: float) -> dict[str, object]:
    return {
        "links": lambda weight: largest(weight, density),
        "moving": lambda weight: largest(weight, backward),
        "penalty": lambda weight, mask, moved: (
            weight * moved * torch.where(mask, torch.full_like(weight, factor), factor / density)
        ),
    }


@pytest.mark.parametrize("optimizer", ["SGD", "SGD with momentum and decay"])
@pytest.mark.parametrize(("density", "backward"), [(0.25, 0.5), (0.1, 0.3), (0.5, 1.0)])
def test_top_kast_is_the_dense_loop_with_two_sets(density: float, backward: float, optimizer: str) -> None:
    plain = dense_loop(OPTIMIZERS[optimizer], **top_kast(density, backward, 0.02))
    method = sparse_core.TopKAST(density, backward=backward, penalty=0.02)
    engine = assert_alike(plain, method, OPTIMIZERS[optimizer], steps=20)
    for layer in engine._layers:
        assert int(layer.mask.sum()) == round(density * layer.mask.numel())
        assert int(layer.moving.sum()) == round(backward * layer.mask.numel())


@pytest.mark.parametrize("end", [8, 10])
def test_top_kast_stops_to_explore_after_its_last_update(end: int) -> None:
    optimizer = OPTIMIZERS["SGD with momentum and decay"]
    plain = dense_loop(optimizer, **top_kast(0.25, 0.5, 0.02), every=2, end=end)
    engine = assert_alike(plain, sparse_core.TopKAST(0.25, end, 2, backward=0.5, penalty=0.02), optimizer, steps=16)
    assert engine.updates == end // 2
    for layer in engine._layers:
        assert torch.equal(layer.moving, layer.mask)


def test_a_decoupled_penalty_shrinks_the_weights_themselves() -> None:
    """One step without a gradient: links by 1 - lr c, what moves off the mask by 1 - lr c / density, nothing else."""
    model = nn.Linear(10, 10, bias=False, dtype=torch.float64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
    method = sparse_core.TopKAST(0.2, backward=0.5, penalty=0.3, decoupled=True, every=100)
    engine = sparse_core.sparsify(model, optimizer, method)
    before, layer = engine.dense_weights()["weight"], engine._layers[0]
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    factor = 1 - 0.03 * layer.mask.double() - 0.15 * (layer.moving & ~layer.mask).double()
    torch.testing.assert_close(engine.dense_weights()["weight"], before * factor, rtol=0, atol=1e-15)
    assert not model.weight.grad.any()


def test_where_gradients_ascend_the_penalty_still_shrinks() -> None:
    model = nn.Linear(8, 8, bias=False, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    engine = sparse_core.sparsify(model, optimizer, sparse_core.SRSTE(0.5, every=100, penalty=0.2))
    before = engine.off_mask["weight"].clone()
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    torch.testing.assert_close(engine.off_mask["weight"], before * 0.98, rtol=0, atol=1e-15)


def test_both_are_settings_of_one_rule_that_can_be_given_to_any_method() -> None:
    assert sparse_core.TopKAST(0.2, penalty=0.1).off_mask == OffMask(None, 0.1)
    assert sparse_core.SRSTE(0.5).off_mask == OffMask(1.0, 0.0, 2e-4)
    own = replace(sparse_core.TopKAST(0.2), off_mask=OffMask(0.6, 0.0, 0.0), structure=Structure(group="row"))
    engine = sparse_core.sparsify(model := network(), torch.optim.SGD(model.parameters(), lr=0.1), own)
    for layer in engine._layers:
        columns = layer.mask.shape[1]
        assert (layer.mask.sum(1) == round(0.2 * columns)).all()
        assert (layer.moving.sum(1) == layer.mask.sum(1) + int(0.5 * (columns - round(0.2 * columns)) + 0.5)).all()
