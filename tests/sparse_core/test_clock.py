"""When updates happen, and what counts as a step."""

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import Method, SparseEngine, schedules, scores


def pair() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"left": nn.Linear(12, 10), "right": nn.Linear(12, 10)})


def changed_at(engine: SparseEngine, optimizer: torch.optim.Optimizer, model: nn.Module, steps: int) -> list[int]:
    """The steps, from 1, in which the engine counted an update; masks change in no other."""
    found = []
    for step in range(1, steps + 1):
        before, updates = {name: mask.clone() for name, mask in engine.masks.items()}, engine.updates
        optimizer.zero_grad()
        model(torch.randn(4, 12)).square().sum().backward()
        optimizer.step()
        if engine.updates > updates:
            found.append(step)
        else:
            assert all(torch.equal(mask, before[name]) for name, mask in engine.masks.items())
    return found


@pytest.mark.parametrize(
    ("every", "offset", "end", "expected"),
    [
        (3, 0, 9, [3, 6, 9]),
        (3, 0, 10, [3, 6, 9]),
        (4, 1, 9, [1, 5, 9]),
        (4, 6, 20, [6, 10, 14]),
        (5, 0, 4, []),
        (2, 0, None, [2, 4, 6, 8, 10, 12, 14]),
        (None, 0, 10, []),
    ],
)
def test_updates_come_at_multiples_of_every_up_to_and_including_the_end(
    every: int | None, offset: int, end: int | None, expected: list[int]
) -> None:
    model = pair()["left"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    method = Method(density=0.3, grow=scores.gradient, rate=0.3, every=every, offset=offset, end=end)
    engine = sc.sparsify(model, optimizer, method)
    assert changed_at(engine, optimizer, model, 14) == expected
    assert (engine.steps, engine.updates) == (14, len(expected))


@pytest.mark.parametrize("end", [9, 10, 11])
@pytest.mark.parametrize("offset", [0, 1, 2])
def test_the_last_update_uses_the_values_of_the_end(end: int, offset: int) -> None:
    model = pair()["left"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    rates: list[float] = []
    inner = schedules.Linear(0.5, 0.25)

    def rate(step: int, end: int | None) -> float:
        rates.append(inner(step, end))
        return rates[-1]

    method = Method(density=schedules.Cubic(0.9, 0.2), grow=scores.gradient, rate=rate, every=3, end=end, offset=offset)
    engine = sc.sparsify(model, optimizer, method)
    links = []
    last = max(step for step in range(end + 1) if (step - offset) % 3 == 0)
    for step in range(1, 15):
        optimizer.zero_grad()
        model(torch.randn(4, 12)).square().sum().backward()
        before = engine.masks["weight"].clone()
        rates.clear()
        if step == last:
            dropped = engine.propose().dropped["weight"]
            rates.clear()
        optimizer.step()
        links.append(int(engine.masks["weight"].sum()))
        if step == last:
            assert rates == [0.25]
            left = 24  # 0.2 of 120
            assert int(dropped.sum()) == int(before.sum()) - left + int(0.25 * left)
        assert len(rates) == (1 if step <= end and step >= max(1, offset) and (step - offset) % 3 == 0 else 0)
    assert links[last - 1 :] == [24] * (15 - last)
    assert links[last - 2] > 24


def test_a_final_prune_drops_and_grows_nothing() -> None:
    model = pair()["left"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    method = Method(density=0.5, grow=scores.random, rate=0.4, every=2, end=5, final_prune=True)
    engine = sc.sparsify(model, optimizer, method)
    assert changed_at(engine, optimizer, model, 3) == [2]
    assert engine.report().links == 60
    optimizer.zero_grad()
    model(torch.randn(4, 12)).square().sum().backward()
    before, size = engine.masks["weight"].clone(), model.weight.detach().abs()
    optimizer.step()
    mask = engine.masks["weight"]
    assert int(mask.sum()) == 36
    assert not (mask & ~before).any()
    assert size[mask].min() >= size[before & ~mask].max()
    assert changed_at(engine, optimizer, model, 4) == []


def test_a_clock_ticks_when_one_of_its_parameters_has_a_gradient() -> None:
    model = pair()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    engine = sc.sparsify(model, optimizer, sc.SET(0.3, end=None, every=2), include="left")
    seen = []
    for part in ["right", "left", "right", "right", "left", "left"]:
        optimizer.zero_grad()
        model[part](torch.randn(3, 12)).square().sum().backward()
        optimizer.step()
        seen.append((engine.steps, engine.updates))
    assert seen == [(0, 0), (1, 0), (1, 0), (1, 0), (2, 1), (3, 1)]


def test_a_step_without_a_backward_pass_is_none() -> None:
    model = pair()["left"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    engine = sc.sparsify(model, optimizer, sc.SET(0.3, end=None, every=1))
    optimizer.step()
    optimizer.step()
    assert (engine.steps, engine.updates) == (0, 0)


def test_several_networks_in_one_optimizer_have_engines_and_clocks_of_their_own() -> None:
    """An actor that learns in every second step beside a critic that always does, as in TD3."""
    model = pair()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    actor = sc.sparsify(model["left"], optimizer, sc.RigL(0.2, end=40, every=3))
    critic = sc.sparsify(model["right"], optimizer, sc.SET(0.4, end=40, every=2))
    for step in range(1, 13):
        before = actor.masks["weight"].clone(), critic.masks["weight"].clone()
        optimizer.zero_grad()
        loss = model["right"](torch.randn(3, 12)).square().sum()
        if step % 2 == 0:
            loss = loss + model["left"](torch.randn(3, 12)).square().sum()
        loss.backward()
        optimizer.step()
        assert (actor.steps, actor.updates) == (step // 2, step // 6)
        assert (critic.steps, critic.updates) == (step, step // 2)
        assert torch.equal(before[0], actor.masks["weight"]) == (step % 6 != 0)
        assert torch.equal(before[1], critic.masks["weight"]) == (step % 2 != 0)
    assert (actor.report().links, critic.report().links) == (24, 48)


def test_two_optimizers_take_two_engines() -> None:
    model = pair()
    optimizers = [torch.optim.SGD(model[part].parameters(), lr=0.01) for part in ("left", "right")]
    engines = [sc.sparsify(model, one, sc.SET(0.3, end=None, every=1)) for one in optimizers]
    assert [list(engine.masks) for engine in engines] == [["left.weight"], ["right.weight"]]
    model["left"](torch.randn(3, 12)).square().sum().backward()
    model["right"](torch.randn(3, 12)).square().sum().backward()
    optimizers[1].step()
    assert [engine.updates for engine in engines] == [0, 1]


def test_an_update_asked_for_comes_in_the_next_step_alone() -> None:
    model = pair()["left"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    engine = sc.sparsify(model, optimizer, Method(density=0.5, grow=scores.gradient, every=None))
    assert changed_at(engine, optimizer, model, 2) == []
    engine.update(0.25)
    optimizer.zero_grad()
    model(torch.randn(4, 12)).square().sum().backward()
    gradient, before = model.weight.grad.abs().clone(), engine.masks["weight"].clone()
    assert gradient[~before].count_nonzero() > 50  # dense
    size = model.weight.detach().abs()
    optimizer.step()
    mask = engine.masks["weight"]
    worst = size[before].sort().values[:15]  # a quarter of 60
    kept = before & (size > worst[-1])
    assert not (kept & ~mask).any()
    assert int(mask.sum()) == 60
    assert gradient[mask & ~kept].min() >= gradient[~mask].max()
    assert changed_at(engine, optimizer, model, 3) == []
    assert engine.updates == 1


def test_an_update_asked_for_replaces_the_rate_of_a_scheduled_one() -> None:
    model = pair()["left"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    engine = sc.sparsify(model, optimizer, sc.RigL(0.5, end=10, every=2, rate=0.3))
    changed_at(engine, optimizer, model, 1)
    engine.update(0.0)
    before = engine.masks["weight"].clone()
    assert changed_at(engine, optimizer, model, 1) == [1]
    assert torch.equal(engine.masks["weight"], before)


def backward(model: nn.Module) -> Tensor:
    loss: Tensor = model(torch.randn(4, 12)).square().sum()
    loss.backward()
    return loss


def test_an_update_after_a_masked_backward_pass_is_refused_where_growth_reads_the_gradient() -> None:
    model = pair()["left"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    engine = sc.sparsify(model, optimizer, sc.RigL(0.5, end=100, every=50))
    backward(model)
    with pytest.raises(RuntimeError, match="update: the gradients of the coming step are already masked"):
        engine.update(0.3)
    with pytest.raises(RuntimeError, match="propose: the gradients of the coming step are already masked"):
        engine.propose()
    optimizer.step()
    assert engine.updates == 0
    engine.update(0.3)  # the gradients that lie around are those of the last step
    optimizer.zero_grad()
    backward(model)
    optimizer.step()
    assert engine.updates == 1


@pytest.mark.parametrize("method", [sc.SET(0.5, end=100, every=50), sc.MEST(0.5, end=100, every=50)], ids=["SET", "MEST"])
def test_an_update_after_a_masked_backward_pass_is_fine_where_only_active_links_are_read(method: Method) -> None:
    model = pair()["left"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    engine = sc.sparsify(model, optimizer, method)
    backward(model)
    engine.update(0.3)
    optimizer.step()
    assert engine.updates == 1


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_out_of_range(fraction: float) -> None:
    model = pair()["left"]
    engine = sc.sparsify(model, torch.optim.SGD(model.parameters(), lr=0.01), sc.SET(0.5, end=None, every=1))
    with pytest.raises(ValueError, match="update: the fraction is"):
        engine.update(fraction)


@pytest.mark.parametrize("method", [sc.Static(0.5), sc.GMP(0.5, end=9, every=1)], ids=["Static", "GMP"])
def test_methods_that_exchange_nothing_cannot_be_asked(method: Method) -> None:
    model = pair()["left"]
    engine = sc.sparsify(model, torch.optim.SGD(model.parameters(), lr=0.01), method)
    with pytest.raises(ValueError, match="update: this method exchanges nothing"):
        engine.update(0.3)
