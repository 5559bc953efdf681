"""The optimizer's memory of links that come and go."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import Method, scores
from sparse_core.optimizer_state import Kind, kind_of, refuse_unsuited, stays_zero
from sparse_core.support import OPTIMIZERS
from tests.sparse_core.cells import table

KINDS = {
    Kind.FIRST: ["momentum_buffer", "exp_avg", "grad_avg", "ax", "prev", "acc", "something_new"],
    Kind.SECOND: ["exp_avg_sq", "max_exp_avg_sq", "square_avg", "acc_delta", "sum", "exp_inf", "variance", "my_own_sq"],
    Kind.STEP_SIZE: ["step_size"],
}


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, keys in KINDS.items() for key in keys])
def test_kinds_by_name(kind: Kind, key: str) -> None:
    assert kind_of(key) is kind


def sparse(
    optimizer: Callable[..., torch.optim.Optimizer], grow: scores.Score = scores.gradient, **options: object
) -> tuple[nn.Linear, torch.optim.Optimizer, sc.SparseEngine]:
    torch.manual_seed(1)
    model = nn.Linear(16, 12, bias=False)
    made = optimizer(model.parameters(), lr=0.01, **options)
    method = Method(density=0.3, layout=sc.layout.uniform(), grow=grow, every=None)
    return model, made, sc.sparsify(model, made, method)


def elsewhere(weight: Tensor, gradient: Tensor | None, context: scores.Context) -> Tensor:
    return (~context.mask).float()


def step(model: nn.Linear, optimizer: torch.optim.Optimizer, gradient: Tensor) -> None:
    optimizer.zero_grad()
    (model.weight * gradient).sum().backward()
    optimizer.step()


STATEFUL = {
    "SGD": {"momentum": 0.9},
    "SGD nesterov": {"momentum": 0.9, "nesterov": True},
    "Adam": {},
    "Adam amsgrad": {"amsgrad": True},
    "AdamW": {"weight_decay": 0.1},
    "NAdam": {},
    "RAdam": {},
    "Adamax": {},
    "Adagrad": {},
    "Adadelta": {},
    "RMSprop": {"momentum": 0.5},
    "RMSprop centered": {"centered": True},
    "ASGD": {},
    "Rprop": {},
    "Adafactor": {},
    "Muon": {},
}
EXPECTED_KEYS = {
    "SGD": {"momentum_buffer"},
    "Adam amsgrad": {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"},
    "Adamax": {"exp_avg", "exp_inf"},
    "Adagrad": {"sum"},
    "Adadelta": {"square_avg", "acc_delta"},
    "RMSprop": {"square_avg", "momentum_buffer"},
    "RMSprop centered": {"square_avg", "grad_avg"},
    "ASGD": {"ax"},
    "Rprop": {"prev", "step_size"},
    "Muon": {"momentum_buffer"},
}


@pytest.mark.parametrize("name", STATEFUL)
def test_what_grown_links_begin_with(name: str) -> None:
    """The state just before the optimizer moves, by its definition, computed from the state before the update."""
    model, optimizer, engine = sparse(getattr(torch.optim, name.split()[0]), **STATEFUL[name])
    generator = torch.Generator().manual_seed(2)
    gradient = torch.randn(12, 16, generator=generator)
    for _ in range(5):
        step(model, optimizer, gradient)
    before = {key: value.clone() for key, value in like_weight(model, optimizer)}
    if name in EXPECTED_KEYS:
        assert set(before) == EXPECTED_KEYS[name]
    old = engine.masks["weight"].clone()
    seen: dict[str, Tensor] = {}

    def look(*_: object) -> None:
        seen.update({key: value.clone() for key, value in like_weight(model, optimizer)})

    optimizer.register_step_pre_hook(look)  # runs after the engine's
    engine.update(0.4)
    step(model, optimizer, gradient)
    new = engine.masks["weight"]
    stayed, grown = new & old, new & ~old
    assert grown.any()
    debias = 1 - optimizer.param_groups[0]["betas"][1] ** 5 if "betas" in optimizer.param_groups[0] else 1.0
    for key, value in seen.items():
        assert torch.equal(value[stayed], before[key][stayed]), key
        assert not value[~new].count_nonzero(), key
        if kind_of(key) is Kind.FIRST:
            expected = torch.zeros_like(gradient)
        elif kind_of(key) is Kind.STEP_SIZE:
            expected = torch.full_like(gradient, 0.01)
        else:
            expected = before[key][stayed].mean().expand_as(gradient)
            if key.endswith("_sq") or key == "square_avg":
                expected = expected.maximum(gradient.square() * debias)
        torch.testing.assert_close(value[grown], expected[grown])
    for key, value in like_weight(model, optimizer):
        assert not value[~new].count_nonzero(), key


def like_weight(model: nn.Linear, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for key, value in optimizer.state[model.weight].items():
        if isinstance(value, Tensor) and value.shape == model.weight.shape:
            yield key, value


def test_links_that_grow_back_at_once_keep_weight_and_state() -> None:
    model, optimizer, engine = sparse(torch.optim.Adam)
    gradient = torch.randn(12, 16)
    step(model, optimizer, gradient)
    engine.update(1.0)  # all are dropped, and those with the largest gradients come back
    old, weight = engine.masks["weight"].clone(), model.weight.detach().clone()
    average = optimizer.state[model.weight]["exp_avg"].clone()
    seen: list[Tensor] = []
    optimizer.register_step_pre_hook(
        lambda *_: seen.extend([model.weight.detach().clone(), optimizer.state[model.weight]["exp_avg"].clone()])
    )
    step(model, optimizer, gradient)
    back = engine.masks["weight"] & old
    assert 0 < int(back.sum()) < int(old.sum())
    assert torch.equal(seen[0][back], weight[back])
    assert torch.equal(seen[1][back], average[back])


ADAM_FAMILY = ["Adam", "AdamW", "NAdam", "Adamax"]
VARIANTS = [name for name in OPTIMIZERS if name.split()[0] in ADAM_FAMILY]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0, 1e2, 1e6])
@pytest.mark.parametrize("age", [3, 1000])
def test_the_first_updates_of_a_grown_weight_are_at_most_the_learning_rate(variant: str, size: float, age: int) -> None:
    """Constant gradients; those of links that grow are `size` times the others."""
    assert_bounded(variant, size, age)


@pytest.mark.parametrize("variant", [name for name in OPTIMIZERS if name.split()[0] == "RAdam"])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_so_are_those_of_radam_once_it_rectifies(variant: str, size: float) -> None:
    assert_bounded(variant, size, 1000)


@pytest.mark.parametrize("size", [1e-2, 1e4])
def test_so_are_those_of_adam_with_amsgrad(size: float) -> None:
    assert_bounded("Adam", size, 1000, amsgrad=True)


def assert_bounded(variant: str, size: float, age: int, **options: object) -> None:
    name, _, word = variant.partition(" ")
    if word:
        options[word] = True
    if name == "AdamW":
        options["weight_decay"] = 0.0
    model, optimizer, engine = sparse(getattr(torch.optim, name), grow=elsewhere, **options)
    active = engine.masks["weight"].clone()
    sign = torch.where(torch.rand(12, 16) < 0.5, -1.0, 1.0)
    gradient = torch.where(active, 1.0, size * (1 + torch.rand(12, 16))) * sign
    for _ in range(2):
        step(model, optimizer, gradient)
    for value in [optimizer.state[model.weight]["step"]]:
        value.fill_(float(age))  # as if the training had gone on: the averages of constant gradients are what they are
    state = optimizer.state[model.weight]
    decay = optimizer.param_groups[0]["betas"]
    state["exp_avg"].copy_(active * gradient * (1 - decay[0] ** age))
    if "exp_inf" not in state:
        state["exp_avg_sq"].copy_(active * gradient.square() * (1 - decay[1] ** age))
    if "mu_product" in state:
        state["mu_product"].fill_(math.prod(decay[0] * (1 - 0.5 * 0.96 ** (0.004 * t)) for t in range(1, age + 1)))
    engine.update(0.5)
    before = model.weight.detach().clone()
    for number in range(100):
        step(model, optimizer, gradient)
        now = engine.masks["weight"] & ~active
        if number == 0:
            grown = now.clone()
            assert grown.any()
            before = torch.where(grown, 0.0, before)
        moved = (model.weight.detach() - before)[grown].abs().max()
        assert moved <= 1.05 * 0.01, f"update {number + 1}: {moved / 0.01:.3f} lr"
        before = model.weight.detach().clone()


def test_zero_second_moments_would_break_that_bound() -> None:
    """What the field does: the second moment of a grown link begins at 0 while Adam's step is large."""
    model, optimizer, engine = sparse(torch.optim.Adam)
    gradient = torch.ones(12, 16)
    for _ in range(3):
        step(model, optimizer, gradient)
    state = optimizer.state[model.weight]
    state["step"].fill_(1000.0)
    place = tuple(engine.masks["weight"].nonzero()[0].tolist())
    state["exp_avg"][place] = state["exp_avg_sq"][place] = 0
    largest, before = 0.0, model.weight[place].item()
    for _ in range(20):
        step(model, optimizer, gradient)
        largest, before = max(largest, abs(model.weight[place].item() - before)), model.weight[place].item()
    assert largest > 5 * 0.01


