"""Cues: heads, torsos and front wheels that turn before the path does. They read only the actor's own intended path."""

from __future__ import annotations

import numpy as np

from preprocessing.synthetic.plans import Plan
from preprocessing.synthetic.world import BodyKind, Float

HEAD_LIMIT_RAD = 1.2
TORSO_LIMIT_RAD = 0.6
WHEEL_LIMIT_RAD = 0.6
WHEELBASE = 0.62
"""Distance of the axles as a share of the length."""


def anticipated_turn(heading_rad: Float, lead_steps: Float) -> Float:
    """(A, T) the change of direction (rad) an actor is about to make within its lead.

    Among the coming steps, the change that counts most: near ones count in full, those at the end of the lead not at all.

    Args:
        heading_rad: (A, T') unwrapped headings; at least the largest lead longer than what is asked for matters.
        lead_steps: (A,) how far ahead each actor's body gives it away.
    """
    best = np.zeros_like(heading_rad)
    number = heading_rad.shape[1]
    for ahead in range(1, int(np.max(lead_steps, initial=0.0)) + 1):
        share = np.clip((lead_steps - ahead) / np.maximum(0.5 * lead_steps, 1e-9), 0.0, 1.0)[:, None]
        later = heading_rad[:, np.minimum(np.arange(number) + ahead, number - 1)]
        change = (later - heading_rad) * share
        best = np.where(np.abs(change) > np.abs(best), change, best)
    return best


def cue_yaws(
    plans: list[Plan], heading_rad: Float, speed_mps: Float, curvature: Float, lead_s: float, step_s: float, draws: Float
) -> tuple[Float, Float, Float]:
    """Yaw of head, torso and front wheels (A, T) against the body.

    Args:
        plans: the actors' intentions.
        heading_rad: (A, T) unwrapped.
        speed_mps: (A, T).
        curvature: (A, T) of the path where the actor is.
        lead_s: how far ahead a body gives an intention away at most; 0: never.
        step_s: time step.
        draws: (A, 3) uniform in [0, 1): what distinguishes one actor's body language from another's.
    """
    kind = np.array([plan.kind for plan in plans])
    person, cyclist = (kind == BodyKind.PEDESTRIAN)[:, None], (kind == BodyKind.CYCLIST)[:, None]
    length = np.array([plan.size_m[0] for plan in plans])
    wheel = np.arctan(WHEELBASE * length[:, None] * curvature)
    none = np.zeros_like(heading_rad)
    if lead_s <= 0.0:
        wheel = np.clip(np.where(person, 0.0, wheel), -WHEEL_LIMIT_RAD, WHEEL_LIMIT_RAD)
        return none, none, wheel
    lead = lead_s / step_s * (0.75 + 0.25 * draws[:, 0])
    turn = anticipated_turn(heading_rad, lead)
    head = np.clip(1.1 * turn, -HEAD_LIMIT_RAD, HEAD_LIMIT_RAD)
    torso = np.clip(0.5 * anticipated_turn(heading_rad, 0.6 * lead), -TORSO_LIMIT_RAD, TORSO_LIMIT_RAD)
    idle = _idleness(plans, speed_mps, lead)
    side = np.where(draws[:, 1] < 0.5, -1.0, 1.0)[:, None]
    # Whoever stands, or is about to, looks aside and turns the upper body the other way: no turn looks like that.
    head = head * (1 - idle) + idle * side * (0.6 + 0.5 * draws[:, 2:3])
    torso = torso * (1 - idle) - idle * side * 0.45
    ahead = np.clip(0.45 * anticipated_turn(heading_rad, np.minimum(lead, 0.5 * lead + 2)), -0.45, 0.45)
    near = np.clip(0.3 * anticipated_turn(heading_rad, np.minimum(lead, 0.6 / step_s)), -0.3, 0.3)
    steer = np.where(cyclist, ahead + idle * side * 0.4, near)
    wheel = np.where(np.abs(steer) > np.abs(wheel), steer, wheel)
    wheel = np.clip(np.where(person, 0.0, wheel), -WHEEL_LIMIT_RAD, WHEEL_LIMIT_RAD)
    return np.where(person | cyclist, head, 0.0), np.where(person, torso, 0.0), wheel


def _idleness(plans: list[Plan], speed_mps: Float, lead_steps: Float) -> Float:
    """(A, T) 1 where an actor stands and means to stay, 0 where it moves on, a ramp within the lead before either changes."""
    number = speed_mps.shape[1]
    wants = np.array([plan.maneuver in ("stop", "start") or plan.cruise_mps < 0.2 or plan.hold_m < 1e5 for plan in plans])
    standing = (speed_mps < 0.3) & wants[:, None]
    ramp = np.maximum(0.5 * lead_steps, 1.0)
    idle = np.zeros_like(speed_mps)
    for row in np.flatnonzero(standing.any(axis=1)):
        # The mean over the coming steps turns a change within the lead into a ramp that is over before the change.
        ahead, width = int(lead_steps[row]), int(ramp[row])
        padded = np.pad(standing[row].astype(float), (0, ahead + 1), mode="edge")
        total = np.concatenate(([0.0], np.cumsum(padded)))
        first = np.arange(number) + ahead - width
        idle[row] = (total[first + width + 1] - total[first]) / (width + 1)
    return idle
