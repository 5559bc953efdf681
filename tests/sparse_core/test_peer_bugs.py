"""Faults of other engines: each in its few wrong lines, which fail here, beside ours, which does not.

The list is that of the field's public engines for dynamic sparse training; the wrong lines are restated, not copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import scores
from sparse_core.layout import share_out
from sparse_core.schedules import Cubic
from sparse_core.selection import take_largest, take_smallest
from tests.sparse_core.small_trainings import batches, mlp, training

DENSITY, RATE = 0.2, 0.3


def links(weight: Tensor, mask: Tensor) -> tuple[int, int]:
    """Active positive and negative weights."""
    return int(((weight > 0) & mask).sum()), int(((weight < 0) & mask).sum())


def signed_weight(seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight with a fifth of its links, two thirds of them positive."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(100, 100, generator=generator).abs()
    weight *= torch.where(torch.rand(100, 100, generator=generator) < 1 / 3, -1.0, 1.0)
    mask = torch.rand(100, 100, generator=generator) < DENSITY
    return weight * mask, mask


def keep_below_the_threshold_of_positives(weight: Tensor, mask: Tensor) -> Tensor:
    """Dettmers' line: both thresholds are taken of one sorted list, with the comparison the wrong way round."""
    positives, negatives = weight[weight > 0].sort().values, weight[weight < 0].sort().values
    low = positives[math.ceil(RATE * len(positives)) - 1]
    high = negatives[len(negatives) - math.ceil(RATE * len(negatives))]
    return mask & (weight < low) & (weight != 0) & ~((weight > high) & (weight < 0))


def keep_the_most_negative(weight: Tensor, mask: Tensor) -> Tensor:
    """ITOP's lines: the negatives are sorted from the most negative, and that many of them are kept."""
    positives, negatives = weight[weight > 0].sort().values, weight[weight < 0].sort().values
    low = positives[math.ceil(RATE * len(positives)) - 1]
    high = negatives[math.ceil(RATE * len(negatives)) - 1]
    return mask & ((weight > low) | (weight < high))


def keep_by_our_rule(weight: Tensor, mask: Tensor) -> Tensor:
    score = scores.signed(weight, None, scores.Context("w", mask))
    count = torch.tensor([int(RATE * int(mask.sum()))])
    return mask & ~take_smallest(score.view(1, -1), mask.view(1, -1), count).taken.view_as(mask)


def test_signed_pruning_keeps_its_share_of_either_sign() -> None:
    weight, mask = signed_weight()
    positives, negatives = links(weight, mask)

    def right(kept: Tensor) -> bool:
        found = links(weight, kept)
        return all(abs(now - (1 - RATE) * before) <= 1 for now, before in zip(found, (positives, negatives), strict=True))

    assert not right(keep_below_the_threshold_of_positives(weight, mask))
    assert links(weight, keep_the_most_negative(weight, mask))[1] < 0.5 * negatives
    assert not right(keep_the_most_negative(weight, mask))
    assert right(keep_by_our_rule(weight, mask))


def test_signed_pruning_removes_active_weights_that_are_exactly_zero() -> None:
    weight, mask = signed_weight()
    dead = mask & (torch.rand(100, 100, generator=torch.Generator().manual_seed(3)) < 0.1)
    weight = torch.where(dead, 0.0, weight)
    by_sign = mask & ~((weight > 0) & (weight < 0.3)) & ~((weight < 0) & (weight > -0.3))  # zeros have no sign
    assert bool((by_sign & dead).any())
    assert not bool((keep_by_our_rule(weight, mask) & dead).any())


def test_dead_active_weights_never_lose_their_place_to_inactive_ones() -> None:
    torch.manual_seed(0)
    mask = torch.zeros(1000, dtype=torch.bool)
    mask[torch.randperm(1000)[:100]] = True
    weight = torch.randn(1000) * mask
    weight[mask.nonzero()[:60, 0]] = 0.0  # grown a moment ago, or dead
    keep = 70
    noisy = (weight * mask).abs() + 1e-5 * torch.randn(1000)
    peer = torch.zeros_like(mask).scatter_(0, noisy.topk(keep).indices, True)
    assert int((peer & ~mask).sum()) > 10  # links that never were are "kept"
    ours = mask & ~take_smallest(weight.abs().view(1, -1), mask.view(1, -1), torch.tensor([100 - keep])).taken[0]
    assert int(ours.sum()) == keep
    assert not bool((ours & ~mask).any())


