"""Random numbers are a function of (seed, update, layer, index) and of nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparse_core
from sparse_core import Method, hashed_random, layout, scores
from sparse_core.hashed_random import key_of, normal_at, uniform, uniform_at
from sparse_core.method import normal
from sparse_core.scores import Context
from tests.sparse_core.small_trainings import PRESETS, batches, copied, mlp, preset, same, training

KEY = key_of(0, 3, "0.weight", "grow", "")


def context(**changes: Any) -> Context:
    given = {"name": "0.weight", "mask": torch.zeros(4, 8, dtype=torch.bool), "update": 3, "seed": 1, "role": "grow"}
    return Context(**{**given, **changes})


def test_equal_keys_give_equal_numbers_and_any_part_changes_them_all() -> None:
    numbers = context().uniform()
    assert torch.equal(numbers, context().uniform())
    for changed in ({"seed": 2}, {"update": 4}, {"name": "2.weight"}, {"role": "drop"}):
        other = context(**changed).uniform()
        assert (numbers == other).float().mean() < 0.05, changed
    assert torch.equal(numbers, context(step=99, explored=torch.ones(4, 8, dtype=torch.bool)).uniform())


def test_parts_of_a_key_do_not_run_into_each_other() -> None:
    assert len({key_of(1, 23, "a"), key_of(12, 3, "a"), key_of(1, 2, "3a"), key_of("1", 23, "b")}) == 4


def test_keys_and_numbers_are_the_same_in_every_process_and_version() -> None:
    assert key_of(0, 1, "0.weight", "grow", "") == 14266674005540972256
    expected = [0.53975958, 0.48071206, 0.49768949]
    assert torch.allclose(uniform(3, 12345), torch.tensor(expected), atol=1e-7)


@pytest.mark.parametrize("count", [1, 2, 65535, 65536, 65537, 200_000])
def test_chunks_leave_no_trace(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = uniform(count, KEY)
    assert whole.shape == (count,)
    assert torch.equal(whole, uniform(200_001, KEY)[:count])
    monkeypatch.setattr(hashed_random, "_CHUNK", 1000)
    assert torch.equal(uniform(count, KEY), whole)


def test_single_positions_have_the_numbers_of_the_whole() -> None:
    whole = uniform(150_000, KEY)
    index = torch.tensor([[0, 1, 65535], [65536, 149_999, 65536]])
    assert torch.equal(uniform_at(index, KEY), whole[index])


def test_positions_past_32_bits_are_other_positions() -> None:
    low = torch.arange(1000, dtype=torch.int32)
    first = hashed_random._to_unit(hashed_random._words(low.clone(), 0, KEY))
    second = hashed_random._to_unit(hashed_random._words(low.clone(), 1, KEY))
    assert (first == second).float().mean() < 0.01


def chi_square(counts: Tensor) -> float:
    """Pearson's statistic against equal counts, as standard deviations from its mean."""
    expected, degrees = counts.sum() / counts.numel(), counts.numel() - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float((statistic - degrees) / math.sqrt(2 * degrees))


@pytest.mark.parametrize("seed", range(4))
def test_numbers_are_uniform_and_neighbours_independent(seed: int) -> None:
    numbers = uniform(1 << 18, key_of(seed, 0, "layer", "grow", ""))
    assert 0 <= float(numbers.min()) <= 1e-4
    assert 1 - 1e-4 <= float(numbers.max()) < 1
    assert abs(chi_square(torch.histc(numbers, 256, 0, 1).double())) < 4
    cells = (numbers[:-1] * 16).long() * 16 + (numbers[1:] * 16).long()
    assert abs(chi_square(torch.bincount(cells, minlength=256).double())) < 4
    rows = numbers.view(512, 512)
    for axis in (0, 1):
        means = rows.mean(dim=axis).double()
        assert abs(float(means.std()) * math.sqrt(12 * 512) - 1) < 0.15
    assert abs(chi_square(torch.bincount((numbers * 2**24).long() & 255, minlength=256).double())) < 4  # low bits too


