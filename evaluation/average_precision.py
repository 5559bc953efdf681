"""Average precision of scored predictions, as Waymo pools and interpolates it."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Outcomes = npt.NDArray[np.int8]


class Outcome(IntEnum):
    """What a prediction turned out to be."""

    UNKNOWN = -1
    """The truth is unknown at this step, or there is no such prediction."""
    FALSE_POSITIVE = 0
    TRUE_POSITIVE = 1
    """The most confident match of its object."""
    FURTHER_MATCH = 2
    """Another match of an object already matched: wrong for mAP, left out by soft mAP."""


def outcomes(scores: Float, matched: Bool, known: Bool) -> Outcomes:
    """Sort the predictions of each object into hits, false alarms and further matches.

    Args:
        scores: (G, K) confidences; on equal ones the earlier prediction comes first.
        matched: (G, K)
        known: (G,) whether the truth is known.

    Returns:
        (G, K) `Outcome` numbers.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    in_order = np.take_along_axis(matched, order, axis=1)
    earlier: npt.NDArray[np.int64] = np.cumsum(in_order, axis=1) - in_order
    sorted_outcome = np.where(in_order, np.where(earlier > 0, Outcome.FURTHER_MATCH, Outcome.TRUE_POSITIVE), 0).astype(np.int8)
    result = np.zeros_like(sorted_outcome)
    np.put_along_axis(result, order, sorted_outcome, axis=1)
    result[~known] = Outcome.UNKNOWN
    return result


def average_precision(scores: Float, hit: Bool, num_objects: int) -> float:
    """Area under the interpolated precision-recall curve of one bucket.

    Args:
        scores: (n,) raw confidences of all objects' predictions: they are ranked against each other. On equal ones false
            positives come first, so that the order of the data does not matter.
        hit: (n,) whether each is a true positive.
        num_objects: how many could have been hit, at least 1.
    """
    order = np.lexsort((hit, -scores))
    hits = np.cumsum(hit[order])
    precision = hits / np.arange(1, len(order) + 1)
    recall = hits / num_objects
    # Every recall counts with the best precision at it or beyond.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(envelope * np.diff(recall, prepend=0.0)))
