"""Joint predictions of two agents out of what is predicted of each alone: a baseline that knows of no interaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from evaluation.scenario_predictions import ScenarioPredictions
from limtr.scene import Scene

Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

NUM_JOINT_MODES = 6


def best_products(first: Float, second: Float, number: int = NUM_JOINT_MODES) -> tuple[Index, Index, Float]:
    """The pairs of modes with the largest products of confidences, as if the agents chose independently.

    Args:
        first: (K,) confidences of one agent's modes.
        second: (L,) those of the other's.
        number: most pairs wanted.

    Returns:
        modes of the first (n,), modes of the second (n,), products (n,); best first, of equal ones the earlier modes.
    """
    product = np.multiply.outer(first, second)
    order = np.argsort(-product, axis=None, kind="stable")[:number]
    of_first, of_second = np.unravel_index(order, product.shape)
    return of_first.astype(np.int64), of_second.astype(np.int64), product.ravel()[order]


def interactive_pair(scene: Scene) -> tuple[int, int] | None:
    """Object ids of the two interacting agents: the objects of interest, or the tracks to predict where these are two.

    None if the scene names no pair.
    """
    for ids in (scene.objects_of_interest, scene.track_id[scene.tracks_to_predict]):
        if len(ids) == 2:
            return int(ids[0]), int(ids[1])
    return None


def joint_of_groups(scenario: ScenarioPredictions, pairs: Sequence[tuple[int, int]]) -> ScenarioPredictions:
    """Joint predictions of pairs of groups of one member each, as the best products of their modes.

    Args:
        scenario: predictions of objects alone (`group_rows` (G, 1)).
        pairs: rows of `group_rows`, at least one pair.
    """
    rows, paths, scores = [], [], []
    for first, second in pairs:
        of_first, of_second, product = best_products(scenario.scores[first], scenario.scores[second])
        rows.append(scenario.group_rows[[first, second], 0])
        paths.append(np.stack([scenario.xy_m[first, of_first, 0], scenario.xy_m[second, of_second, 0]], axis=1))
        scores.append(product)
    return replace(scenario, group_rows=np.stack(rows), xy_m=np.stack(paths), scores=np.stack(scores))
