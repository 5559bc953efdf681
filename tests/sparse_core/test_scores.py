"""Every score by its formula, written out link by link."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_core import scores
from sparse_core.rewire import drop, exchange_quota
from sparse_core.scores import Context, Score

MASK = torch.tensor([[True, True, False], [True, True, True]])
WEIGHT = torch.tensor([[0.5, -2.0, 0.0], [0.0, 1.5, -0.25]])
GRADIENT = torch.tensor([[-4.0, 0.5, 3.0], [2.0, -1.0, 0.0]])


def context(**fields: object) -> Context:
    return Context(**({"name": "layer.weight", "mask": MASK} | fields))  # type: ignore[arg-type]


FORMULAS: list[tuple[Score, Callable[[float, float], float]]] = [
    (scores.magnitude, lambda w, g: abs(w)),
    (scores.gradient, lambda w, g: abs(g)),
    (scores.snip, lambda w, g: abs(w * g)),
    (scores.taylor, lambda w, g: (w * g) ** 2),
    (scores.sensitivity, lambda w, g: abs(g) / (abs(w) + 1e-8)),
    (scores.reciprocal_sensitivity, lambda w, g: abs(w) / (abs(g) + 1e-8)),
    (scores.mest(0.25), lambda w, g: abs(w) + 0.25 * abs(g)),
    (scores.mest(), lambda w, g: abs(w) + abs(g)),
]


@pytest.mark.parametrize(("score", "formula"), FORMULAS, ids=[scores.score_name(score) for score, _ in FORMULAS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_formulas(score: Score, formula: Callable[[float, float], float], dtype: torch.dtype) -> None:
    values = score(WEIGHT.to(dtype), GRADIENT.to(dtype), context())
    assert values.dtype == dtype
    expected = [formula(w, g) for w, g in zip(WEIGHT.view(-1).tolist(), GRADIENT.view(-1).tolist(), strict=True)]
    assert values.view(-1).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("score", "reads"),
    [(score, score is not scores.magnitude) for score, _ in FORMULAS]
    + [(scores.signed, False), (scores.signed_count, False), (scores.random, False), (scores.unfired, False)]
    + [(scores.momentum, True), (scores.ema(scores.magnitude), True)],
)
def test_scores_say_whether_they_read_the_gradient(score: Score, reads: bool) -> None:
    assert scores.needs_gradient(score) == reads
    assert not scores.needs_gradient(None)
    if reads and score not in (scores.momentum,) and not scores.watches_every_step(score):
        with pytest.raises(RuntimeError, match=r"layer.weight: this score needs the dense gradient"):
            score(WEIGHT, None, context())


def set_evolution(values: list[float], share: float) -> set[int]:
    """SET's own words: of the positive weights drop the share nearest to zero, and of the negative ones; here, by sorting."""
    gone: set[int] = set()
    for sign in (1, -1):
        places = [place for place, value in enumerate(values) if value * sign > 0]
        places.sort(key=lambda place: abs(values[place]))
        gone |= set(places[: round(share * len(places))])
    return gone


@pytest.mark.parametrize(("positives", "negatives"), [(1000, 1000), (1500, 500), (300, 1700), (2000, 0), (0, 200)])
def test_set_drops_its_share_of_the_positives_and_of_the_negatives(positives: int, negatives: int) -> None:
    generator = torch.Generator().manual_seed(positives)
    size = torch.rand(positives + negatives, generator=generator) + 0.01
    sign = torch.cat([torch.ones(positives), -torch.ones(negatives)])[
        torch.randperm(positives + negatives, generator=generator)
    ]
    active = (size * sign).view(1, -1)
    weight = torch.cat([active, torch.zeros_like(active)], dim=1)
    mask = weight != 0
    counts = mask.sum(dim=1)
    score = scores.signed(weight, None, context(mask=mask))
    kept = drop(mask, score, exchange_quota(counts, (~mask).sum(dim=1), 0.3), torch.zeros_like(counts)).kept
    gone = (mask & ~kept).view(-1).nonzero().view(-1).tolist()
    assert set(gone) == set_evolution(weight.view(-1).tolist(), 0.3)
    assert len(gone) == 0.3 * (positives + negatives)


