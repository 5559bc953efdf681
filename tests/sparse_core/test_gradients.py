"""Which gradients an optimizer, a clipper and a closure get to see."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import Method
from sparse_core.support import METHODS, OPTIMIZERS
from tests.sparse_core.cells import table


def made(
    method: Method, optimizer: str = "SGD", seed: int = 0, **options: object
) -> tuple[nn.Sequential, torch.optim.Optimizer, sc.SparseEngine]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(9, 11), nn.Tanh(), nn.Linear(11, 7))
    steps = OPTIMIZERS[optimizer](list(model.parameters()))
    return model, steps, sc.sparsify(model, steps, method, **options)  # type: ignore[arg-type]


def off_mask(model: nn.Module, engine: sc.SparseEngine) -> int:
    """How many inactive links have a gradient that is not zero."""
    parameters = dict(model.named_parameters())
    total = 0
    for name, mask in engine.masks.items():
        gradient = parameters[name].grad
        assert gradient is not None
        total += int(gradient[~mask].count_nonzero())
    return total


def backward(model: nn.Module, batch: int = 4) -> None:
    model(torch.randn(batch, 9)).square().sum().backward()


def test_gradients_are_masked_as_they_accumulate_and_dense_only_until_the_step_of_an_update() -> None:
    model, optimizer, engine = made(sc.RigL(0.3, end=100, every=3))
    for step in range(1, 8):
        optimizer.zero_grad()
        for _ in range(3):  # micro-batches
            backward(model)
            assert (off_mask(model, engine) > 100) == (step % 3 == 0)
        optimizer.step()
        assert off_mask(model, engine) == 0


def test_a_clipper_sees_the_sparse_network() -> None:
    model, optimizer, engine = made(sc.Static(0.2))
    dense = nn.Sequential(nn.Linear(9, 11), nn.Tanh(), nn.Linear(11, 7))
    dense.load_state_dict(model.state_dict())
    x = torch.randn(4, 9)
    for one in (model, dense):
        one(x).square().sum().backward()
    masks = dict(engine.masks)
    expected = [
        grad * masks[name] if name in masks else grad for name, grad in ((n, p.grad) for n, p in dense.named_parameters())
    ]
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    assert float(norm) == pytest.approx(math.sqrt(sum(float(grad.square().sum()) for grad in expected)), rel=1e-6)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.step()
    for old, grad, parameter in zip(before, expected, model.parameters(), strict=True):
        torch.testing.assert_close(parameter.detach(), old - 0.01 * grad * 0.1 / (norm + 1e-6))


@pytest.mark.parametrize("method", [sc.GMP(0.2, end=9, every=3), sc.RigL(0.3, end=9, every=3)], ids=["GMP", "RigL"])
def test_after_the_end_gradients_are_masked_for_good(method: Method) -> None:
    model, optimizer, engine = made(method)
    for step in range(1, 14):
        optimizer.zero_grad()
        backward(model)
        if step > 9:
            assert off_mask(model, engine) == 0
        optimizer.step()


def test_averages_of_the_dense_gradient_keep_it_dense_in_every_step() -> None:
    model, optimizer, engine = made(sc.SNFS(0.3, end=100, every=50))
    for _ in range(2):
        optimizer.zero_grad()
        backward(model)
        assert off_mask(model, engine) > 100
        optimizer.step()
        assert off_mask(model, engine) == 0


def assign(parameter: nn.Parameter) -> None:
    parameter.grad = torch.ones_like(parameter)


def add(parameter: nn.Parameter) -> None:
    assert parameter.grad is not None
    parameter.grad.add_(1.0)


def copy(parameter: nn.Parameter) -> None:
    assert parameter.grad is not None
    parameter.grad.copy_(torch.ones_like(parameter))


@pytest.mark.parametrize("write", [assign, add, copy])
@pytest.mark.parametrize("after_backward", [True, False])
def test_a_gradient_written_by_hand_is_masked_too(write: Callable[[nn.Parameter], None], after_backward: bool) -> None:
    model, optimizer, engine = made(sc.Static(0.3))
    backward(model)
    if not after_backward:
        optimizer.step()  # the gradients of a step that is over
    write(model[0].weight)
    optimizer.step()
    assert off_mask(model, engine) == 0
    assert not model[0].weight[~engine.masks["0.weight"]].count_nonzero()
    assert model[0].weight.grad is not None
    assert model[0].weight.grad[engine.masks["0.weight"]].count_nonzero() == engine.masks["0.weight"].sum()


def train(method: Method, optimizer_name: str, closure: bool, steps: int = 13) -> tuple[list[Tensor], list[float]]:
    model, optimizer, engine = made(method, optimizer_name)
    batches = torch.randn(steps, 4, 9, generator=torch.Generator().manual_seed(3))
    losses = []
    for x in batches:

        def compute(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = model(x).square().mean()
            loss.backward()
            return loss

        if closure:
            loss = optimizer.step(compute)
        else:
            loss = compute()
            optimizer.step()
        losses.append(float(loss.detach()))
    assert engine.steps == steps
    assert engine.updates > 0 or method.every is None
    return [*(parameter.detach() for parameter in model.parameters()), *engine.masks.values()], losses


CLOSURES = [
    name for name in OPTIMIZERS if any(cell.allowed for cell in table().cells if cell.optimizer == name) and "Muon" not in name
]


@pytest.mark.parametrize("method", ["RigL", "SET", "SNFS", "GraNet"])
@pytest.mark.parametrize("optimizer", CLOSURES)
def test_a_closure_equals_the_plain_loop_bit_for_bit(method: str, optimizer: str) -> None:
    chosen = METHODS[method](density=0.3, end=11, every=3)
    plain, losses = train(chosen, optimizer, closure=False)
    closed, closed_losses = train(chosen, optimizer, closure=True)
    assert losses == closed_losses
    assert all(torch.equal(one, other) for one, other in zip(plain, closed, strict=True))


def test_a_closure_may_come_by_keyword_and_runs_once_with_gradients_enabled() -> None:
    model, optimizer, engine = made(sc.RigL(0.3, end=100, every=1))
    calls = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss: Tensor = model(torch.randn(4, 9)).square().mean()
        loss.backward()
        return loss

    loss = optimizer.step(closure=closure)
    assert isinstance(loss, Tensor)
    assert calls == [True]
    assert (engine.steps, engine.updates) == (1, 1)


def two_networks(on_update: str) -> tuple[nn.ModuleDict, torch.optim.Optimizer, sc.SparseEngine]:
    torch.manual_seed(0)
    models = nn.ModuleDict({"sparse": nn.Linear(9, 9), "other": nn.Linear(9, 9)})
    optimizer = torch.optim.AdamW(models.parameters(), lr=0.01, weight_decay=0.1)
    method = sc.RigL(0.3, end=100, every=2, on_update=on_update)
    return models, optimizer, sc.sparsify(models["sparse"], optimizer, method)


@pytest.mark.parametrize("on_update", ["skip", "step"])
def test_skipping_the_step_of_an_update_is_for_this_engines_model_alone(on_update: str) -> None:
    models, optimizer, engine = two_networks(on_update)
    for step in range(1, 5):
        optimizer.zero_grad()
        sum(model(torch.randn(3, 9)).square().sum() for model in models.values()).backward()  # type: ignore[union-attr]
        before = {name: parameter.detach().clone() for name, parameter in models.named_parameters()}
        mask = engine.masks["weight"].clone()
        optimizer.step()
        skipped = on_update == "skip" and step % 2 == 0
        for name, parameter in models.named_parameters():
            if name == "sparse.weight":
                stayed = mask & engine.masks["weight"]
                assert torch.equal(parameter[stayed], before[name][stayed]) == skipped
                grown = engine.masks["weight"] & ~mask
                assert bool(grown.any()) == (step % 2 == 0)
                assert not skipped or not parameter[grown].count_nonzero()
            else:
                assert torch.equal(parameter, before[name]) == (skipped and name.startswith("sparse"))
            assert (parameter.grad is None) == (skipped and name.startswith("sparse"))
        assert engine.steps == step


def test_what_another_optimizer_holds_keeps_its_gradient_when_a_step_is_skipped() -> None:
    model = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    sc.sparsify(model, first, sc.RigL(0.3, end=10, every=1, on_update="skip"))
    backward(model)
    first.step()
    assert model[0].weight.grad is None
    assert model[0].bias.grad is None
    assert model[1].weight.grad is not None


def test_proposing_changes_nothing_and_is_what_then_happens() -> None:
    for name in METHODS:
        method = METHODS[name](density=0.3, end=8, every=2)
        if name == "Static" or method.off_mask is not None:  # with `off_mask`, links are chosen by what a step leaves
            continue
        model, optimizer, engine = made(method)
        for step in range(1, 5):
            optimizer.zero_grad()
            backward(model)
            if step % 2:
                optimizer.step()
                continue
            state = [parameter.detach().clone() for parameter in model.parameters()]
            masks = {key: mask.clone() for key, mask in engine.masks.items()}
            first, second = engine.propose(), engine.propose()
            assert all(torch.equal(one, other.detach()) for one, other in zip(state, model.parameters(), strict=True))
            assert (engine.steps, engine.updates) == (step - 1, step // 2 - 1)
            optimizer.step()
            for key, mask in engine.masks.items():
                assert torch.equal(first.grown[key], second.grown[key])
                assert torch.equal(first.grown[key], mask & ~masks[key]), name
                assert not (masks[key] & ~mask & ~first.dropped[key]).any(), name


def test_another_method_can_be_proposed_but_not_another_structure() -> None:
    model, optimizer, engine = made(sc.SET(0.3, end=None, every=1))
    backward(model)
    by_magnitude = engine.propose(sc.RigL(0.3, end=100, every=1))
    weight, gradient = model[0].weight.detach(), model[0].weight.grad
    mask, dropped, grown = engine.masks["0.weight"], by_magnitude.dropped["0.weight"], by_magnitude.grown["0.weight"]
    assert gradient is not None
    assert weight[dropped].abs().max() <= weight[mask & ~dropped].abs().min()
    assert gradient[grown].abs().min() >= gradient[~mask & ~grown].abs().max()
    with pytest.raises(ValueError, match="propose: the method's structure differs"):
        engine.propose(sc.RigL(0.3, end=100, structure=sc.Structure(group="row")))
    optimizer.zero_grad()
    with pytest.raises(RuntimeError, match="propose: this method reads gradients and there are none"):
        engine.propose(sc.RigL(0.3, end=100))


def test_detaching_leaves_model_and_optimizer_alone() -> None:
    model, optimizer, engine = made(sc.RigL(0.3, end=100, every=1))
    engine.detach()
    masks = {name: mask.clone() for name, mask in engine.masks.items()}
    backward(model)
    assert off_mask(model, engine) > 100
    optimizer.step()
    assert model[0].weight[~masks["0.weight"]].count_nonzero() > 0
    assert all(torch.equal(mask, masks[name]) for name, mask in engine.masks.items())
    again = sc.sparsify(model, optimizer, sc.Static(0.5))
    engine.detach()  # the parameters belong to the other engine now
    with pytest.raises(ValueError, match=r"0.weight: another engine"):
        sc.sparsify(model, optimizer, sc.Static(0.5))
    assert again.report().density == pytest.approx(0.5, abs=0.01)
