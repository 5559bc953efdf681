"""What Waymo's motion challenge measures: time steps, horizons, miss thresholds and the rule of the trajectory buckets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from limtr.scene import NUM_HISTORY_STEPS

Bucketing = Literal["2024", "2021"]

CURRENT_STEP = NUM_HISTORY_STEPS - 1
NUM_TRACK_STEPS = 91
NUM_PREDICTION_STEPS = 16
STEPS_PER_PREDICTION = 5
"""Tracks run at 10 Hz, predictions are measured at 2 Hz."""
TRACK_STEPS = tuple(CURRENT_STEP + STEPS_PER_PREDICTION * (step + 1) for step in range(NUM_PREDICTION_STEPS))
"""Track step of each prediction step: 15, 20, ..., 90; the first is 0.5 s after the current step."""
METRIC_NAMES = ("minADE", "minFDE", "miss_rate", "overlap_rate", "mAP", "soft_mAP")


@dataclass(frozen=True)
class Horizon:
    """One measurement: its prediction step, its time and the distances beyond which a prediction misses at full speed."""

    step: int
    seconds: float
    lateral_m: float
    longitudinal_m: float

    @property
    def name(self) -> str:
        """Such as `3s`."""
        return f"{self.seconds:g}s"


CHALLENGE_HORIZONS = (Horizon(5, 3.0, 1.0, 2.0), Horizon(9, 5.0, 1.8, 3.6), Horizon(15, 8.0, 3.0, 6.0))


@dataclass(frozen=True, kw_only=True)
class MotionMetricsConfig:
    """The challenge's configuration; only the bucket rule is a matter of choice."""

    bucketing: Bucketing = "2024"
    """2024: wheels after 1.6.1 and today's leaderboard. 2021: earlier ones, and so MTR's published mAP."""
    horizons: tuple[Horizon, ...] = CHALLENGE_HORIZONS
    max_predictions: int = 6
    """Only the first so many predictions of an object count, in the order given."""
    speed_lower_mps: float = 1.4
    speed_upper_mps: float = 11.0
    scale_lower: float = 0.5
    scale_upper: float = 1.0

    def __post_init__(self) -> None:
        """Validate."""
        if self.bucketing not in ("2024", "2021"):
            raise ValueError(f"bucketing must be 2024 or 2021, is {self.bucketing!r}")
        if self.max_predictions < 1:
            raise ValueError(f"max_predictions must be at least 1, is {self.max_predictions}")
        if not self.horizons or any(not 0 <= horizon.step < NUM_PREDICTION_STEPS for horizon in self.horizons):
            raise ValueError(f"horizons must have steps 0..{NUM_PREDICTION_STEPS - 1}, has {self.horizons}")
        if not self.speed_lower_mps < self.speed_upper_mps:
            raise ValueError(
                f"speed_lower_mps must be below speed_upper_mps, are {self.speed_lower_mps}, {self.speed_upper_mps}"
            )