def test_both_readings_of_the_signed_rule() -> None:
    weight = torch.tensor([[3.0, -1.0, 1.0, 2.0, -2.0, 4.0]])
    context_ = context(mask=torch.ones(1, 6, dtype=torch.bool))
    assert scores.signed(weight, None, context_).tolist() == [[0.5, 0.0, 0.0, 0.25, 0.5, 0.75]]
    assert scores.signed_count(weight, None, context_).tolist() == [[2.0, 0.0, 0.0, 1.0, 1.0, 3.0]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, -0.0, 0.1, -0.1, 2.0, -2.0, 5.0]), st.booleans()), min_size=1, max_size=20))
def test_exact_zeros_go_first_and_inactive_links_say_nothing(entries: list[tuple[float, bool]]) -> None:
    mask = torch.tensor([[active for _, active in entries]])
    weight = torch.tensor([[value for value, _ in entries]])
    for score in (scores.signed, scores.signed_count):
        values = score(weight, None, context(mask=mask))
        zeros, others = values[mask & (weight == 0)], values[mask & (weight != 0)]
        assert not len(zeros) or not len(others) or zeros.max() < others.min()
        assert not values[~mask].any()
        alone = score(torch.where(mask, weight, torch.full_like(weight, 7.0)), None, context(mask=mask))
        assert torch.equal(alone, values)


def test_random_numbers_depend_on_seed_update_layer_and_role() -> None:
    base = {"mask": torch.zeros(50, 50, dtype=torch.bool), "seed": 1, "update": 2, "name": "a", "role": "grow"}
    first = scores.random(torch.zeros(50, 50), None, context(**base))
    assert torch.equal(first, scores.random(torch.zeros(50, 50), None, context(**base, step=9)))
    assert 0 <= first.min() <= first.max() < 1
    assert first.unique().numel() > 2400
    for change in ({"seed": 2}, {"update": 3}, {"name": "b"}, {"role": "drop"}):
        other = scores.random(torch.zeros(50, 50), None, context(**(base | change)))
        assert (first == other).sum() < 5, change


def test_unfired_links_come_before_all_that_were_active_once() -> None:
    explored = torch.rand(30, 30, generator=torch.Generator().manual_seed(0)) < 0.5
    values = scores.unfired(torch.zeros(30, 30), None, context(mask=torch.zeros(30, 30, dtype=torch.bool), explored=explored))
    assert values[~explored].min() >= 1 > values[explored].max()


def test_ema_averages_over_steps_and_remembers_once_a_step() -> None:
    memory: dict[str, Tensor] = {}
    average = scores.ema(scores.gradient, 0.5)
    seen = 0.0
    for step, value in enumerate([4.0, 2.0, 8.0], start=1):
        seen = 0.5 * seen + 0.5 * value
        for _ in range(2):  # asked twice in a step, it takes the gradient in once
            now = average(WEIGHT, torch.full((2, 3), -value), context(step=step, memory=memory))
            assert now.unique().tolist() == [seen]


def test_a_dry_run_of_ema_sees_the_gradient_and_leaves_the_memory() -> None:
    memory: dict[str, Tensor] = {}
    average = scores.ema(scores.gradient, 0.5)
    average(WEIGHT, torch.full((2, 3), 4.0), context(step=1, memory=memory))
    kept = {key: value.clone() for key, value in memory.items()}
    dry = average(WEIGHT, torch.full((2, 3), 8.0), context(step=2, memory=memory, dry=True))
    assert dry.unique().tolist() == [5.0]
    assert all(torch.equal(memory[key], value) for key, value in kept.items())
    real = average(WEIGHT, torch.full((2, 3), 8.0), context(step=2, memory=memory))
    assert torch.equal(dry, real)


def test_momentum_averages_the_signed_gradient() -> None:
    memory: dict[str, Tensor] = {}
    scores.momentum(WEIGHT, torch.full((2, 3), 4.0), context(step=1, memory=memory))
    value = scores.momentum(WEIGHT, torch.full((2, 3), -4.0), context(step=2, memory=memory))
    assert value.unique().item() == pytest.approx(abs(0.9 * 0.4 - 0.4))


@pytest.mark.parametrize("beta", [-0.1, 1.0, math.nan])
def test_ema_refuses_what_is_no_average(beta: float) -> None:
    with pytest.raises(ValueError, match="ema: beta is"):
        scores.ema(scores.gradient, beta)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_positions_are_where_the_mask_is_true(entries: list[bool]) -> None:
    mask = torch.tensor(entries)
    assert scores.positions(mask, int(mask.sum())).tolist() == [place for place, on in enumerate(entries) if on]
