"""RoadNetwork: lanes, crossings and sidewalks as the traffic sees them, and the map features as a record shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from preprocessing.synthetic.road_geometry import MAP_SPACING_M, Arm, resample
from preprocessing.synthetic.world import FeatureKind, Float, RoadFeature

LaneUse = Literal["drive", "bike", "driveway"]
Turn = Literal["along", "straight", "left", "right", "u-turn", "enter", "ring", "leave", "merge"]

LANE_TYPE: dict[LaneUse, int] = {"drive": 2, "bike": 3, "driveway": 2}
BROKEN_WHITE, SOLID_WHITE, BROKEN_YELLOW, DOUBLE_YELLOW = 1, 2, 4, 7
EDGE_BOUNDARY, EDGE_MEDIAN = 1, 2
OUTSKIRTS = 0.12
"""How often an arm of a further junction is chosen, against one of the first."""


@dataclass(kw_only=True)
class Lane:
    """One lane of the lane graph; `exits` fill up while the network is built."""

    id: int
    use: LaneUse
    turn: Turn
    points_m: Float
    """(n, 2) centre line"""
    speed_mps: float
    arm: int
    """Number of the arm that the lane lies on or starts from."""
    number: int = 0
    """Place in its road, counted from the middle."""
    outgoing: bool = False
    signal: int = -1
    """Row of the signal that a vehicle must obey before it enters this lane."""
    stop_sign: bool = False
    exits: list[int] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    left_lines: list[int] = field(default_factory=list)
    right_lines: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Signal:
    """The light in front of one connecting lane; `phase` numbers the green phase it belongs to within its junction."""

    lane: int
    stop_m: Float
    junction: int
    phase: int


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """The fixed programme of a junction's two phases, in seconds: green, yellow, all red, then the other phase."""

    green_s: float
    yellow_s: float
    all_red_s: float
    offset_s: float

    def since_green_s(self, phase: int, time_s: Float) -> Float:
        """Seconds since the phase last turned green (of a cycle of `period_s`)."""
        return np.asarray(np.mod(time_s + self.offset_s - phase * 0.5 * self.period_s, self.period_s))

    @property
    def period_s(self) -> float:
        """Seconds after which everything repeats."""
        return 2 * (self.green_s + self.yellow_s + self.all_red_s)

    def state(self, phase: int, time_s: Float) -> Float:
        """WOMD TrafficSignalLaneState.State at each time: 6 go, 5 caution, 4 stop."""
        since = self.since_green_s(phase, time_s)
        return np.where(since < self.green_s, 6, np.where(since < self.green_s + self.yellow_s, 5, 4))


@dataclass(frozen=True, kw_only=True)
class Walkway:
    """A place to cross one arm: at x = `x_m` in the arm's frame; `cycle` is None where no light rules it."""

    arm: int
    x_m: float
    junction: int
    phase: int
    """Phase of the arm's own traffic: people walk while the other phase is green."""


@dataclass(kw_only=True)
class RoadNetwork:
    """All that the traffic and the map need; built by the layouts, read by everything else."""

    layout: str
    arms: list[Arm] = field(default_factory=list)
    arm_junction: list[int] = field(default_factory=list)
    """Junction that each arm belongs to."""
    linked: dict[int, int] = field(default_factory=dict)
    """Arms that lead into each other (joined junctions)."""
    lanes: dict[int, Lane] = field(default_factory=dict)
    features: list[RoadFeature] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    cycles: dict[int, Cycle] = field(default_factory=dict)
    walkways: list[Walkway] = field(default_factory=list)
    driveways: list[tuple[int, float]] = field(default_factory=list)
    """(arm, x): openings in the curb of the outgoing side."""
    corners: dict[int, int] = field(default_factory=dict)
    """Arm number -> next arm counter-clockwise: the two whose sidewalks meet at a corner."""
    ring_m: float = 0.0
    """Radius of the curb around a roundabout; 0 where there is none."""
    next_id: int = 100

    def new_id(self) -> int:
        """A feature id that nothing has."""
        self.next_id += 1
        return self.next_id

    def draw_arm(self, rng: np.random.Generator) -> int:
        """An arm at random, mostly of the junction in the middle of the scene."""
        weight = np.where(np.array(self.arm_junction) == 0, 1.0, OUTSKIRTS)
        return int(rng.choice(len(self.arms), p=weight / weight.sum()))

    def add_lane(self, points_m: Float, *, use: LaneUse, turn: Turn, speed_mps: float, arm: int, **more: object) -> Lane:
        """Resample to 0.5 m and add; `more` are further fields of `Lane`."""
        points = resample(points_m, MAP_SPACING_M)
        lane = Lane(id=self.new_id(), use=use, turn=turn, points_m=points, speed_mps=speed_mps, arm=arm, **more)  # type: ignore[arg-type]
        self.lanes[lane.id] = lane
        return lane

    def connect(self, source: Lane, target: Lane) -> None:
        """Let traffic flow from the end of one lane into the start of another."""
        source.exits.append(target.id)
        target.entries.append(source.id)

    def add_feature(self, kind: FeatureKind, points_m: Float, *, type: int = 0, stop_lanes: Iterable[int] = ()) -> int:
        """Add a feature that is no lane: lines are resampled to 0.5 m, polygons and points stay; returns the id."""
        if kind in ("road_line", "road_edge"):
            points_m = resample(points_m, MAP_SPACING_M)
        points = np.concatenate([points_m, np.zeros((len(points_m), 1))], axis=1)
        feature = RoadFeature(id=self.new_id(), kind=kind, points_m=points, type=type, stop_lanes=tuple(stop_lanes))
        self.features.append(feature)
        return feature.id

    def all_features(self) -> tuple[RoadFeature, ...]:
        """Lanes first, then everything else, as map features."""
        lanes = [
            RoadFeature(
                id=lane.id,
                kind="lane",
                points_m=np.concatenate([lane.points_m, np.zeros((len(lane.points_m), 1))], axis=1),
                type=LANE_TYPE[lane.use],
                speed_limit_mph=round(lane.speed_mps / 0.44704 / 5) * 5.0,
                interpolating=lane.turn not in ("along", "ring"),
                entry_lanes=tuple(lane.entries),
                exit_lanes=tuple(lane.exits),
                left_neighbors=tuple(lane.left),
                right_neighbors=tuple(lane.right),
                left_boundaries=tuple(lane.left_lines),
                right_boundaries=tuple(lane.right_lines),
            )
            for lane in self.lanes.values()
        ]
        return (*lanes, *self.features)
