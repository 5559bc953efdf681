"""Whether probabilities mean what they say: how often modes with a probability of p turn out to be right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.average_precision import Outcome
from evaluation.report.object_table import ObjectTable

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

NUM_BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Modes by probability; bins without modes are left out."""

    mean_probability: tuple[float, ...]
    frequency: tuple[float, ...]
    """Share of the bin's modes that were right."""
    num_modes: tuple[int, ...]
    expected_error: float
    """Expected calibration error: the mean of |frequency - probability| over modes; NaN without any mode."""


def probabilities(scores: Float, has_mode: Bool) -> Float:
    """Scores of each object's modes as shares of their sum, (n, K); equal shares where all are zero.

    Files may hold scores of any scale.
    """
    kept = np.where(has_mode, scores, 0.0)
    total = kept.sum(axis=1, keepdims=True)
    equal = has_mode / np.maximum(has_mode.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.where(total > 0, kept / np.where(total > 0, total, 1.0), equal))


def reliability(probability: Float, right: Bool, num_bins: int = NUM_BINS) -> Reliability:
    """Compare probabilities (n,) in 0..1 with what happened (n,), in bins of equal width."""
    index = np.minimum((probability * num_bins).astype(np.int64), num_bins - 1)
    count = np.bincount(index, minlength=num_bins)
    probability_sum = np.bincount(index, weights=probability, minlength=num_bins)
    right_sum = np.bincount(index, weights=right.astype(np.float64), minlength=num_bins)
    filled = count > 0
    error = float(np.abs(right_sum - probability_sum).sum() / len(probability)) if len(probability) else float("nan")
    return Reliability(
        tuple((probability_sum[filled] / count[filled]).tolist()),
        tuple((right_sum[filled] / count[filled]).tolist()),
        tuple(count[filled].tolist()),
        error,
    )


def nearest_reliability(table: ObjectTable) -> Reliability:
    """A mode is right if it comes nearest to the truth (average distance) among its object's modes: exactly one is."""
    known = table.nearest_mode >= 0
    shares, exists = probabilities(table.scores, table.has_mode)[known], table.has_mode[known]
    right = np.arange(shares.shape[1]) == table.nearest_mode[known, None]
    return reliability(shares[exists], right[exists])


def hit_reliability(table: ObjectTable, horizon: int) -> Reliability:
    """A mode is right if it is within Waymo's miss thresholds at the horizon: none of an object's modes may be, or several."""
    outcome = table.outcomes[:, horizon]
    known = (outcome != Outcome.UNKNOWN) & table.has_mode
    right = (outcome == Outcome.TRUE_POSITIVE) | (outcome == Outcome.FURTHER_MATCH)
    return reliability(probabilities(table.scores, table.has_mode)[known], right[known])
