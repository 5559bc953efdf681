"""Plan: what one actor intends to do - its latent intention - before anything moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from preprocessing.synthetic.world import BodyKind, Float

Maneuver = Literal["none", "branch", "stop", "start"]
NEVER_S = 1e6
NOWHERE_M = 1e6


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A path to follow, a speed to like, and at most one thing to do on the way.

    Times count from the first recorded step (0.0 s); the current step is at 1.0 s.
    """

    kind: BodyKind
    size_m: tuple[float, float, float]
    line_m: Float
    """(n, 2) the path of the body's centre"""
    start_m: float
    """arc length where the actor is when the simulation begins"""
    cruise_mps: float
    start_mps: float
    maneuver: Maneuver = "none"
    branch_m: float = NOWHERE_M
    """arc length at which the path first differs from going straight on"""
    hold_m: float = NOWHERE_M
    """arc length at which the actor stands still ..."""
    hold_until_s: float = NEVER_S
    """... and how long"""
    rounding_m: float = 4.0
    stop_m: float = NOWHERE_M
    """arc length of the stop line (light, sign or give-way) on the path"""
    signal: int = -1
    """row of the signal at `stop_m`"""
    stop_sign: bool = False
    priority: int = 3
    """right of way at places where paths cross: the larger goes first"""
    ring: bool = False
    """whether whoever is past `stop_m` has the right of way (roundabouts)"""
    parked: bool = False
    """stands for good"""
    end_m: float = NOWHERE_M
    """arc length where the actor leaves the scene; NOWHERE: it stays at the end of its path"""
    crossing: bool = False
    """whether a pedestrian's path crosses a road"""