def test_growth_ranks_the_mean_gradient_not_the_mean_of_its_size_on_each_rank() -> None:
    """Two ranks whose gradients cancel at one link: the sizes say that it matters, the reduced gradient that it does not."""
    ranks = torch.tensor([[3.0, 1.0, 0.2], [-3.0, 1.0, 0.2]])
    candidates = torch.tensor([[True, True, True]])
    peer = take_largest(ranks.abs().mean(dim=0, keepdim=True), candidates, torch.tensor([1])).taken
    ours = take_largest(ranks.mean(dim=0, keepdim=True).abs(), candidates, torch.tensor([1])).taken
    assert peer.tolist() == [[True, False, False]]
    assert ours.tolist() == [[False, True, False]]

    # The engine sees what is in .grad when the optimizer steps, so whatever reduces it after the backward pass is in it.
    model = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    method = sc.Method(density=1 / 3, layout=sc.layout.uniform(), grow=scores.gradient, rate=0.9, every=1)
    engine = sc.sparsify(model, optimizer, method)
    engine.masks["weight"].copy_(torch.tensor([[False, False, True]]))  # known links: the third alone
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0, 1e-3]]))
    engine.update(1.0)
    (model.weight * ranks[0]).sum().backward()
    assert model.weight.grad is not None
    model.weight.grad.copy_(ranks.mean(dim=0))  # what DistributedDataParallel does before step()
    optimizer.step()
    assert engine.masks["weight"].tolist() == [[False, True, False]]


def grown_updates(fix: Callable[[torch.optim.Optimizer, nn.Parameter, Tensor], None] | None) -> Tensor:
    """|update| / lr of links that grow after 2,000 steps of Adam with constant gradients, for their first 60 steps."""
    model, lr = nn.Linear(20, 20, bias=False), 1e-3
    optimizer = torch.optim.Adam(model.parameters(), lr)
    method = sc.Method(density=0.5, layout=sc.layout.uniform(), grow=scores.gradient, rate=0.2, every=None)
    engine = sc.sparsify(model, optimizer, method)
    push = torch.where(torch.rand(20, 20, generator=torch.Generator().manual_seed(2)) < 0.5, -1.0, 1.0)

    def step() -> None:
        optimizer.zero_grad()
        (model.weight * push).sum().backward()
        optimizer.step()

    for _ in range(2000):
        step()
    old = engine.masks["weight"].clone()
    engine.update(0.2)
    step()
    grown = engine.masks["weight"] & ~old
    assert bool(grown.any())
    if fix is not None:  # the peer's way, in place of the engine's
        fix(optimizer, model.weight, grown)
    sizes = []
    for _ in range(60):
        before = model.weight.detach().clone()
        step()
        sizes.append(((model.weight - before).abs() / lr)[grown].max())
    return torch.stack(sizes)


def zero_both_moments(optimizer: torch.optim.Optimizer, weight: nn.Parameter, grown: Tensor) -> None:
    for key in ("exp_avg", "exp_avg_sq"):
        optimizer.state[weight][key][grown] = 0


def zero_the_first_moment_three_times(optimizer: torch.optim.Optimizer, weight: nn.Parameter, grown: Tensor) -> None:
    """A branch for each of Adam's tensors that names the same one."""
    for _ in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        optimizer.state[weight]["exp_avg"][grown] = 0


def test_links_that_grow_late_under_adam_do_not_leap() -> None:
    assert grown_updates(zero_both_moments).max() > 5  # the step count is large, so nothing corrects the bias of the zeros
    assert grown_updates(None).max() <= 1.05


def test_every_state_of_a_dropped_link_is_cleared_not_one_of_them_thrice() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    optimizer = torch.optim.Adam([weight], amsgrad=True)
    weight.grad = torch.ones(4, 4)
    optimizer.step()
    dropped = torch.eye(4).bool()
    zero_the_first_moment_three_times(optimizer, weight, dropped)
    assert bool((optimizer.state[weight]["exp_avg_sq"][dropped] > 0).all())

    model = mlp(12, 16, 4)
    run = training(model, sc.RigL(density=0.4, end=100, every=2), "Adam", amsgrad=True, lr=1e-3)
    for batch in batches(6, 16, 12, 4):
        run.step(batch)
    for name, mask in run.engine.masks.items():
        for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            assert not bool(run.optimizer.state[model.get_parameter(name)][key][~mask].any())


def test_state_of_optimizers_other_than_sgd_is_cleared() -> None:
    """Engines that know `momentum_buffer` alone leave Adam's moments to push links that are gone."""
    weight = nn.Parameter(torch.ones(4))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0])
    weight.grad = torch.ones(4)
    optimizer.step()
    state = optimizer.state[weight]
    if "momentum_buffer" in state:
        state["momentum_buffer"].mul_(mask)
    with torch.no_grad():
        weight.mul_(mask)
    weight.grad = torch.ones(4) * mask
    optimizer.step()
    assert bool((weight[2:] != 0).all())

    model = mlp(12, 16, 4)
    run = training(model, sc.SET(0.4, None, 2), "Adam", lr=0.1)
    for batch in batches(6, 16, 12, 4):
        run.step(batch)
        for name, mask_ in run.engine.masks.items():
            assert not bool(model.get_parameter(name)[~mask_].any())


