"""Non-maximum suppression of motion queries."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limtr.modes import average_modes, displacement, rescore_modes, select_modes


def ending_at(xs: list[list[float]]) -> torch.Tensor:
    trajectories = torch.zeros(len(xs), len(xs[0]), 80, 7)
    trajectories[..., -1, 0] = torch.tensor(xs)
    return trajectories


def test_modes_that_end_near_a_better_one_are_suppressed_strictly_within_the_distance() -> None:
    trajectories = ending_at([[0.0, 1.0, 2.5, 9.0]])
    kept, scores = select_modes(trajectories, torch.tensor([[0.4, 0.3, 0.2, 0.1]]), 3, 2.5)
    assert kept[0, :, -1, 0].tolist() == [0.0, 2.5, 9.0]
    torch.testing.assert_close(scores, torch.tensor([[0.4, 0.2, 0.1]]))


def test_the_best_suppressed_modes_fill_up() -> None:
    kept, scores = select_modes(ending_at([[0.0, 0.1, 0.2, 0.3]]), torch.tensor([[0.1, 0.2, 0.4, 0.3]]), 3, 2.5)
    assert scores[0].tolist() == pytest.approx([0.4, 0.3, 0.2])
    assert kept[0, :, -1, 0].tolist() == pytest.approx([0.2, 0.3, 0.1])


def test_every_agent_has_its_own_distance() -> None:
    trajectories = ending_at([[0.0, 1.0, 9.0]] * 2)
    kept, _ = select_modes(trajectories, torch.tensor([[0.5, 0.3, 0.2]] * 2), 2, torch.tensor([0.5, 2.5]))
    assert kept[:, :, -1, 0].tolist() == [[0.0, 1.0], [0.0, 9.0]]


def test_a_distance_of_zero_keeps_the_best_scores_in_order() -> None:
    torch.manual_seed(0)
    scores = torch.rand(3, 9)
    _, kept = select_modes(torch.randn(3, 9, 80, 7), scores, 4, 0.0)
    torch.testing.assert_close(kept, scores.sort(dim=-1, descending=True).values[:, :4])


def test_a_mode_without_probability_is_worth_no_more_than_a_suppressed_one() -> None:
    kept, scores = select_modes(ending_at([[0.0, 1.0, 9.0]]), torch.tensor([[0.6, 0.4, 0.0]]), 2, 2.5)
    assert kept[0, :, -1, 0].tolist() == [0.0, 1.0]
    torch.testing.assert_close(scores, torch.tensor([[0.6, 0.4]]))


def test_no_agents_and_too_many_modes() -> None:
    kept, scores = select_modes(torch.zeros(0, 9, 80, 7), torch.zeros(0, 9), 6, 2.5)
    assert kept.shape == (0, 6, 80, 7)
    assert scores.shape == (0, 6)
    with pytest.raises(ValueError, match=r"num_modes must be 1\.\.9 .* is 10"):
        select_modes(torch.zeros(1, 9, 80, 7), torch.zeros(1, 9), 10, 2.5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 4.0))
def test_against_a_plain_restatement(seed: int, distance: float) -> None:
    torch.manual_seed(seed)
    trajectories, scores = 2 * torch.randn(1, 12, 3, 7), torch.rand(1, 12)
    kept, _ = select_modes(trajectories, scores, 6, distance)
    left = sorted(range(12), key=lambda mode: -float(scores[0, mode]))
    ends = trajectories[0, :, -1, :2]
    suppressed: set[int] = set()
    expected = []
    for _ in range(6):
        pick = next((mode for mode in left if mode not in suppressed), left[0])
        left.remove(pick)
        expected.append(pick)
        suppressed |= {mode for mode in left if float((ends[mode] - ends[pick]).norm()) < distance}
    torch.testing.assert_close(kept[0], trajectories[0, expected], rtol=0, atol=0)


def test_a_mode_is_worth_all_queries_that_are_nearest_to_it() -> None:
    queries = ending_at([[0.0, 10.0, 10.5, 9.5, 20.0]])
    probabilities = torch.tensor([[0.3, 0.2, 0.2, 0.2, 0.1]])
    modes, own = select_modes(queries, probabilities, 3, 2.5)
    assert modes[0, :, -1, 0].tolist() == [0.0, 10.0, 20.0]
    torch.testing.assert_close(own, torch.tensor([[0.3, 0.2, 0.1]]))
    modes, mass = rescore_modes(modes, queries, probabilities, "mass")
    assert modes[0, :, -1, 0].tolist() == [10.0, 0.0, 20.0]  # the three around 10 m together are the likeliest
    torch.testing.assert_close(mass, torch.tensor([[0.6, 0.3, 0.1]]))


def test_the_first_mode_by_risk_is_the_best_single_guess() -> None:
    """Likely far ends on both sides, and an unlikely middle that is never far off."""
    queries = ending_at([[-10.0, 10.0, 0.0]])
    probabilities = torch.tensor([[0.45, 0.45, 0.1]])
    by_mass, masses = rescore_modes(queries, queries, probabilities, "mass")
    assert by_mass[0, :, -1, 0].tolist() == [-10.0, 10.0, 0.0]
    by_risk, scores = rescore_modes(queries, queries, probabilities, "risk")
    assert by_risk[0, 0, -1, 0] == 0.0
    torch.testing.assert_close(scores, masses)


def test_modes_move_to_the_mean_of_their_queries_and_lonely_ones_stay() -> None:
    queries = ending_at([[0.0, 10.0, 12.0, 50.0]])
    probabilities = torch.tensor([[0.4, 0.3, 0.1, 0.2]])
    modes = queries[:, [0, 1, 3]]
    moved = average_modes(modes, queries, probabilities, 1)
    torch.testing.assert_close(moved[0, :, -1, 0], torch.tensor([0.0, 10.5, 50.0]))
    assert torch.equal(average_modes(modes, queries, probabilities, 0), modes)
    dead = average_modes(modes, queries, torch.tensor([[0.5, 0.5, 0.0, 0.0]]), 2)
    assert dead[0, 2, -1, 0] == 50.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_averaging_never_raises_the_expected_squared_displacement(seed: int) -> None:
    torch.manual_seed(seed)
    queries, probabilities = 5 * torch.randn(3, 40, 4, 7), torch.rand(3, 40).softmax(dim=-1)
    modes, _ = select_modes(queries, probabilities, 6, 2.5)

    def spread(modes: torch.Tensor) -> torch.Tensor:
        apart = (queries[:, :, None, :, :2] - modes[:, None, :, :, :2]).square().sum(dim=(-1, -2))
        nearest = displacement(queries, modes).argmin(dim=-1, keepdim=True)
        return (apart.gather(-1, nearest).squeeze(-1) * probabilities).sum(dim=1)

    fixed = displacement(queries, modes).argmin(dim=-1, keepdim=True)
    moved = average_modes(modes, queries, probabilities, 1)
    apart = (queries[:, :, None, :, :2] - moved[:, None, :, :, :2]).square().sum(dim=(-1, -2))
    assert bool(((apart.gather(-1, fixed).squeeze(-1) * probabilities).sum(dim=1) <= spread(modes) + 1e-4).all())
    for by in ("mass", "risk"):
        _, scores = rescore_modes(moved, queries, probabilities, by)
        torch.testing.assert_close(scores.sum(dim=-1), torch.ones(3))
        assert bool((scores[:, :-1] >= scores[:, 1:]).all())
