"""World: one simulated scene before any sensor has looked at it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]

FeatureKind = Literal["lane", "road_line", "road_edge", "stop_sign", "crosswalk", "speed_bump", "driveway"]


class BodyKind(IntEnum):
    """Which mesh an actor gets."""

    CAR = 0
    TRUCK = 1
    BUS = 2
    PEDESTRIAN = 3
    CYCLIST = 4


@dataclass(frozen=True, kw_only=True)
class RoadFeature:
    """One map feature, ready to be written as a WOMD MapFeature."""

    id: int
    kind: FeatureKind
    points_m: Float
    """(n, 3) polyline, polygon, or the one position of a stop sign; local frame."""
    type: int = 0
    """WOMD enum number: LaneCenter.LaneType, RoadLineType or RoadEdgeType."""
    speed_limit_mph: float = 0.0
    interpolating: bool = False
    entry_lanes: tuple[int, ...] = ()
    exit_lanes: tuple[int, ...] = ()
    left_neighbors: tuple[int, ...] = ()
    right_neighbors: tuple[int, ...] = ()
    left_boundaries: tuple[int, ...] = ()
    right_boundaries: tuple[int, ...] = ()
    stop_lanes: tuple[int, ...] = ()
    """Lanes that a stop sign controls."""


@dataclass(frozen=True, kw_only=True)
class World:
    """A actors over T steps on a road, in a local frame with flat ground at z = 0.

    Global coordinates are the local ones plus `origin_m`.
    """

    scenario_id: str
    layout: str
    origin_m: Float
    """(3,)"""
    timestamps_s: Float
    """(T,)"""
    features: tuple[RoadFeature, ...]
    signal_lane: Int
    """(G,) lane ids under a light"""
    signal_state: Int
    """(G, T) WOMD TrafficSignalLaneState.State"""
    signal_stop_m: Float
    """(G, 3)"""

    ego: int
    """Row of the recording vehicle."""
    kind: Int
    """(A,) BodyKind"""
    object_type: Int
    """(A,) WOMD ObjectType"""
    size_m: Float
    """(A, 3) length, width, height"""
    position_m: Float
    """(A, T, 3) box centres"""
    heading_rad: Float
    """(A, T)"""
    velocity_mps: Float
    """(A, T, 2)"""
    present: Bool
    """(A, T) whether the actor exists at that step, seen or not"""

    head_yaw_rad: Float
    """(A, T) head against body heading (pedestrians, cyclists): the cue"""
    torso_yaw_rad: Float
    """(A, T) torso against body heading (pedestrians): the cue"""
    front_wheel_yaw_rad: Float
    """(A, T) front wheel(s) against body heading (vehicles, cyclists): the cue"""
    gait_phase_rad: Float
    """(A, T) leg swing, pedal phase"""
    maneuver_step: Int
    """(A,) first step at which the path itself begins the actor's manoeuvre after the current step; -1: none"""

    buildings: Float
    """(B, 6) static boxes: x, y of the centre, length, width, height, yaw"""
    poles: Float
    """(B2, 4) static poles: x, y, radius, height"""
