"""Cannistraci-Hebb training in the engine: what it grows, with what it composes, and what it says when it cannot."""

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import Method, network_scores, schedules
from sparse_core.network_scores import ch3_l3
from sparse_core.scores import Context
from tests.sparse_core.small_trainings import batches, mlp, training

DATA = batches(12, 8, 6, 5)


def trained(method: Method, steps: int, seed: int = 0) -> sc.SparseEngine:
    run = training(mlp(6, 12, 5), method, seed=seed)
    for batch in DATA[:steps]:
        run.step(batch)
    return run.engine


def test_growth_closes_most_paths_that_the_kept_links_leave_open() -> None:
    run = training(mlp(6, 12, 5), sc.CHT(0.4, end=10, every=1))
    for batch in DATA[:4]:
        before = {name: mask.clone() for name, mask in run.engine.masks.items()}
        run.optimizer.zero_grad()
        (run.model(batch[0]) - batch[1]).square().mean().backward()
        proposal = run.engine.propose()
        run.optimizer.step()
        for name, mask in run.engine.masks.items():
            kept = before[name] & ~proposal.dropped[name]
            paths = ch3_l3(torch.zeros(mask.shape), None, Context(name, kept))
            came, idle = mask & ~kept, ~mask
            assert int(came.sum()) == int(proposal.dropped[name].sum()) > 0
            assert paths[came].min() >= paths[idle].max()


def test_no_gradient_is_asked_for() -> None:
    run = training(mlp(6, 12, 5), sc.CHTs(0.4, end=10, every=1))
    run.model[2].weight.grad = torch.zeros(5, 12)  # and none for the other layer, whose links change all the same
    before = {name: mask.clone() for name, mask in run.engine.masks.items()}
    run.optimizer.step()
    assert not run.engine.method.reads_gradient
    assert all(not torch.equal(mask, before[name]) for name, mask in run.engine.masks.items())


def share(engine: sc.SparseEngine) -> float:
    report = engine.report()
    return report.links / report.size


@pytest.mark.parametrize("preset", [sc.CHT, sc.CHTs])
def test_the_density_may_fall_along_a_logistic_curve(preset: type) -> None:
    density = schedules.Sigmoid(0.5, 0.2)
    for steps in (0, 4, 8):
        engine = trained(preset(density, end=8, every=2), steps)
        assert share(engine) == pytest.approx(density(steps, 8), abs=0.5 / 132)
    assert share(trained(preset(density, end=8, every=2), 12)) == pytest.approx(0.2, abs=0.5 / 132)


def test_the_bound_may_be_exceeded_between_updates() -> None:
    method = sc.CHTs(schedules.SoftBound(0.2, 0.1), end=10, every=2, rate=1 / 3)
    assert share(trained(method, 4)) == pytest.approx(0.3, abs=0.5 / 132)
    assert share(trained(method, 8)) == pytest.approx(0.25, abs=0.5 / 132)
    assert share(trained(method, 10)) == pytest.approx(0.2, abs=0.5 / 132)


def test_draws_depend_on_the_seed_and_what_is_strong_stays_more_often() -> None:
    drops = {True: 0, False: 0}
    masks: list[Tensor] = []
    for seed in range(30):
        model = mlp(6, 12, 5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        engine = sc.sparsify(model, optimizer, sc.CHTs(0.5, end=10, every=1), density={"0": 1.0}, seed=seed)
        with torch.no_grad():
            model[2].weight.copy_(torch.where(torch.arange(12) % 2 == 0, 1.0, 0.3) * engine.masks["2.weight"])
        before = engine.masks["2.weight"].clone()
        (model(DATA[0][0]) - DATA[0][1]).square().mean().backward()
        dropped = engine.propose().dropped["2.weight"]
        masks.append(dropped)
        for strong in drops:
            drops[strong] += int((dropped & before)[:, 0 if strong else 1 :: 2].sum())
    assert drops[False] > 3 * drops[True] > 0
    assert any(not torch.equal(masks[0], mask) for mask in masks)


@pytest.mark.parametrize("importance", [sc.scores.magnitude, network_scores.relative_importance])
def test_convolutions_and_packed_projections_are_rewired(importance: sc.scores.Score) -> None:
    torch.manual_seed(0)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv1d(4, 8, 3, padding=1)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            features = self.convolution(x).mT
            return self.attention(features, features, features)[0]

    model = Both()
    run = training(model, sc.CHTs(0.3, end=10, every=1, importance=importance))
    before = {name: mask.clone() for name, mask in run.engine.masks.items()}
    assert len(before) == 3
    for _ in range(3):
        run.optimizer.zero_grad()
        model(torch.randn(2, 4, 7)).square().mean().backward()
        run.optimizer.step()
    for name, mask in run.engine.masks.items():
        assert int(mask.sum()) == int(before[name].sum())
        assert not torch.equal(mask, before[name])


def test_a_weight_that_is_no_number_is_named_and_nothing_changes() -> None:
    run = training(mlp(6, 12, 5), sc.CHTs(0.4, end=10, every=1))
    with torch.no_grad():
        place = run.engine.masks["2.weight"].nonzero()[0]
        run.model[2].weight[place[0], place[1]] = float("nan")
    before = {name: mask.clone() for name, mask in run.engine.masks.items()}
    (run.model(DATA[0][0]) - DATA[0][1]).square().mean().backward()
    with pytest.raises(FloatingPointError, match=r"2.weight: .* scores of sampled\(magnitude, Linear"):
        run.optimizer.step()
    assert all(torch.equal(mask, before[name]) for name, mask in run.engine.masks.items())
