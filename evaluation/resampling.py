"""Waymo's metrics of resampled scenes: the values of many weightings of the scenes at once, from one pass over the objects.

A bootstrap resample draws scenes with replacement, which is a whole number of copies - a weight - for every scene. Means
become weighted means; average precision ranks the predictions of all objects once, and copies stay neighbours in that order, so
its curve follows from cumulative sums of weights. The values are those of `MotionMetrics` on the copied scenes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evaluation.average_precision import Outcome
from evaluation.buckets import Bucket
from evaluation.group_scores import DISTANCES
from evaluation.metric_config import METRIC_NAMES
from evaluation.scene_scores import SceneScores
from limtr.scene import PREDICTED_TYPES

Float = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float64] | npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

CLASSES = (*(kind.name for kind in PREDICTED_TYPES), "mean")
"""Axis of classes: the three types, then their mean."""
COLUMNS = METRIC_NAMES
"""Axis of metrics."""
BLOCK_ENTRIES = 2**24
"""Weightings times predicted modes that are looked at together: some 64 MB in single precision."""


def resampled_values(scores: SceneScores, weights: Weights) -> Float:
    """All metrics of one model under each weighting.

    Args:
        scores: of the model.
        weights: (B, S) copies of each scene, in the order of `scores.scenario_ids`; their type decides on the precision.

    Returns:
        (B, classes, H + 1, metrics), the last horizon being the mean over horizons; NaN where nothing was measured.
    """
    rows = max(1, BLOCK_ENTRIES // max(scores.rows["scores"].size, 1))
    blocks = [_values(scores, weights[start : start + rows]) for start in range(0, len(weights), rows)]
    return np.concatenate(blocks)


def _values(scores: SceneScores, weights: Weights) -> Float:
    """`resampled_values` of some weightings."""
    horizons = scores.rows["distances"].shape[1]
    result = np.full((len(weights), len(CLASSES), horizons + 1, len(COLUMNS)), np.nan)
    for position, kind in enumerate(PREDICTED_TYPES):
        chosen = np.flatnonzero(scores.rows["object_type"] == kind)
        if not len(chosen):
            continue
        scene = scores.scene[chosen]
        result[:, position, :horizons, : len(DISTANCES)] = _distances(scores.rows["distances"][chosen], scene, weights)
        # Waymo counts right U-turns among right turns.
        buckets = scores.rows["bucket"][chosen]
        buckets = np.where(buckets == Bucket.RIGHT_U_TURN, int(Bucket.RIGHT_TURN), buckets)
        for horizon in range(horizons):
            outcomes = scores.rows["outcomes"][chosen, horizon]
            for soft in (False, True):
                result[:, position, horizon, len(DISTANCES) + soft] = _mean_average_precision(
                    scores.rows["scores"][chosen], outcomes, buckets, scene, weights, soft=soft
                )
    result[:, :-1, -1] = mean_of_known(result[:, :-1, :-1], axis=2)
    result[:, -1, -1] = mean_of_known(result[:, :-1, -1], axis=1)
    result[:, -1, :-1] = mean_of_known(result[:, :-1, :-1], axis=1)
    return result


def mean_of_known(values: Float, axis: int) -> Float:
    """Mean over an axis without the unknown (NaN) entries; NaN where none is known."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _distances(distances: Float, scene: Index, weights: Weights) -> Float:
    """(n, H, D) of objects -> (B, H, D) weighted means over those that were measured."""
    known = ~np.isnan(distances)
    shape = (weights.shape[1], *distances.shape[1:])
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, scene, np.where(known, distances, 0.0))
    np.add.at(count, scene, known)
    flat = (weights.shape[1], -1)
    copies = weights.astype(np.float64)
    sums, counts = copies @ total.reshape(flat), copies @ count.reshape(flat)
    means = np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)
    return means.reshape(len(weights), *distances.shape[1:])


def _mean_average_precision(
    scores: Float, outcomes: npt.NDArray[np.int8], buckets: Index, scene: Index, weights: Weights, *, soft: bool
) -> Float:
    """(B,) mean over the buckets that hold objects in each resample."""
    sampled = outcomes != Outcome.UNKNOWN
    values = []
    for bucket in np.unique(buckets[buckets != Bucket.NONE]):
        inside = sampled & (buckets == bucket)[:, None]
        objects = np.flatnonzero(inside.any(axis=1))
        num_objects = weights[:, scene[objects]].sum(axis=1, dtype=np.float64)
        if soft:
            inside = inside & (outcomes != Outcome.FURTHER_MATCH)
        owner, _ = np.nonzero(inside)
        hit = outcomes[inside] == Outcome.TRUE_POSITIVE
        values.append(_average_precision(scores[inside], hit, scene[owner], weights, num_objects))
    if not values:
        return np.full(len(weights), np.nan)
    return mean_of_known(np.stack(values, axis=1), axis=1)


def _average_precision(scores: Float, hit: npt.NDArray[np.bool_], scene: Index, weights: Weights, num_objects: Float) -> Float:
    """(B,) area under the interpolated curve of one bucket; NaN where a resample holds none of its objects.

    Precision counts at hits alone: behind a hit it only sinks until the next one. Copies of a hit follow each other, and
    precision rises along them, so that the last copy's is the best of them.
    """
    order = np.lexsort((hit, -scores))
    copies = weights[:, scene[order]]
    hits = np.flatnonzero(hit[order])
    ranked = np.cumsum(copies, axis=1, dtype=copies.dtype)[:, hits]
    gained = copies[:, hits]
    found = np.cumsum(gained, axis=1, dtype=copies.dtype)
    precision = found / np.maximum(ranked, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area = (envelope * gained).sum(axis=1, dtype=np.float64)
    return np.where(num_objects > 0, area / np.maximum(num_objects, 1.0), np.nan)


def scenes_that_tell(scores: SceneScores) -> Index:
    """How many scenes hold an object that a value is measured on, as (classes, H + 1, metrics).

    Of a mean over horizons all scenes of the class that are measured at any; of the mean of classes those of the rarest class
    that is there at all, since its values are known least.
    """
    ranked = (scores.rows["outcomes"] != Outcome.UNKNOWN).any(axis=2)
    measured = np.concatenate([~np.isnan(scores.rows["distances"]), np.repeat(ranked[..., None], 2, axis=2)], axis=2)
    measured = np.concatenate([measured, measured.any(axis=1, keepdims=True)], axis=1)
    result = np.zeros((len(CLASSES), *measured.shape[1:]), np.int64)
    for position, kind in enumerate(PREDICTED_TYPES):
        chosen = scores.rows["object_type"] == kind
        by_scene = np.zeros((len(scores.scenario_ids), *measured.shape[1:]), np.bool_)
        np.logical_or.at(by_scene, scores.scene[chosen], measured[chosen])
        result[position] = by_scene.sum(axis=0)
    absent = np.iinfo(np.int64).max
    rarest = np.where(result[:-1] > 0, result[:-1], absent).min(axis=0)
    result[-1] = np.where(rarest < absent, rarest, 0)
    return result
