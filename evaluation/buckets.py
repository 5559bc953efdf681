"""Trajectory buckets: which way the true path goes. Average precision is computed bucket by bucket.

Two rules exist. Waymo changed thresholds and the heading test in March 2024; results published before follow "2021".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from evaluation.metric_config import Bucketing


class Bucket(IntEnum):
    """Trajectory types with Waymo's numbers."""

    NONE = -1
    """No valid start or no valid future: the object is absent from average precision."""
    STATIONARY = 0
    STRAIGHT = 1
    STRAIGHT_LEFT = 2
    STRAIGHT_RIGHT = 3
    LEFT_U_TURN = 4
    LEFT_TURN = 5
    RIGHT_U_TURN = 6
    RIGHT_TURN = 7


JOINT_PRIORITY = (Bucket.STATIONARY, Bucket.STRAIGHT, Bucket.STRAIGHT_RIGHT, Bucket.STRAIGHT_LEFT, Bucket.RIGHT_TURN,
                  Bucket.LEFT_TURN, Bucket.LEFT_U_TURN, Bucket.RIGHT_U_TURN)  # fmt: skip
"""A joint prediction belongs to the last of these that one of its members has."""

STATIONARY_SPEED_MPS = 2.0
STRAIGHT_HEADING_RAD = np.pi / 6


@dataclass(frozen=True, kw_only=True)
class BucketRule:
    """The thresholds of one rule."""

    stationary_displacement_m: float
    straight_lateral_m: float
    u_turn_longitudinal_m: float
    wraps_heading: bool
    """Whether the change of heading is brought into -pi..pi first."""
    right_needs_heading: bool
    """Whether a right turn needs a heading change to the right, beside an end on the right."""


BUCKET_RULES: dict[Bucketing, BucketRule] = {
    "2024": BucketRule(stationary_displacement_m=3.0, straight_lateral_m=2.5, u_turn_longitudinal_m=0.0, wraps_heading=True,
                       right_needs_heading=False),
    "2021": BucketRule(stationary_displacement_m=5.0, straight_lateral_m=5.0, u_turn_longitudinal_m=-5.0, wraps_heading=False,
                       right_needs_heading=True),
}  # fmt: skip


def classify(
    states: npt.NDArray[np.float64], valid: npt.NDArray[np.bool_], current_step: int, bucketing: Bucketing
) -> npt.NDArray[np.int64]:
    """Bucket of each true track, from its current state and its last valid one.

    Args:
        states: (A, T, 7) x, y (m), length, width (m), heading (rad), vx, vy (m/s).
        valid: (A, T)
        current_step: where the future begins.
        bucketing: which rule.

    Returns:
        (A,) `Bucket` numbers.
    """
    rule = BUCKET_RULES[bucketing]
    rows = np.arange(len(states))
    future = valid[:, current_step + 1 :]
    known = valid[:, current_step] & future.any(axis=1)
    last = valid.shape[1] - 1 - np.argmax(future[:, ::-1], axis=1) if future.shape[1] else np.full(len(states), current_step)
    start, end = states[:, current_step], states[rows, last]

    delta = end[:, :2] - start[:, :2]
    cos, sin = np.cos(start[:, 4]), np.sin(start[:, 4])
    forward, left = cos * delta[:, 0] + sin * delta[:, 1], cos * delta[:, 1] - sin * delta[:, 0]
    turn = end[:, 4] - start[:, 4]
    if rule.wraps_heading:
        turn = (turn + np.pi) % (2 * np.pi) - np.pi
    speed = np.maximum(np.hypot(start[:, 5], start[:, 6]), np.hypot(end[:, 5], end[:, 6]))

    stationary = (speed < STATIONARY_SPEED_MPS) & (np.hypot(delta[:, 0], delta[:, 1]) < rule.stationary_displacement_m)
    straight = np.abs(turn) < STRAIGHT_HEADING_RAD
    right = (left < 0) & ((turn < -STRAIGHT_HEADING_RAD) | (not rule.right_needs_heading))
    back = forward < rule.u_turn_longitudinal_m
    bucket = np.select(
        [~known, stationary, straight & (np.abs(left) < rule.straight_lateral_m), straight & (left < 0), straight,
         right & back, right, back],
        [Bucket.NONE, Bucket.STATIONARY, Bucket.STRAIGHT, Bucket.STRAIGHT_RIGHT, Bucket.STRAIGHT_LEFT, Bucket.RIGHT_U_TURN,
         Bucket.RIGHT_TURN, Bucket.LEFT_U_TURN],
        default=Bucket.LEFT_TURN,
    )  # fmt: skip
    return np.asarray(bucket, dtype=np.int64)


def joint_bucket(buckets: npt.NDArray[np.int64], member: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Bucket of groups: the highest priority among the members that have a bucket; NONE if no member has one.

    As in Waymo's code, a member without a bucket (invalid at the current step, say) does not take its group out of average
    precision; whether the group can be measured at a step is another question.

    Args:
        buckets: (G, N) `Bucket` numbers.
        member: (G, N) whether the slot holds a member.

    Returns:
        (G,)
    """
    rank = np.array([JOINT_PRIORITY.index(bucket) if bucket >= 0 else -1 for bucket in Bucket])
    ranks = rank[buckets + 1]
    highest = np.where(member, ranks, -1).max(axis=1, initial=-1)
    return np.where(highest < 0, int(Bucket.NONE), np.array(JOINT_PRIORITY, dtype=np.int64)[np.maximum(highest, 0)])