def test_a_mask_in_the_graph_hides_the_gradients_that_growth_needs() -> None:
    torch.manual_seed(0)
    x, mask = torch.randn(8, 6), torch.rand(5, 6) < 0.4
    weight = nn.Parameter(torch.randn(5, 6))
    nn.functional.linear(x, weight * mask).square().sum().backward()
    assert weight.grad is not None
    assert not bool(weight.grad[~mask].any())

    model = nn.Linear(6, 5, bias=False)
    engine = sc.sparsify(model, torch.optim.SGD(model.parameters(), 0.1), sc.RigL(density=0.4, end=10, every=1))
    model(x).square().sum().backward()
    assert model.weight.grad is not None
    assert bool((model.weight.grad[~engine.masks["weight"]] != 0).any())


def test_masking_costs_one_product_a_layer_not_one_for_every_pair_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = 8
    peer = sum(1 for _ in range(layers) for _ in range(layers))  # all layers are masked again inside of the loop over layers
    model = mlp(*[6] * (layers + 1))
    run = training(model, sc.RigL(density=0.5, end=100, every=50))
    products = 0
    plain = Tensor.mul_

    def counted(self: Tensor, other: object) -> Tensor:
        nonlocal products
        products += 1
        return plain(self, other)

    monkeypatch.setattr(Tensor, "mul_", counted)
    run.step(batches(1, 8, 6, 6)[0])
    assert products == layers < peer


def test_grown_links_begin_where_they_are_told_to_and_old_values_do_not_wake_up() -> None:
    weight, mask = torch.ones(6), torch.tensor([True, True, True, False, False, False])
    stored = weight.clone()  # a parametrization keeps the dense weight, stale values and all
    torch.where(~mask, torch.zeros(6), stored)  # and this result is thrown away
    mask[3] = True
    assert float((stored * mask)[3]) == 1.0

    model = nn.Linear(10, 10, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    method = sc.Method(density=0.3, layout=sc.layout.uniform(), grow=scores.random, rate=0.5, every=1, grown_value=0.25)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    engine = sc.sparsify(model, optimizer, method)
    ever = engine.masks["weight"].clone()
    for _ in range(8):
        before = engine.masks["weight"].clone()
        model(torch.randn(4, 10)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        grown = engine.masks["weight"] & ~before
        assert bool(grown.any())
        assert torch.equal(model.weight[grown], torch.full_like(model.weight[grown], 0.25))
        ever |= engine.masks["weight"]
    assert float(model.weight.detach()[engine.masks["weight"]].max()) <= 1.0


def test_counts_are_exact_where_coin_flips_and_thresholds_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    flips = [int((torch.rand(50, 40, generator=generator) < 0.1).sum()) for _ in range(20)]
    assert len(set(flips)) > 1
    model = nn.Linear(40, 50)
    for seed in range(5):
        engine = sc.sparsify(model, torch.optim.SGD(model.parameters(), 0.1), sc.Static(0.1), seed=seed)
        assert int(engine.masks["weight"].sum()) == 200
        engine.detach()

    weight = torch.tensor([[0.5, 0.5, 0.5, 0.5, 1.0, 2.0]])
    threshold = weight.sort().values[0, 1]
    assert int((weight <= threshold).sum()) == 4  # two were to go
    assert int(take_smallest(weight, torch.ones(1, 6, dtype=torch.bool), torch.tensor([2])).taken.sum()) == 2


def test_rounding_shares_layer_by_layer_misses_the_total() -> None:
    shares = torch.full((7,), 10 / 7, dtype=torch.float64)
    assert int(shares.round().sum()) != 10
    assert int(share_out(10, shares, torch.full((7,), 5)).sum()) == 10


def test_a_cubic_schedule_reaches_its_end() -> None:
    start, end, begin = 1.0, 0.1, 400

    def wrong(step: int) -> float:
        return end + (start - end) * (1 - (step - begin) / 1000) ** 3  # over the whole training, not over what is left of it

    assert wrong(1000) > 0.15
    ours = Cubic(start, end, begin)
    assert ours(1000, 1000) == end
    assert ours(999, 1000) == pytest.approx(end, abs=1e-6)  # and arrives there without a jump


def test_random_growth_is_the_same_on_every_rank_whatever_its_generator_did() -> None:
    def rank(draws: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(draws)
        torch.rand(draws)
        peer = torch.rand(30, 30) < 0.1
        model = mlp(30, 30, seed=0)
        run = training(model, sc.SET(0.2, None, 1), seed=4)
        torch.manual_seed(draws)  # ranks see different data and draw different dropout
        for batch in batches(3, 8, 30, 30):
            torch.rand(draws)
            run.step(batch)
        return peer, run.engine.masks["0.weight"]

    (peer_a, ours_a), (peer_b, ours_b) = rank(3), rank(5)
    assert not torch.equal(peer_a, peer_b)
    assert torch.equal(ours_a, ours_b)
