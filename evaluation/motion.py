"""How far predictions are from the truth: displacements, minADE, minFDE and misses, as Waymo's motion metrics define them.

Shapes: G groups of up to N members (1 member: an object alone; more: a joint prediction), K modes, H prediction steps.
NaN stands for "no measurement".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evaluation.metric_config import Horizon, MotionMetricsConfig

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


def displacements_m(predicted_xy_m: Float, true_xy_m: Float) -> Float:
    """Distance of every prediction to the truth.

    Args:
        predicted_xy_m: (G, K, N, H, 2)
        true_xy_m: (G, N, H, 2)

    Returns:
        (G, K, N, H) metres.
    """
    difference = predicted_xy_m - true_xy_m[:, None]
    return np.hypot(difference[..., 0], difference[..., 1])


def average_displacement_m(displacement_m: Float, valid: Bool, member: Bool, step: int) -> Float:
    """Mean distance over valid steps up to `step`, then over members; NaN if a member has no valid step.

    Args:
        displacement_m: (G, K, N, H)
        valid: (G, N, H) whether the truth is known.
        member: (G, N) whether the slot holds a member.
        step: last prediction step that counts.

    Returns:
        (G, K) metres.
    """
    counted = valid[:, None, :, : step + 1]
    total = np.where(counted, displacement_m[..., : step + 1], 0.0).sum(axis=-1)
    count = counted.sum(axis=-1)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return _mean_of_members(mean, member)


def final_displacement_m(displacement_m: Float, valid: Bool, member: Bool, step: int) -> Float:
    """Distance at `step`, mean over members; NaN if the truth of a member is unknown there. Shapes as above."""
    return _mean_of_members(np.where(valid[:, None, :, step], displacement_m[..., step], np.nan), member)


def _mean_of_members(value: Float, member: Bool) -> Float:
    """(G, K, N) -> (G, K); NaN of a member spreads, what lies in empty slots does not."""
    counted = np.where(member[:, None], value, 0.0).sum(axis=-1)
    return np.asarray(counted / np.maximum(member.sum(axis=-1), 1)[:, None], dtype=np.float64)


def best_mode(value: Float) -> Float:
    """Smallest value over modes; NaN where no mode has one. (G, K) -> (G,)."""
    smallest = np.min(np.where(np.isnan(value), np.inf, value), axis=1)
    return np.where(np.isinf(smallest), np.nan, smallest)


def miss_scale(speed_mps: Float, config: MotionMetricsConfig) -> Float:
    """Factor on the miss thresholds by the speed at the current step: slower objects must be met more closely."""
    share = (speed_mps - config.speed_lower_mps) / (config.speed_upper_mps - config.speed_lower_mps)
    return np.asarray(config.scale_lower + np.clip(share, 0.0, 1.0) * (config.scale_upper - config.scale_lower))


def matches(
    predicted_xy_m: Float, true_xy_m: Float, true_heading_rad: Float, speed_mps: Float, member: Bool,
    horizon: Horizon, config: MotionMetricsConfig,
) -> Bool:  # fmt: skip
    """Whether each prediction matches the truth at the horizon: within both thresholds, for every member.

    Args:
        predicted_xy_m: (G, K, N, 2) at the horizon's step.
        true_xy_m: (G, N, 2) there.
        true_heading_rad: (G, N) there: the frame in which lateral and longitudinal are told apart.
        speed_mps: (G, N) at the current step.
        member: (G, N)
        horizon: thresholds.
        config: scaling with speed.

    Returns:
        (G, K); meaningless where the truth is unknown.
    """
    difference = predicted_xy_m - true_xy_m[:, None]
    cos, sin = np.cos(true_heading_rad)[:, None], np.sin(true_heading_rad)[:, None]
    scale = miss_scale(speed_mps, config)[:, None]
    longitudinal = np.abs(cos * difference[..., 0] + sin * difference[..., 1]) / scale
    lateral = np.abs(cos * difference[..., 1] - sin * difference[..., 0]) / scale
    inside = (lateral <= horizon.lateral_m) & (longitudinal <= horizon.longitudinal_m)
    return np.asarray((inside | ~member[:, None]).all(axis=-1))
