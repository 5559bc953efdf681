"""Learning-rate schedules as pure functions of how far the training has come."""

from __future__ import annotations

import math
from typing import Literal

ScheduleName = Literal["mtr", "warmup-linear", "cosine"]

# MTR halves the rate at epochs 22, 24, 26 and 28 of 30; as shares they also serve other lengths.
MTR_MILESTONES = (22 / 30, 24 / 30, 26 / 30, 28 / 30)
MTR_MIN_LEARNING_RATE = 1e-6
WARMUP_SHARE = 0.05


def learning_rate(schedule: ScheduleName, base: float, share: float) -> float:
    """Learning rate when `share` (0..1) of the training is done.

    `mtr`: halved at four milestones, never below 1e-6 (MTR's recipe). `warmup-linear`: from 0 to `base` over the first
    5 %, then linearly to 0 (LiMTR's recipe). `cosine`: the same warm-up, then half a cosine to 0.
    """
    share = min(max(share, 0.0), 1.0)
    if schedule == "mtr":
        # The small slack keeps a milestone that falls on a step from being missed by rounding.
        passed = sum(share >= milestone - 1e-9 for milestone in MTR_MILESTONES)
        return max(base * 0.5**passed, min(base, MTR_MIN_LEARNING_RATE))
    if share < WARMUP_SHARE:
        return base * share / WARMUP_SHARE
    rest = (share - WARMUP_SHARE) / (1.0 - WARMUP_SHARE)
    if schedule == "warmup-linear":
        return base * (1.0 - rest)
    return base * 0.5 * (1.0 + math.cos(math.pi * rest))
