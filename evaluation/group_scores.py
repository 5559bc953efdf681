"""What every predicted group of some scenarios reaches: one row each, computed for many scenarios at once.

Most of the time of small NumPy calls is the call, so scenarios go through them together; the digits are those of one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.average_precision import Outcome, outcomes
from evaluation.buckets import classify, joint_bucket
from evaluation.metric_config import CURRENT_STEP, STEPS_PER_PREDICTION, TRACK_STEPS, MotionMetricsConfig
from evaluation.motion import average_displacement_m, best_mode, displacements_m, final_displacement_m, matches
from evaluation.overlap import headings_of_path_rad, overlaps_others
from evaluation.scenario_predictions import ScenarioPredictions
from limtr.scene import ObjectType

Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
State = dict[str, npt.NDArray[Any]]

DISTANCES = ("minADE", "minFDE", "miss_rate", "overlap_rate")
_MEASURED = slice(TRACK_STEPS[0], None, STEPS_PER_PREDICTION)
_TYPE_PRIORITY = (ObjectType.UNSET, ObjectType.OTHER, ObjectType.VEHICLE, ObjectType.PEDESTRIAN, ObjectType.CYCLIST)


def empty_rows(config: MotionMetricsConfig) -> State:
    """No row at all: names, types and shapes of the columns."""
    horizons, modes = len(config.horizons), config.max_predictions
    return {
        "object_type": np.zeros(0, np.int64),
        "bucket": np.zeros(0, np.int64),
        "distances": np.zeros((0, horizons, len(DISTANCES))),
        "scores": np.zeros((0, modes)),
        "outcomes": np.zeros((0, horizons, modes), np.int8),
    }


def score_groups(scenarios: Sequence[ScenarioPredictions], config: MotionMetricsConfig) -> State:
    """A row for every group that has members: type, bucket, distances, scores and outcomes of its predictions.

    Args:
        scenarios: at least one, all with the same numbers of modes and of slots in a group.
        config: what is measured.
    """
    group_rows = np.concatenate([item.group_rows for item in scenarios])
    occupied = np.asarray((group_rows >= 0).any(axis=1))
    member = group_rows[occupied] >= 0
    # Empty slots show row 0 of their scenario; `member` keeps what lies there from counting.
    local = [np.maximum(item.group_rows, 0) for item in scenarios]
    states = np.concatenate([item.track_states[rows] for item, rows in zip(scenarios, local, strict=True)])[occupied]
    valid = np.concatenate([item.track_valid[rows] for item, rows in zip(scenarios, local, strict=True)])[occupied]
    kinds = np.concatenate([item.track_type[rows] for item, rows in zip(scenarios, local, strict=True)])[occupied]
    predicted = np.concatenate([item.xy_m[:, : config.max_predictions] for item in scenarios])[occupied]
    scores = np.concatenate([item.scores[:, : config.max_predictions] for item in scenarios])[occupied]

    truth, known_steps = states[:, :, _MEASURED], valid[:, :, _MEASURED]
    speed = np.hypot(states[:, :, CURRENT_STEP, 5], states[:, :, CURRENT_STEP, 6])
    displacement = displacements_m(predicted, truth[..., :2])
    overlap = _overlap_steps(scenarios, local, occupied, member, truth, predicted, scores)

    distances = np.full((len(member), len(config.horizons), len(DISTANCES)), np.nan)
    outcome = np.full((len(member), len(config.horizons), config.max_predictions), Outcome.UNKNOWN, np.int8)
    for index, horizon in enumerate(config.horizons):
        step = horizon.step
        known = np.asarray((known_steps[:, :, step] | ~member).all(axis=1))
        matched = matches(predicted[..., step, :], truth[:, :, step, :2], truth[:, :, step, 4], speed, member, horizon, config)
        distances[:, index, 0] = best_mode(average_displacement_m(displacement, known_steps, member, step))
        distances[:, index, 1] = best_mode(final_displacement_m(displacement, known_steps, member, step))
        distances[:, index, 2] = np.where(known, ~matched.any(axis=1), np.nan)
        distances[:, index, 3] = overlap[:, : step + 1].any(axis=1)
        outcome[:, index, : scores.shape[1]] = outcomes(scores, matched, known)

    padded = np.zeros((len(member), config.max_predictions))
    padded[:, : scores.shape[1]] = scores
    priority = np.array([_TYPE_PRIORITY.index(kind) for kind in ObjectType])
    ranks = np.where(member, priority[kinds], 0).max(axis=1)
    flat = classify(states.reshape(-1, *states.shape[2:]), valid.reshape(-1, valid.shape[-1]), CURRENT_STEP, config.bucketing)
    return {
        "object_type": np.array(_TYPE_PRIORITY, dtype=np.int64)[ranks],
        "bucket": joint_bucket(flat.reshape(member.shape), member),
        "distances": distances,
        "scores": padded,
        "outcomes": outcome,
    }


def _overlap_steps(
    scenarios: Sequence[ScenarioPredictions], local: Sequence[Index], occupied: npt.NDArray[np.bool_],
    member: npt.NDArray[np.bool_], truth: Float, predicted: Float, scores: Float,
) -> npt.NDArray[np.bool_]:  # fmt: skip
    """(G, 16) whether a member of the most confident prediction overlaps another object at each step."""
    others = np.concatenate([item.track_states[:, _MEASURED, :5] for item in scenarios])
    others_valid = np.concatenate(
        [item.track_valid[:, _MEASURED] & item.track_valid[:, CURRENT_STEP, None] for item in scenarios]
    )
    num_tracks = np.array([len(item.track_type) for item in scenarios], dtype=np.int64)
    first_track = np.cumsum(num_tracks) - num_tracks
    scenario_of_group = np.repeat(np.arange(len(scenarios)), [len(rows) for rows in local])[occupied]
    rows = np.concatenate(local)[occupied] + first_track[scenario_of_group, None]

    top = predicted[np.arange(len(member)), np.argmax(scores, axis=1)]
    group, slot = np.nonzero(member)
    path = top[group, slot]
    boxes = np.concatenate([path, truth[group, slot][..., 2:4], headings_of_path_rad(path)[..., None]], axis=-1)
    scenario = scenario_of_group[group]
    hit = overlaps_others(boxes, others, others_valid, rows[group, slot], first_track[scenario], num_tracks[scenario])
    result = np.zeros((len(member), len(TRACK_STEPS)), dtype=np.bool_)
    np.logical_or.at(result, group, hit)
    return result
