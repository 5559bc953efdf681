"""DSR: a threshold over all layers that follows how many links it takes; growth by what the layers have left."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch import nn

import sparse_core as sc
from sparse_core import Method, Structure, schedules, scores
from sparse_core.threshold import Threshold, count_below
from tests.sparse_core.small_trainings import Training, batches, copied, mlp, require_exact_density, same, training


@pytest.mark.parametrize(
    ("below", "wanted", "factor"),
    [(0, 100, 2.0), (89, 100, 2.0), (90, 100, 1.0), (100, 100, 1.0), (110, 100, 1.0), (111, 100, 0.5), (7, 0, 1.0)],
)
def test_the_threshold_is_doubled_or_halved_outside_of_the_tolerance(below: int, wanted: int, factor: float) -> None:
    rule = Threshold(0.003, 0.1)
    now = rule.first(torch.device("cpu"))
    assert float(now) == 0.003
    assert float(rule.following(now, torch.tensor(below), torch.tensor(wanted))) == 0.003 * factor


def test_the_threshold_stays_a_number_however_long_it_misses() -> None:
    up = down = Threshold().first(torch.device("cpu"))
    for _ in range(2000):
        up = Threshold().following(up, torch.tensor(0), torch.tensor(5))
        down = Threshold().following(down, torch.tensor(9), torch.tensor(5))
    assert math.isfinite(float(up))
    assert float(down) > 0
    for _ in range(250):
        down = Threshold().following(down, torch.tensor(0), torch.tensor(5))
    assert float(down) > 1e-3


def test_only_active_links_are_counted() -> None:
    size, active = torch.tensor([[0.0, 0.1, 0.25, 0.3]]), torch.tensor([[False, True, True, True]])
    assert int(count_below(torch.tensor(0.25), [size, size], [active, ~active])) == 2  # what equals it is not below it


def held(run: Training) -> float:
    """The threshold of the next update; every layer has the same."""
    found = {float(layer["memory"]["threshold"]) for layer in run.engine.state_dict()["layers"].values()}
    assert len(found) == 1
    return found.pop()


def test_links_move_between_layers_and_their_total_is_exact() -> None:
    run = training(mlp(6, 40, 40, 5), sc.DSR(0.2, end=200, every=2, rate=0.3), "AdamW")
    total = round(0.2 * sum(mask.numel() for mask in run.engine.masks.values()))
    layers = set()
    for batch in batches(80, 8, 6, 5):
        counts = tuple(int(mask.sum()) for mask in run.engine.masks.values())
        assert sum(counts) == total
        assert min(counts) >= 1
        layers.add(counts)
        run.step(batch)
    assert len(layers) > 5
    assert run.engine.updates == 40


def test_the_number_that_goes_comes_near_what_is_wanted() -> None:
    run = training(mlp(6, 60, 60, 5), sc.DSR(0.2, end=400, every=1, rate=0.2, threshold=1e-6), "SGD", lr=0.01)
    links, gone = sum(int(mask.sum()) for mask in run.engine.masks.values()), []
    for batch in batches(60, 8, 6, 5):
        nn.functional.mse_loss(run.model(batch[0]), batch[1]).backward()
        gone.append(sum(int(mask.sum()) for mask in run.engine.propose().dropped.values()))
        run.step(batch)
    assert gone[0] <= 2  # the first threshold takes next to nothing
    late = sum(gone[30:]) / 30
    assert 0.1 * links < late < 0.4 * links  # steps of two cannot come nearer than a factor of two on either side


def with_weak_links(size: int, weak: tuple[int, ...], method: Method, density: dict[str, float] | None = None) -> Training:
    """Square layers with so many links of 0.1, the others of 1; one step is done."""
    model = nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in weak))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    engine = sc.sparsify(model, optimizer, method, density=density)
    with torch.no_grad():
        for number, weight, mask in zip(weak, model.parameters(), engine.masks.values(), strict=True):
            links = int(mask.sum())
            weight.view(-1)[mask.view(-1)] = torch.cat([torch.full((number,), 0.1), torch.ones(links - number)])
    model(torch.randn(3, size)).sum().backward()
    optimizer.step()
    return Training(model, optimizer, engine)


def links_of(run: Training) -> list[int]:
    return [int(mask.sum()) for mask in run.engine.masks.values()]


def test_growth_follows_the_links_that_are_left() -> None:
    run = with_weak_links(20, (80, 20), sc.DSR(0.25, end=100, every=1, rate=0.5, threshold=0.5))
    # 100 go, 20 and 80 are left: those 100 are shared out as 1 to 4.
    assert links_of(run) == [20 + 20, 80 + 80]


def test_what_a_layer_lost_is_room_for_growth() -> None:
    run = with_weak_links(10, (5, 15), sc.DSR(0.9, end=100, every=1, rate=0.1, threshold=0.5))
    # 20 go, 85 and 75 are left: those 20 are shared out as 17 to 15, though the first layer had but 10 free places.
    assert links_of(run) == [85 + 11, 75 + 9]


def test_the_threshold_follows_all_links_below_it_and_wants_no_more_than_there_is_room_for() -> None:
    run = with_weak_links(10, (20,), sc.DSR(0.9, end=100, every=1, rate=0.5, threshold=0.5))
    assert links_of(run) == [90]
    assert held(run) == 0.25  # 20 were below, 10 can go, so 10 were wanted


def test_layers_of_given_density_exchange_their_share_whatever_is_below_the_threshold() -> None:
    run = with_weak_links(10, (10, 0), sc.DSR(0.5, end=100, every=1, rate=0.3, threshold=1e-6), {"0": 0.2})
    run.optimizer.zero_grad()
    run.model(torch.randn(3, 10)).sum().backward()
    assert {name: int(mask.sum()) for name, mask in run.engine.propose().dropped.items()} == {"0.weight": 6, "1.weight": 0}
    assert links_of(run) == [20, 50]


def test_no_layer_loses_its_last_link_and_no_more_go_than_there_is_room_for() -> None:
    run = training(mlp(6, 12, 12, 5), sc.DSR(0.3, end=100, every=1, rate=0.3, threshold=1e6), "SGD", lr=1e-4)
    total = sum(int(mask.sum()) for mask in run.engine.masks.values())
    for batch in batches(12, 8, 6, 5):
        run.step(batch)
        counts = [int(mask.sum()) for mask in run.engine.masks.values()]
        assert min(counts) >= 1
        assert sum(counts) == total
    full = training(mlp(6, 12, 5), sc.DSR(0.9, end=100, every=1, rate=0.5, threshold=1e6), "SGD", lr=1e-4)
    free = sum(int((~mask).sum()) for mask in full.engine.masks.values())
    nn.functional.mse_loss(full.model(torch.randn(8, 6)), torch.randn(8, 5)).backward()
    assert sum(int(mask.sum()) for mask in full.engine.propose().dropped.values()) == free


def test_a_rate_of_zero_exchanges_nothing_and_leaves_the_threshold() -> None:
    run = training(mlp(6, 12, 5), sc.DSR(0.3, end=100, every=1, rate=0.0, threshold=1.0))
    before = copied(run.engine.masks)
    for batch in batches(3, 8, 6, 5):
        run.step(batch)
    assert run.engine.updates == 3
    assert same(before, run.engine.masks)
    assert held(run) == 1.0


def test_the_threshold_is_saved_and_a_dry_run_leaves_it() -> None:
    method = sc.DSR(0.3, end=100, every=1, rate=0.3)
    run = training(mlp(6, 12, 5), method)
    data = batches(9, 8, 6, 5)
    for batch in data[:6]:
        run.step(batch)
    before = held(run)
    assert before != 1e-3
    run.engine.propose()
    assert held(run) == before
    file = io.BytesIO()
    torch.save(run.engine.state_dict(), file)
    file.seek(0)
    other = training(mlp(6, 12, 5), method)
    other.engine.load_state_dict(torch.load(file, weights_only=True))
    assert held(other) == before


def test_layers_that_were_frozen_take_up_the_threshold_of_the_others() -> None:
    run = training(mlp(6, 12, 12, 5), sc.DSR(0.3, end=100, every=1, rate=0.3, threshold=1e-6), "SGD", lr=1e-4)
    data = batches(9, 8, 6, 5)
    run.model[0].weight.requires_grad_(False)  # type: ignore[index]
    for batch in data[:3]:
        run.step(batch)
    memory = run.engine.state_dict()["layers"]
    assert "threshold" not in memory["0.weight"]["memory"]
    assert float(memory["2.weight"]["memory"]["threshold"]) == 8e-6
    run.model[0].weight.requires_grad_(True)  # type: ignore[index]
    run.step(data[3])
    assert held(run) == 16e-6
    run.model[0].weight.requires_grad_(False)  # type: ignore[index]
    for batch in data[4:6]:
        run.step(batch)
    run.model[0].weight.requires_grad_(True)  # type: ignore[index]
    run.step(data[6])
    assert held(run) == 128e-6


def test_an_update_that_fails_leaves_the_threshold() -> None:
    run = training(mlp(6, 12, 5), sc.DSR(0.3, end=100, every=1, rate=0.3))
    data = batches(3, 8, 6, 5)
    run.step(data[0])
    state = copy.deepcopy(run.engine.state_dict())
    with torch.no_grad():
        weight = run.model[0].weight  # type: ignore[index]
        weight.view(-1)[run.engine.masks["0.weight"].view(-1).nonzero()[0]] = float("inf")
    run.optimizer.zero_grad()
    run.model(data[1][0]).sum().backward()
    with pytest.raises(FloatingPointError, match=r"0\.weight: 1 scores of magnitude"):
        run.optimizer.step()
    assert float(state["layers"]["0.weight"]["memory"]["threshold"]) == held(run)


def test_layers_of_given_density_neither_give_nor_take() -> None:
    model = mlp(16, 16, 16, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    engine = sc.sparsify(model, optimizer, sc.DSR(0.2, end=60, every=1, rate=0.3), density={"0": 1.0})
    for batch in batches(10, 8, 16, 16):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(batch[0]), batch[1]).backward()
        optimizer.step()
        counts = [int(mask.sum()) for mask in engine.masks.values()]
        assert counts[0] == 256
        assert counts[1] + counts[2] == round(0.2 * 512)


def test_a_density_that_falls_or_rises_is_exact() -> None:
    for change in (schedules.Cubic(0.8, 0.2), schedules.Linear(0.2, 0.6)):
        require_exact_density(sc.DSR(change, end=10, every=1, rate=0.3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sc.DSR(0.3, end=100, scope="layer"), "one number for all layers: give scope='global', not 'layer'"),
        (lambda: sc.DSR(0.3, end=100, structure=Structure(group="row")), "fixed counts per row do not allow"),
        (
            lambda: sc.DSR(0.3, end=100, grow=None),
            "says how many links are exchanged: give the method `drop` and `grow`",
        ),
        (lambda: sc.DSR(0.3, end=100, threshold=0.0), "Threshold.start is 0.0: expected a positive number"),
        (lambda: sc.DSR(0.3, end=100, tolerance=1.0), "Threshold.tolerance is 1.0: expected 0 <= tolerance < 1"),
    ],
)
def test_what_cannot_be_is_told(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_density_that_falls_leaves_every_layer_its_largest_weight() -> None:
    """A layer of small weights would be emptied by the others, and without survivors nothing would ever grow there again."""
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    engine = sc.sparsify(model, optimizer, sc.DSR(schedules.Linear(0.9, 0.2), end=6, every=1))  # type: ignore[arg-type]
    with torch.no_grad():
        model[0].weight.mul_(1e-6)
    for step in range(1, 7):
        largest = model[0].weight.detach().abs().argmax()
        optimizer.zero_grad()
        model(torch.randn(4, 10)).square().mean().backward()
        optimizer.step()
        assert engine.masks["0.weight"].view(-1)[largest]
        assert sum(int(mask.sum()) for mask in engine.masks.values()) == round((0.9 - 0.7 * step / 6) * 200)


def test_the_preset_has_one_density_for_all_layers_and_a_steady_rate() -> None:
    method = sc.DSR(0.3, 100)
    assert (method.spread.name, method.rate, method.threshold) == ("uniform", 0.1, Threshold(1e-3, 0.1))


def test_a_threshold_may_be_given_whole() -> None:
    assert sc.DSR(0.3, 100, threshold=Threshold(0.01, 0.5)).threshold == Threshold(0.01, 0.5)
    assert sc.DSR(0.3, 100, threshold=0.01, tolerance=0.5).threshold == Threshold(0.01, 0.5)


def test_survivors_may_share_out_other_growth_too() -> None:
    method = Method(density=0.3, grow=scores.gradient, rate=0.3, every=1, end=50, scope="global", share=scores.survivors)
    run = training(mlp(6, 12, 12, 5), method)
    total = sum(int(mask.sum()) for mask in run.engine.masks.values())
    for batch in batches(6, 8, 6, 5):
        run.step(batch)
    assert sum(int(mask.sum()) for mask in run.engine.masks.values()) == total