def test_streams_of_neighbouring_seeds_updates_and_layers_do_not_correlate() -> None:
    keys = [key_of(*parts) for parts in ((0, 1, "a"), (1, 1, "a"), (0, 2, "a"), (0, 1, "b"))]
    streams = torch.stack([uniform(1 << 16, key) for key in keys]) - 0.5
    correlation = torch.corrcoef(streams) - torch.eye(4)
    assert float(correlation.abs().max()) < 4 / 256


def test_normal_numbers_are_normal() -> None:
    numbers = normal_at(torch.arange(1 << 17), KEY).double()
    assert abs(float(numbers.mean())) < 4 / math.sqrt(1 << 17)
    assert abs(float(numbers.var()) - 1) < 0.02
    edges = torch.distributions.Normal(0.0, 1.0).icdf(torch.arange(1, 64) / 64).double()
    counts = torch.bincount(torch.bucketize(numbers, edges), minlength=64).double()
    assert abs(chi_square(counts)) < 4


@pytest.mark.parametrize("name", PRESETS)
def test_torchs_own_generator_is_not_touched(name: str) -> None:
    model = mlp(6, 12, 5)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run = training(model, preset(name))
    run.engine.propose(preset("SET", grown_value=0.0, structure=run.engine.method.structure))
    run.engine.load_state_dict(run.engine.state_dict())
    for batch in batches(5, 4, 6, 5):
        run.step(batch)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["SET", "ITOP", "RigL"])
def test_masks_depend_on_the_engines_seed_and_not_on_torchs(name: str) -> None:
    found = []
    for engine_seed, torch_seed in ((0, 0), (0, 1), (1, 0)):
        model = mlp(6, 12, 5)
        torch.manual_seed(torch_seed)
        run = training(model, preset(name), seed=engine_seed)
        for batch in batches(5, 4, 6, 5):
            run.step(batch)
        found.append(copied(run.engine.masks))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_updates_draw_new_numbers() -> None:
    run = training(nn.Linear(20, 20), preset("SET", density=0.1, every=1, layout=layout.uniform(), grown_value=0.0), lr=0.0)
    grown = []
    for _ in range(4):
        before = copied(run.engine.masks)["weight"]
        run.step((torch.ones(1, 20), torch.ones(1, 20)))
        grown.append(run.engine.masks["weight"] & ~before)
    assert len({tuple(mask.flatten().nonzero().flatten().tolist()) for mask in grown}) == 4


@pytest.mark.parametrize(
    ("method", "hashed"),
    [
        (preset("RigL"), 0),
        (preset("MEST"), 2),
        (preset("SET"), 2),
        (preset("ITOP"), 2),
        (preset("SNFS"), 0),
        (preset("GraNet"), 0),
        (preset("GMP"), 0),
        (preset("Static"), 0),
        (preset("RigL", drop=scores.random), 2),
    ],
    ids=["RigL", "MEST", "SET", "ITOP", "SNFS", "GraNet", "GMP", "Static", "random drop"],
)
def test_numbers_are_hashed_only_where_a_score_is_random(method: Method, hashed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run = training(mlp(6, 12, 5), method)
    sizes: list[int] = []

    def counting(count: int, key: int, device: Any, start: int) -> Tensor:
        sizes.append(count)
        return uniform(count, key, device, start)

    monkeypatch.setattr(scores, "uniform", counting)
    data = batches(4, 4, 6, 5)
    run.step(data[0])
    assert sizes == []  # not in an ordinary step
    run.step(data[1])
    assert len(sizes) == hashed  # one a layer


def test_values_of_new_links_are_hashed_where_links_grow_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counting(index: Tensor, key: int) -> Tensor:
        asked.append(index.numel())
        return normal_at(index, key)

    monkeypatch.setattr("sparse_core.method.normal_at", counting)
    run = training(nn.Linear(20, 20), preset("RigL", every=1, rate=0.25, grown_value=normal(0.1)))
    before = copied(run.engine.masks)["weight"]
    run.step((torch.randn(4, 20), torch.randn(4, 20)))
    assert asked == [int((run.engine.masks["weight"] & ~before).sum())]


def test_first_masks_differ_between_layers_of_one_shape() -> None:
    model = mlp(16, 16, 16)
    engine = sparse_core.sparsify(model, torch.optim.SGD(model.parameters(), lr=0.1), sparse_core.Static(0.3))
    assert not torch.equal(engine.masks["0.weight"], engine.masks["2.weight"])
