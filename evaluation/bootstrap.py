"""Intervals of differences between trainings: a paired bootstrap over scenes and seeds.

The same drawn scenes and seeds serve every variant, so what is common to them cancels in the difference. A plain percentile
bootstrap of scenes and seeds is wrong at both ends: drawing S seeds out of S shows only (S-1)/S of their variance, and one that
was estimated from S values is itself uncertain (too narrow); what is particular to a seed on a scene is drawn twice (too wide).
So the drawn differences give the shape alone, and their spread is scaled to what follows from three variances: of the mean over
seeds when scenes are drawn, of single seeds when scenes are drawn (the two tell the share of scenes from that of seeds on
scenes), and between the seeds, which counts with Student's quantile at S-1 degrees of freedom in place of the normal one. On
neither side is the interval narrower than that of a normal distribution of the same spread: two or three seeds give few
distinct draws, whose outer quantiles lie too far inside.

A class that stands in few scenes has a variance over scenes that was estimated from those few: what counts for Student's
quantile is the number of scenes that tell of a value. One such scene shows no variance at all, and then there is no interval.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Which scenes and seeds each resample holds.

    Attributes:
        scenes: (B, N) copies of each scene; every row sums to N.
        seeds: (B, S) share of each seed; every row sums to 1.
    """

    scenes: npt.NDArray[np.float32]
    seeds: Float


def draw(num_resamples: int, num_scenes: int, num_seeds: int, seed: int) -> Draws:
    """Resamples; the draws of scenes do not depend on the number of seeds."""
    by_scene, by_seed = (np.random.default_rng(np.random.SeedSequence([seed, part])) for part in (0, 1))
    scenes = by_scene.multinomial(num_scenes, np.full(num_scenes, 1 / num_scenes), size=num_resamples)
    seeds = by_seed.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=num_resamples)
    return Draws(scenes=scenes.astype(np.float32), seeds=seeds / num_seeds)


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Estimates with their intervals; all arrays have the shape of one value's columns, NaN where nothing was measured."""

    estimate: Float
    low: Float
    high: Float
    level: float

    @property
    def excludes_zero(self) -> npt.NDArray[np.bool_]:
        """Where the whole interval lies on one side of 0."""
        with np.errstate(invalid="ignore"):
            return np.asarray((self.low > 0) | (self.high < 0))


def intervals(
    values: Float, resampled: Float, draws: Draws, level: float = 0.95, *, telling: npt.ArrayLike | None = None
) -> Intervals:
    """Mean over seeds of a quantity (a metric, or a difference of metrics) with its interval.

    Args:
        values: (S, ...) on all scenes, by seed. With one seed the interval tells of the scenes alone.
        resampled: (S, B, ...) on the scenes of each resample.
        draws: the resamples; `draws.seeds` must be of these S seeds.
        level: share of such intervals that should hold the true value.
        telling: (...) scenes that tell of each value, such as those that hold a class; None: all. An interval is unknown
            (NaN) where that is less than two.
    """
    num_seeds = len(values)
    scenes = np.broadcast_to(np.asarray(draws.scenes.shape[1] if telling is None else telling), values.shape[1:])
    share = 0.5 * (1.0 + level)
    estimate = values.mean(axis=0)
    drawn = np.einsum("bs,sb...->b...", draws.seeds, resampled)
    with warnings.catch_warnings():
        # A class of few scenes is missing from some resamples: those say nothing of it.
        warnings.filterwarnings(
            "ignore", message="All-NaN slice|Mean of empty slice|Degrees of freedom", category=RuntimeWarning
        )
        mean_variance = np.nanvar(resampled.mean(axis=0), axis=0)
        single_variance = np.nanvar(resampled, axis=1).mean(axis=0)
        deviation = drawn - np.nanmean(drawn, axis=0)
        drawn_spread = np.nanstd(deviation, axis=0)
        low, high = np.nanquantile(deviation, [1.0 - share, share], axis=0)
    wider_by_scenes = _student_over_normal(scenes, share) ** 2
    variance = mean_variance * wider_by_scenes
    if num_seeds > 1:
        of_seeds_on_scenes = (single_variance - mean_variance) / (num_seeds - 1)
        of_scenes = np.maximum(mean_variance - of_seeds_on_scenes, 0.0)
        between_seeds = values.var(axis=0, ddof=1) / num_seeds
        variance = of_scenes * wider_by_scenes
        variance = variance + between_seeds * _student_over_normal(np.asarray(num_seeds), share) ** 2
    factor = np.sqrt(variance) / np.maximum(drawn_spread, 1e-300)
    normal = NormalDist().inv_cdf(share) * drawn_spread
    low, high = np.minimum(low, -normal), np.maximum(high, normal)
    return Intervals(estimate=estimate, low=estimate + factor * low, high=estimate + factor * high, level=level)


def _student_over_normal(count: npt.NDArray[np.int64], share: float) -> Float:
    """How much larger Student's quantile is than the normal one, for a variance estimated from `count` values; NaN for one."""
    from scipy.special import stdtrit

    ratio = stdtrit(np.maximum(count - 1, 1), share) / NormalDist().inv_cdf(share)
    return np.where(count > 1, ratio, np.nan)
