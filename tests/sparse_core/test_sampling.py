"""Draws without replacement in proportion to a score, by hashed keys."""

import itertools

import pytest
import torch
from torch import Tensor

from sparse_core import scores
from sparse_core.sampling import sampled
from sparse_core.schedules import Linear
from sparse_core.scores import Context, needs_gradient, watches_every_step
from sparse_core.selection import take_largest
from sparse_core.structure import Structure

DRAWS = 20_000
WEIGHTS = [1.0, -2.0, 0.5, 4.0]


def context(shape: tuple[int, ...], **fields: object) -> Context:
    return Context(**({"name": "layer.weight", "mask": torch.ones(shape, dtype=torch.bool)} | fields))  # type: ignore[arg-type]


def inclusion(chances: list[float], count: int) -> list[float]:
    """How often each of a few is among `count` draws without replacement: over all orders of drawing."""
    found = [0.0] * len(chances)
    for order in itertools.permutations(range(len(chances)), count):
        chance, left = 1.0, sum(chances)
        for one in order:
            chance, left = chance * chances[one] / left, left - chances[one]
        for one in order:
            found[one] += chance
    return found


@pytest.mark.parametrize(("power", "count"), [(1.0, 1), (1.0, 2), (3.0, 2), (2.0, 3)])
def test_draws_are_in_proportion_to_the_power_of_the_score(power: float, count: int) -> None:
    keys = sampled(scores.magnitude, power)(torch.tensor([WEIGHTS] * DRAWS), None, context((DRAWS, 4)))
    drawn = take_largest(keys, torch.ones(DRAWS, 4, dtype=torch.bool), torch.full((DRAWS,), count)).taken.double().mean(0)
    expected = inclusion([abs(value) ** power for value in WEIGHTS], count)
    assert drawn.tolist() == pytest.approx(expected, abs=4 * 0.5 / DRAWS**0.5)


def test_units_are_drawn_in_proportion_to_the_sum_of_their_weights() -> None:
    grid = Structure(unit=(1, 2), group="row", pool="max").fit("layer.weight", (DRAWS, 4))
    keys = grid.scores_of(sampled(scores.magnitude)(torch.tensor([WEIGHTS] * DRAWS), None, context((DRAWS, 4))))
    assert float((keys[:, 0] > keys[:, 1]).double().mean()) == pytest.approx(3.0 / 7.5, abs=4 * 0.5 / DRAWS**0.5)


def test_the_power_follows_its_schedule_to_its_end() -> None:
    weight = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    noise = sampled(scores.magnitude, 0.0)(weight, None, context((1, 3)))
    score = sampled(scores.magnitude, Linear(1.0, 3.0), end=10)
    for step, power in ((0, 1.0), (5, 2.0), (10, 3.0), (12, 3.0)):
        keys = score(weight, None, context((1, 3), step=step))
        torch.testing.assert_close(keys, weight.log() * power + noise)


@pytest.mark.parametrize(
    ("power", "end", "message"),
    [
        (-1.0, None, "the power is -1.0 at step 0, expected at least 0"),
        (Linear(1.0, -2.0), 10, "the power is -2.0 at step 10"),
        (Linear(1.0, 3.0), None, "give the method an `end`"),
    ],
)
def test_powers_that_cannot_be_are_told_before_anything_trains(power: float, end: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampled(scores.magnitude, power, end)


def test_zeros_come_last_in_hashed_order_and_nothing_is_infinite() -> None:
    weight = torch.zeros(60, 50)
    weight.view(-1)[::3] = torch.logspace(-45, 30, 1000)
    keys = sampled(scores.magnitude, 3.0)(weight, None, context((60, 50)))
    assert torch.isfinite(keys).all()
    present = weight > 0  # the smallest of them is no float32 any more
    assert keys[present].min() > keys[~present].max()
    assert keys[~present].unique().numel() == (~present).sum()
    other = sampled(scores.magnitude, 3.0)(weight, None, context((60, 50), update=1))
    assert not torch.equal(other[~present].argsort(), keys[~present].argsort())


def test_the_smallest_number_there_is_comes_before_zeros() -> None:
    weight = torch.full((60, 50), 5e-324, dtype=torch.float64)
    weight[:30] = 0
    keys = sampled(scores.magnitude)(weight, None, context((60, 50)))
    assert keys[30:].min() > keys[:30].max()


def test_draws_of_many_equal_links_are_told_apart() -> None:
    keys = sampled(scores.magnitude)(torch.ones(300, 200), None, context((300, 200)))
    assert keys.unique().numel() == 60_000  # of 24 bits, some hundred would have met another


def test_a_score_that_is_no_number_stays_none() -> None:
    keys = sampled(scores.magnitude)(torch.tensor([[1.0, float("nan"), float("inf")]]), None, context((1, 3)))
    assert torch.isfinite(keys).tolist() == [[True, False, False]]


def test_flags_of_the_score_are_kept() -> None:
    assert not needs_gradient(sampled(scores.magnitude))
    assert needs_gradient(sampled(scores.snip))
    assert watches_every_step(sampled(scores.momentum))
    assert not watches_every_step(sampled(scores.gradient))


def test_the_same_links_on_every_rank_whatever_torch_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(30, 20)

    def keys(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return sampled(scores.magnitude)(weight, None, context((30, 20), seed=3, update=2))

    assert torch.equal(keys(0), keys(1))
