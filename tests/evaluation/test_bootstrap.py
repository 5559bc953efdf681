"""Intervals hold the truth about as often as they say, whether scenes or seeds make the noise."""

import numpy as np
import pytest

from evaluation.bootstrap import Draws, Intervals, draw, intervals

SCENES, RESAMPLES, TRIALS = 40, 400, 300


def trial(
    rng: np.random.Generator, draws: Draws, *, seeds: int, scene_sd: float, seed_sd: float, noise_sd: float, truth: float
) -> tuple[np.ndarray, np.ndarray]:
    """Differences by seed, on all scenes and resampled: a truth, what is particular to scenes and to seeds, and noise."""
    parts = (scene_sd * rng.standard_normal((1, SCENES)), seed_sd * rng.standard_normal((seeds, 1)))
    difference = truth + parts[0] + parts[1] + noise_sd * rng.standard_normal((seeds, SCENES))
    return difference.mean(axis=1), difference @ draws.scenes.T / SCENES


@pytest.mark.parametrize(
    ("seeds", "scene_sd", "seed_sd", "noise_sd"),
    [(5, 1.0, 0.0, 0.3), (5, 0.0, 1.0, 0.3), (5, 1.0, 0.2, 1.0), (5, 0.0, 0.0, 1.0), (3, 0.2, 0.5, 0.2), (2, 0.3, 0.5, 0.1)],
    ids=["scenes make the noise", "seeds make it", "both", "seeds on scenes", "three seeds", "two seeds"],
)
def test_intervals_hold_the_true_difference_about_as_often_as_they_say(
    seeds: int, scene_sd: float, seed_sd: float, noise_sd: float
) -> None:
    rng = np.random.default_rng(seeds)
    draws = draw(RESAMPLES, SCENES, seeds, seed=1)
    held = {}
    for truth in (0.0, 0.7):
        hits = 0
        for _ in range(TRIALS):
            found = intervals(
                *trial(rng, draws, seeds=seeds, scene_sd=scene_sd, seed_sd=seed_sd, noise_sd=noise_sd, truth=truth), draws, 0.9
            )
            hits += bool(found.low <= truth <= found.high)
        held[truth] = hits / TRIALS
    # Three standard errors of a share of 0.9 in 300 trials are 0.05; with few seeds the intervals err to the wide side.
    print(held)
    for truth, share in held.items():
        assert 0.84 <= share <= 0.985, (truth, share)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("telling", [2, 4])
def test_intervals_of_a_class_in_few_scenes_hold_the_truth_too(seeds: int, telling: int) -> None:
    rng = np.random.default_rng(10 * seeds + telling)
    draws = draw(RESAMPLES, SCENES, seeds, seed=1)
    copies = draws.scenes[:, :telling].astype(np.float64)
    with np.errstate(invalid="ignore"):
        weights = copies / copies.sum(axis=1, keepdims=True)  # NaN where a resample holds none of the class
    hits = 0
    for _ in range(TRIALS):
        difference = rng.standard_normal((1, telling)) + 0.3 * rng.standard_normal((seeds, telling))
        found = intervals(difference.mean(axis=1), difference @ weights.T, draws, 0.9, telling=telling)
        hits += bool(found.low <= 0.0 <= found.high)
    assert 0.82 <= hits / TRIALS <= 0.985


def test_a_single_scene_gives_no_interval() -> None:
    draws = draw(RESAMPLES, SCENES, 2, seed=1)
    values = np.array([[0.5, 0.5], [0.6, 0.6]])
    found = intervals(values, np.repeat(values[:, None], RESAMPLES, axis=1), draws, telling=[1, SCENES])
    assert np.isnan([found.low[0], found.high[0]]).all()
    assert not found.excludes_zero[0]
    assert np.isfinite([found.low[1], found.high[1]]).all()
    np.testing.assert_allclose(found.estimate, 0.55)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_spread_follows_from_scenes_and_seeds_and_the_shape_from_the_draws(sign: float) -> None:
    """Two made seeds on twelve scenes, one of which stands far out, against the formulas written out by hand."""
    of_scenes = sign * np.array([0.0, 0.1, -0.1, 0.2, 0.0, 0.1, -0.2, 0.0, 0.1, -0.1, 0.0, 9.0])
    of_pairs = 0.2 * np.random.default_rng(1).standard_normal((2, 12))
    differences = of_scenes + of_pairs + np.array([[0.1], [-0.1]])
    draws = draw(2000, 12, 2, seed=3)
    resampled = differences @ draws.scenes.T.astype(np.float64) / 12
    found = intervals(differences.mean(axis=1), resampled, draws, 0.9)
    mean, single = resampled.mean(axis=0).var(), resampled.var(axis=1).mean()
    # The mean over S seeds keeps 1/S of what is particular to a seed on a scene, and all of what is a scene's own.
    scenes = mean - (single - mean) / (2 - 1)
    seeds = differences.mean(axis=1).var(ddof=1) / 2
    spread = np.sqrt(scenes * (1.795885 / 1.644854) ** 2 + seeds * (6.313752 / 1.644854) ** 2)  # Student's, 11 and 1 degrees
    drawn = (draws.seeds.T * resampled).sum(axis=0)
    low, high = np.quantile(drawn - drawn.mean(), [0.05, 0.95]) / drawn.std()
    # On the short side a normal distribution is wider than the draws, on the long side the draws are.
    low, high = (-1.644854, high) if sign > 0 else (low, 1.644854)
    assert max(-low, high) > 1.7
    np.testing.assert_allclose(found.estimate, differences.mean(), rtol=1e-12)
    np.testing.assert_allclose(
        [found.low - found.estimate, found.high - found.estimate], [low * spread, high * spread], rtol=1e-5
    )


def test_an_interval_excludes_zero_on_either_side() -> None:
    low, high = np.array([-2.0, 1.0, -1.0, np.nan, 0.0]), np.array([-1.0, 2.0, 1.0, np.nan, 0.0])
    found = Intervals(estimate=low, low=low, high=high, level=0.9)
    assert found.excludes_zero.tolist() == [True, True, False, False, False]
