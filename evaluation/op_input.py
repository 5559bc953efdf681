"""Predictions and truth as the arrays that Waymo's motion metrics op reads: padded, float32, every scenario of a data set.

Shapes: B scenarios, M groups, K modes, N members, A tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.buckets import Bucket, classify, joint_bucket
from evaluation.metric_config import (
    CURRENT_STEP,
    NUM_PREDICTION_STEPS,
    NUM_TRACK_STEPS,
    STEPS_PER_PREDICTION,
    Bucketing,
    MotionMetricsConfig,
)
from evaluation.scenario_predictions import TRUTH_FIELDS, ScenarioPredictions

Arrays = dict[str, npt.NDArray[Any]]
BYTES_PER_TRACK = NUM_TRACK_STEPS * len(TRUTH_FIELDS) * 4
"""Of the padded truth."""
_FAR_M = 100.0
_HEADING = TRUTH_FIELDS.index("heading")


def op_config(config: MotionMetricsConfig) -> dict[str, Any]:
    """The fields of the op's configuration message."""
    return {
        "track_steps_per_second": 10,
        "prediction_steps_per_second": 10 // STEPS_PER_PREDICTION,
        "track_history_samples": CURRENT_STEP,
        "track_future_samples": NUM_TRACK_STEPS - CURRENT_STEP - 1,
        "max_predictions": config.max_predictions,
        "speed_lower_bound": config.speed_lower_mps,
        "speed_upper_bound": config.speed_upper_mps,
        "speed_scale_lower": config.scale_lower,
        "speed_scale_upper": config.scale_upper,
        "step_configurations": [
            {
                "measurement_step": horizon.step,
                "lateral_miss_threshold": horizon.lateral_m,
                "longitudinal_miss_threshold": horizon.longitudinal_m,
            }
            for horizon in config.horizons
        ],
    }


def rounded(scenario: ScenarioPredictions) -> ScenarioPredictions:
    """The scenario with every number rounded to float32, the op's type: scores that tie there must tie here too."""
    return replace(
        scenario,
        track_states=scenario.track_states.astype(np.float32).astype(np.float64),
        xy_m=scenario.xy_m.astype(np.float32).astype(np.float64),
        scores=scenario.scores.astype(np.float32).astype(np.float64),
    )


def op_arrays(scenarios: Sequence[ScenarioPredictions]) -> Arrays:
    """The op's inputs. All tracks belong to the truth, since any may be overlapped; object ids are rows, as the op reads them.

    Raises:
        ValueError: numbers of modes or members differ between scenarios, or a predicted track has no valid step (the op would
            abort); the message names a scenario.
    """
    if not scenarios:
        raise ValueError("there are no predictions to judge")
    modes, members = scenarios[0].scores.shape[1], scenarios[0].group_rows.shape[1]
    groups = max(len(item.group_rows) for item in scenarios)
    tracks = max(len(item.track_type) for item in scenarios)
    size = len(scenarios)
    arrays: Arrays = {
        "pred": np.zeros((size, groups, modes, members, NUM_PREDICTION_STEPS, 2), np.float32),
        "score": np.zeros((size, groups, modes), np.float32),
        "gt": np.zeros((size, tracks, NUM_TRACK_STEPS, len(TRUTH_FIELDS)), np.float32),
        "gt_valid": np.zeros((size, tracks, NUM_TRACK_STEPS), np.bool_),
        "idx": np.zeros((size, groups, members), np.int64),
        "idx_mask": np.zeros((size, groups, members), np.bool_),
        "otype": np.zeros((size, tracks), np.int64),
        "oid": np.tile(np.arange(tracks), (size, 1)),
        "sid": np.array([item.scenario_id for item in scenarios], np.str_),
    }
    for row, item in enumerate(scenarios):
        if item.scores.shape[1] != modes or item.group_rows.shape[1] != members:
            raise ValueError(
                f"scenario {item.scenario_id!r}: {item.scores.shape[1]} modes, others have {modes}; the official op needs one "
                "number of modes for all"
            )
        member = item.group_rows >= 0
        seen = np.asarray(item.track_valid.any(axis=1))
        never = member & ~seen[np.maximum(item.group_rows, 0)]
        if never.any():
            raise ValueError(
                f"scenario {item.scenario_id!r}: predicted track rows {item.group_rows[never].tolist()} have no valid step, "
                "which the official op refuses; leave them out"
            )
        count, present = len(item.track_type), len(item.group_rows)
        arrays["pred"][row, :present], arrays["score"][row, :present] = item.xy_m, item.scores
        arrays["gt"][row, :count], arrays["gt_valid"][row, :count] = item.track_states, item.track_valid
        arrays["otype"][row, :count] = item.track_type
        arrays["idx"][row, :present] = np.maximum(item.group_rows, 0)
        arrays["idx_mask"][row, :present] = member
    return arrays


def bucket_cases(arrays: Arrays, bucketing: Bucketing) -> dict[int, Arrays]:
    """One input per trajectory bucket of a rule that the op does not know, for its mean average precision alone.

    The op pools average precision by a rule of its own. Here a case holds the groups of one of our buckets, and their tracks
    come to the current step along a straight line: the op then finds one bucket, and its mean is the average precision of it.
    Where the tracks come from enters nothing else that average precision depends on.
    """
    truth, valid = arrays["gt"].astype(np.float64), arrays["gt_valid"]
    batch = np.arange(len(truth))[:, None]
    each = np.stack([classify(states, known, CURRENT_STEP, bucketing) for states, known in zip(truth, valid, strict=True)])
    flat_member = arrays["idx_mask"].reshape(-1, arrays["idx_mask"].shape[-1])
    of_member = each[batch[..., None], arrays["idx"]].reshape(flat_member.shape)
    buckets = joint_bucket(of_member, flat_member).reshape(arrays["idx"].shape[:2])
    buckets[buckets == Bucket.RIGHT_U_TURN] = Bucket.RIGHT_TURN  # as Waymo counts them

    straight = arrays["gt"].copy()
    last = NUM_TRACK_STEPS - 1 - np.argmax(valid[:, :, ::-1], axis=2)
    end = np.take_along_axis(truth, last[..., None, None], axis=2)[:, :, 0]
    forward = np.stack([np.cos(end[..., _HEADING]), np.sin(end[..., _HEADING])], axis=-1)
    straight[:, :, CURRENT_STEP, :2] = end[..., :2] - _FAR_M * forward
    straight[:, :, CURRENT_STEP, _HEADING] = end[..., _HEADING]
    return {
        int(bucket): {**arrays, "gt": straight, "idx_mask": arrays["idx_mask"] & (buckets == bucket)[..., None]}
        for bucket in np.unique(buckets[buckets != Bucket.NONE]).tolist()
    }
