"""What cannot be done is said with the layer's name, and changes nothing."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import Method, Structure, layout, scores


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 9)
        self.last = nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


def trained() -> tuple[Net, torch.optim.Optimizer]:
    """A model and an optimizer in the midst of a training, with gradients at hand."""
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(3, 7)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def picture(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Everything that a failed call could have changed."""
    parameters = dict(model.named_parameters())
    return {
        "weights": {name: parameter.detach().clone() for name, parameter in parameters.items()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in parameters.items()},
        "state": copy.deepcopy(optimizer.state_dict()),
        "hooks": [len(p._post_accumulate_grad_hooks or {}) for p in parameters.values()]
        + [len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)],
        "random": torch.get_rng_state(),
    }


def same(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one.nan_to_num(777.0), other.nan_to_num(777.0))
    return type(one) is type(other) and one == other


def infinite(weight: Tensor, gradient: Tensor | None, context: scores.Context) -> Tensor:
    return torch.full_like(weight, math.inf) if context.name.startswith("last") else weight


ruined = layout.Layout("ruined", score=infinite)
diagonal_region = torch.eye(9, 7).bool()

REFUSED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "density above 1": (lambda: {"density": 1.5}, "density is 1.5: expected 0 < density <= 1"),
    "density 0": (lambda: {"density": 0.0}, "density is 0.0"),
    "negative density of a layer": (lambda: {"density": {"last": -0.5}}, "density is -0.5"),
    "density of no layer": (
        lambda: {"density": {"lats*": 0.5}},
        r"density: 'lats\*' matches none of .*first.weight.*include says which",
    ),
    "density behind a wider pattern": (
        lambda: {"density": {"*": 0.5, "last": 0.2}},
        "density: 'last' matches only weights of the patterns before it.*put it first",
    ),
    "a layout's density of a layer": (
        lambda: {"method": sc.Static(None, layout=layout.fixed({"first*": 0.5, "*": 1.5}))},
        "last.weight: .*gives density 1.5",
    ),
    "a layer that a layout does not name": (
        lambda: {"method": sc.Static(None, layout=layout.fixed({"first*": 0.5}))},
        "last.weight: no pattern of",
    ),
    "blocks that do not tile": (
        lambda: {"structure": Structure(unit=(3, 7))},
        r"last.weight: structure impossible for shape \(5, 9\)",
    ),
    "neighbours that do not divide": (
        lambda: {"structure": Structure(group=4)},
        r"first.weight: structure impossible for shape \(9, 7\)",
    ),
    "an empty region": (
        lambda: {"structure": Structure(allowed={"last*": torch.zeros(5, 9).bool()})},
        "last.weight: the allowed region is empty",
    ),
    "a region of another shape": (
        lambda: {"structure": Structure(allowed={"last*": diagonal_region})},
        r"last.weight: the allowed region is torch.bool \(9, 7\)",
    ),
    "a region through units": (
        lambda: {"structure": Structure(unit="channel", allowed={"first*": diagonal_region})},
        "first.weight: the allowed region cuts through units",
    ),
    "scores of a layout": (lambda: {"method": sc.Static(0.5, layout=ruined)}, "last.weight: the layout ruined gives scores"),
    "a layout that ranks links and fixed groups": (
        lambda: {"method": sc.Static(0.5, layout=layout.global_magnitude(), structure=Structure(group="row"))},
        "the layout global magnitude ranks links over layers",
    ),
    "a pattern without a match": (lambda: {"include": "lst*"}, "include 'lst\\*' matches no weight.*near names: .*last"),
    "a bias": (lambda: {"include": "last.bias"}, "include 'last.bias': .*never become sparse"),
    "nothing left": (lambda: {"exclude": "*"}, "nothing to make sparse"),
    "units of several sizes that move": (
        lambda: {"method": sc.GMP(0.5, end=9, every=1, structure=Structure(unit="channel"))},
        "first.weight: 7, last.weight: 9",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_sparsify_refuses_and_changes_nothing(what: str) -> None:
    model, optimizer = trained()
    options = REFUSED[what][0]()
    method = options.pop("method", None) or sc.RigL(0.3, end=10, structure=options.pop("structure", Structure()))
    before = picture(model, optimizer)
    with pytest.raises(ValueError, match=REFUSED[what][1]):
        sc.sparsify(model, optimizer, method, **options)
    assert same(picture(model, optimizer), before)
    sc.sparsify(model, optimizer, sc.Static(0.5))  # nothing was left behind that would be in the way


def test_an_optimizer_without_the_parameters() -> None:
    model, optimizer = trained()
    stranger = torch.optim.SGD(nn.Linear(3, 3).parameters(), lr=0.1)
    before = picture(model, optimizer)
    with pytest.raises(ValueError, match="nothing to make sparse: the optimizer holds no selected weight"):
        sc.sparsify(model, stranger, sc.Static(0.5))
    with pytest.raises(ValueError, match=r"'last' matches \['last.weight'\], which this optimizer does not hold"):
        sc.sparsify(model, stranger, sc.Static(0.5), include="last")
    assert same(picture(model, optimizer), before)


def test_unsuited_optimizers() -> None:
    model, _ = trained()
    lbfgs = torch.optim.LBFGS(model.parameters())
    before = picture(model, lbfgs)
    with pytest.raises(ValueError, match="LBFGS cannot be made sparse"):
        sc.sparsify(model, lbfgs, sc.Static(0.5))
    assert same(picture(model, lbfgs), before)


def test_a_second_engine_on_one_parameter() -> None:
    model, optimizer = trained()
    engine = sc.sparsify(model, optimizer, sc.Static(0.5), include="last")
    before, masks = picture(model, optimizer), {name: mask.clone() for name, mask in engine.masks.items()}
    for one in (optimizer, torch.optim.SGD(model.parameters(), lr=0.1)):
        with pytest.raises(ValueError, match=r"last.weight: another engine keeps this parameter sparse"):
            sc.sparsify(model, one, sc.Static(0.2))
    assert same(picture(model, optimizer), before)
    assert same(dict(engine.masks), masks)
    sc.sparsify(model, optimizer, sc.Static(0.5), include="first")


def sparse() -> tuple[Net, torch.optim.Optimizer, sc.SparseEngine]:
    model, optimizer = trained()
    return model, optimizer, sc.sparsify(model, optimizer, sc.RigL(0.5, end=10, every=1))


def renamed(state: dict[str, Any]) -> None:
    state["layers"]["lost.weight"] = state["layers"].pop("last.weight")


def reshaped(state: dict[str, Any]) -> None:
    state["layers"]["last.weight"]["shape"] = [9, 5]


def cut_short(state: dict[str, Any]) -> None:
    state["layers"]["last.weight"]["mask"] = state["layers"]["last.weight"]["mask"][:-1]


def miscounted(state: dict[str, Any]) -> None:
    state["layers"]["last.weight"]["counts"] = [3]


def of_the_future(state: dict[str, Any]) -> None:
    state["version"] = 99


@pytest.mark.parametrize(
    ("ruin", "message"),
    [
        (renamed, r"masks of another model: the state lacks \['last.weight'\] and has \['lost.weight'\]"),
        (reshaped, r"last.weight: the state's mask has shape \(9, 5\), the weight \(5, 9\)"),
        (cut_short, "last.weight: 5 bytes of torch.uint8 do not hold a mask"),
        (miscounted, "last.weight: the state's mask does not have the links per group"),
        (of_the_future, "the state has version 99"),
    ],
)
def test_masks_of_another_model(ruin: Callable[[dict[str, Any]], None], message: str) -> None:
    model, optimizer, engine = sparse()
    state = engine.state_dict()
    model(torch.randn(3, 7)).square().sum().backward()
    optimizer.step()
    before, now = picture(model, optimizer), engine.state_dict()
    ruin(state)
    with pytest.raises(ValueError, match=message):
        engine.load_state_dict(state)
    assert same(picture(model, optimizer), before)
    assert same(engine.state_dict(), now)


def bad_gradient(model: Net) -> None:
    assert model.last.weight.grad is not None
    model.last.weight.grad.fill_(math.nan)


def bad_weight(model: Net) -> None:
    with torch.no_grad():
        model.last.weight[model.last.weight != 0] = math.inf


@pytest.mark.parametrize("ruin", [bad_gradient, bad_weight])
@pytest.mark.parametrize("layers", [("first", "last"), ("last",)], ids=["the last of two", "the only one"])
@pytest.mark.parametrize("method", ["RigL", "GraNet", "SNFS", "row"])
def test_scores_that_are_not_finite(ruin: Callable[[Net], None], layers: tuple[str, ...], method: str) -> None:
    model, optimizer = trained()
    chosen: Method = {
        "RigL": sc.RigL(0.5, end=10, every=1),
        "GraNet": sc.GraNet(0.3, end=10, every=1),
        "SNFS": sc.SNFS(0.5, end=10, every=1),
        "row": sc.RigL(0.5, end=10, every=1, structure=Structure(group="row")),
    }[method]
    engine = sc.sparsify(model, optimizer, chosen, include=list(layers))
    optimizer.zero_grad()
    model(torch.randn(3, 7)).square().sum().backward()
    ruin(model)
    before, state = picture(model, optimizer), engine.state_dict()
    with pytest.raises(FloatingPointError, match=r"last.weight: \d+ scores of magnitude \(drop\) or .* are not finite"):
        optimizer.step()
    assert same(picture(model, optimizer), before)
    assert same(engine.state_dict(), state)
    assert (engine.steps, engine.updates) == (0, 0)


def test_a_parameter_that_was_replaced_behind_the_engine() -> None:
    model, optimizer, engine = sparse()
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    with pytest.raises(RuntimeError, match=r"first.weight: the parameter was replaced since it was made sparse"):
        optimizer.step()
    assert engine.steps == 0
