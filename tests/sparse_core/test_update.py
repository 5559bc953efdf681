"""Updates of several layers: totals, layers of given density, densities that fall, scores that fail."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import Method, SparseEngine, layout, schedules, scores

SIZES = [7, 5, 3, 11, 13, 6, 9]


def chain(sizes: list[int]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)))


def train(model: nn.Module, engine: SparseEngine, optimizer: torch.optim.Optimizer, inputs: int, steps: int) -> list[list[int]]:
    """Steps on random data; the links of every layer after each."""
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, inputs)).square().sum().backward()
        optimizer.step()
        found.append([int(mask.sum()) for mask in engine.masks.values()])
    return found


def made(model: nn.Module, method: Method, **options: object) -> tuple[SparseEngine, torch.optim.Optimizer]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    return sc.sparsify(model, optimizer, method, **options), optimizer  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "method",
    [
        sc.GMP(0.1, end=6, every=1),
        sc.GraNet(0.1, end=6, every=1),
        sc.SNFS(0.1, end=60, every=1),
        sc.RigL(0.1, end=60, every=1, scope="global"),
        sc.SNFS(schedules.Linear(0.5, 0.1), end=6, every=1),  # type: ignore[arg-type]
        sc.GMP(0.1, end=6, every=1, scope="layer"),
    ],
    ids=["GMP", "GraNet", "SNFS", "global RigL", "falling SNFS", "GMP by layer"],
)
def test_layers_of_given_density_neither_give_nor_take(method: Method) -> None:
    model = chain([16, 16, 16, 16, 16])
    engine, optimizer = made(model, method, density={"0": 1.0, "2": 0.25})
    for step, counts in enumerate(train(model, engine, optimizer, 16, 6), start=1):
        assert (counts[0], counts[2]) == (256, 64)
        wanted = method.density_at(step)
        assert wanted is not None
        assert counts[1] + counts[3] == round(wanted * 512)


def test_blocks_of_a_neighbour_do_not_eat_into_a_full_layer() -> None:
    engine, _ = made(chain([16, 16, 16]), sc.Static(0.004, structure=sc.Structure(unit=(4, 4))), density={"1": 1.0})
    assert [int(mask.sum()) for mask in engine.masks.values()] == [16, 256]


def test_layers_of_given_density_may_have_units_of_their_own_size() -> None:
    structure = sc.Structure(unit="channel")
    model = chain([8, 8, 4])
    with pytest.raises(ValueError, match=r"0.weight: 8, 1.weight: 8, 2.weight: 4|as many weights each"):
        made(chain([8, 8, 8, 4, 4]), sc.GMP(0.5, end=4, every=1, structure=structure))
    engine, optimizer = made(model, sc.GMP(0.5, end=4, every=1, structure=structure), density={"1": 1.0})
    assert train(model, engine, optimizer, 8, 4)[-1] == [32, 32]


@pytest.mark.parametrize("chosen", [layout.erk(), layout.uniform(), layout.global_magnitude()], ids=lambda one: one.name)
def test_a_falling_density_that_grows_nothing_is_exact_at_every_step(chosen: layout.Layout) -> None:
    """Rounding by largest remainders gives a layer now and then a link more at a lower total."""
    model = chain(SIZES)
    method = sc.GMP(0.05, end=120, every=1, scope="layer", layout=chosen)
    engine, optimizer = made(model, method)
    size, before = engine.report().size, [10**9] * 6
    for step, counts in enumerate(train(model, engine, optimizer, 7, 120), start=1):
        wanted = method.density_at(step)
        assert wanted is not None
        assert sum(counts) == round(wanted * size)
        assert all(new <= old for new, old in zip(counts, before, strict=True))
        before = counts


@pytest.mark.parametrize("structure", [sc.Structure(unit="channel"), sc.Structure(group="row")], ids=["channel", "row"])
def test_a_falling_density_never_fails_for_the_rounding_of_units(structure: sc.Structure) -> None:
    model = chain(SIZES)
    engine, optimizer = made(model, sc.GMP(0.1, end=60, every=1, scope="layer", structure=structure))
    counts = train(model, engine, optimizer, 7, 60)
    assert all(new <= old for other, one in pairwise(counts) for new, old in zip(one, other, strict=True))


class Bump:
    """A density that changes in a way that its ends do not show."""

    def __init__(self, middle: float) -> None:
        self.middle = middle

    def __call__(self, step: int, end: int | None) -> float:
        return self.middle if step == 2 else 0.5


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Method(density=Bump(0.8), every=1, end=5), "0.weight and others: the density rises, but Method.grow is None"),
        (
            Method(density=Bump(0.8), every=1, end=5, scope="global"),
            "0.weight and others: the density rises, but Method.grow is None",
        ),
        (
            Method(density=Bump(0.2), every=1, end=5, drop=None),
            "0.weight and others: the density falls, but Method.drop is None",
        ),
    ],
)
def test_changes_that_the_method_cannot_make_name_the_layer(method: Method, message: str) -> None:
    model = chain([8, 8, 8])
    engine, optimizer = made(model, method)
    train(model, engine, optimizer, 8, 1)
    before = {name: mask.clone() for name, mask in engine.masks.items()}
    with pytest.raises(ValueError, match=message):
        train(model, engine, optimizer, 8, 1)
    assert all(torch.equal(mask, before[name]) for name, mask in engine.masks.items())


def test_a_density_that_rises_is_filled_by_growth() -> None:
    model = chain([8, 8, 8])
    engine, optimizer = made(model, sc.RigL(schedules.Linear(0.1, 0.9), end=4, every=1))  # type: ignore[arg-type]
    assert [sum(counts) for counts in train(model, engine, optimizer, 8, 4)] == [38, 64, 90, 115]


def odd_shape(weight: Tensor, gradient: Tensor | None, context: scores.Context) -> Tensor:
    return weight.reshape(-1)


def test_a_score_of_another_shape_names_layer_and_score() -> None:
    model = chain([8, 8])
    engine, optimizer = made(model, Method(density=0.5, grow=odd_shape, rate=0.3, every=1))
    with pytest.raises(ValueError, match=r"0.weight: the score odd_shape has shape \(64,\), expected \(8, 8\)"):
        train(model, engine, optimizer, 8, 1)
    assert (engine.steps, engine.updates) == (0, 0)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_an_update_that_fails_leaves_averages_as_they_were(number: float) -> None:
    model = chain([16, 16, 16])
    engine, optimizer = made(model, sc.SNFS(0.2, end=40, every=2))
    train(model, engine, optimizer, 16, 1)
    state = engine.state_dict()
    optimizer.zero_grad()
    model(torch.randn(2, 16)).sum().backward()
    assert model[1].weight.grad is not None
    model[1].weight.grad[0, 0] = number
    with pytest.raises(FloatingPointError, match=r"1.weight: 1 scores of magnitude \(drop\) or momentum \(grow\)"):
        optimizer.step()
    for name, layer in engine.state_dict()["layers"].items():
        for key, value in layer["memory"].items():
            assert torch.equal(value, state["layers"][name]["memory"][key])
    train(model, engine, optimizer, 16, 1)  # and the next step, with sane gradients, goes on
    assert (engine.steps, engine.updates) == (2, 1)


def test_layers_without_a_gradient_keep_their_links() -> None:
    model = chain([8, 8, 8])
    engine, optimizer = made(model, sc.RigL(0.3, end=10, every=1))
    before = engine.masks["1.weight"].clone()
    model[0](torch.randn(2, 8)).square().sum().backward()
    with pytest.warns(UserWarning, match=r"1.weight has no gradient in the step of an update"):
        optimizer.step()
    assert torch.equal(engine.masks["1.weight"], before)
    assert engine.updates == 1