def test_unsuited_optimizers_say_why() -> None:
    parameters = [nn.Parameter(torch.zeros(2, 2))]
    with pytest.raises(ValueError, match="LBFGS cannot be made sparse"):
        refuse_unsuited(torch.optim.LBFGS(parameters))
    with pytest.raises(ValueError, match="SparseAdam takes the sparse gradients"):
        refuse_unsuited(torch.optim.SparseAdam(parameters))


@pytest.mark.parametrize("name", sorted({cell.optimizer.split()[0] for cell in table().cells if cell.allowed}))
def test_optimizers_that_need_no_clearing_stay_zero_by_themselves(name: str) -> None:
    model = nn.Linear(6, 6, bias=False)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1)
    off = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    moved = False
    with torch.no_grad():
        model.weight.masked_fill_(off, 0)
    for _ in range(4):
        model.weight.grad = torch.randn(6, 6).masked_fill(off, 0)
        optimizer.step()
        values = [model.weight.detach(), *(value for _, value in like_weight(model, optimizer))]
        moved |= any(bool(value[off].count_nonzero()) for value in values)
    assert not (stays_zero(optimizer) and moved)
    assert stays_zero(optimizer) or name in ("Adamax", "Rprop", "Muon", "Adafactor")


class Own(torch.optim.SGD):
    """Somebody's own optimizer, which pushes every weight."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(0.5)
                self.state[parameter]["anything"] = torch.full_like(parameter, math.nan)
        return None


def test_an_unknown_optimizer_is_cleared_after_its_step() -> None:
    model, optimizer, engine = sparse(Own)
    step(model, optimizer, torch.ones(12, 16))
    off = ~engine.masks["weight"]
    assert not model.weight[off].count_nonzero()
    assert not optimizer.state[model.weight]["anything"][off].count_nonzero()


def test_an_epsilon_of_zero_gives_no_nan_off_the_mask() -> None:
    model, optimizer, engine = sparse(torch.optim.Adam, eps=0.0)
    step(model, optimizer, torch.ones(12, 16))
    assert torch.isfinite(model.weight[~engine.masks["weight"]]).all()
