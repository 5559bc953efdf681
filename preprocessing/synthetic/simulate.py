"""simulate: a seed and an index in, one World out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from limtr.scene import ObjectType
from preprocessing.synthetic.cues import cue_yaws
from preprocessing.synthetic.cyclists import plan_cyclists
from preprocessing.synthetic.layouts import LAYOUTS, Layout, build_network
from preprocessing.synthetic.network import RoadNetwork
from preprocessing.synthetic.overlap import without_overlaps
from preprocessing.synthetic.paths import Paths
from preprocessing.synthetic.plans import Plan
from preprocessing.synthetic.scenery import add_scenery, without_people_inside
from preprocessing.synthetic.traffic import Traffic
from preprocessing.synthetic.vehicles import plan_lots, plan_parked, plan_vehicles
from preprocessing.synthetic.walkers import plan_walkers
from preprocessing.synthetic.walking import walk
from preprocessing.synthetic.world import BodyKind, Bool, Float, Int, World

STEP_S = 0.1
WARM_UP_STEPS = 40
CURRENT_STEP = 10
VEHICLE_SPACING_M, WALKER_SPACING_M = 0.25, 0.1


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """How many actors a scene gets: ranges without their upper end, and the share of parking slots that is taken."""

    vehicles: tuple[int, int]
    cyclists: tuple[int, int]
    walkers: tuple[int, int]
    parked_share: float
    lot_share: float
    """the same for bays behind the sidewalks"""


CROWDS = {
    "small": Crowd(vehicles=(9, 14), cyclists=(4, 8), walkers=(8, 13), parked_share=0.3, lot_share=0.0),
    "womd": Crowd(vehicles=(50, 60), cyclists=(28, 38), walkers=(120, 150), parked_share=0.85, lot_share=0.8),
}


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """What kind of scenes to simulate."""

    size: Literal["small", "womd"] = "small"
    """small: scenes for a demo; womd: as many tracks and map points as real records have"""
    cue_lead_s: float = 2.0
    """how far ahead (s) bodies give a manoeuvre away at most; 0: never"""
    num_steps: int = 91
    """steps at 10 Hz; the current one is number 10"""
    layout: Layout | None = None
    """one layout for every scene instead of a random one"""

    def __post_init__(self) -> None:
        if self.size not in ("small", "womd"):
            raise ValueError(f"size must be 'small' or 'womd', is {self.size!r}")
        if not 0.0 <= self.cue_lead_s <= 5.0:
            raise ValueError(f"cue_lead_s must be within 0..5 s, is {self.cue_lead_s}")
        if not CURRENT_STEP < self.num_steps <= 199:
            raise ValueError(f"num_steps must be within {CURRENT_STEP + 1}..199, is {self.num_steps}")
        if self.layout is not None and self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {LAYOUTS}, is {self.layout!r}")


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Where A actors are over T steps, the steps after the last recorded one included."""

    plans: list[Plan]
    s_m: Float
    speed_mps: Float
    position_m: Float
    heading_rad: Float
    curvature: Float
    present: Bool


def simulate(seed: int, index: int, config: SimulationConfig) -> World:
    """One scene, which depends on (seed, index) and the configuration only."""
    # Separate streams: what one part draws never shifts what another one gets.
    streams = np.random.SeedSequence([seed, index]).spawn(8)
    road_rng, vehicle_rng, parked_rng, walker_rng, cyclist_rng, scenery_rng, pose_rng, name_rng = map(
        np.random.default_rng, streams
    )
    layout = config.layout or LAYOUTS[int(road_rng.integers(len(LAYOUTS)))]
    network = build_network(road_rng, layout, womd=config.size == "womd")
    # The steps after the last recorded one tell what the bodies already give away in it.
    extra = int(np.ceil(config.cue_lead_s / STEP_S)) + 1
    times: Float = np.asarray((np.arange(WARM_UP_STEPS + config.num_steps + extra) - WARM_UP_STEPS) * STEP_S, dtype=np.float64)
    crowd = CROWDS[config.size]
    drivers = plan_vehicles(network, vehicle_rng, int(vehicle_rng.integers(*crowd.vehicles)))
    along_the_curb = plan_parked(network, parked_rng, crowd.parked_share) + plan_lots(network, parked_rng, crowd.lot_share)
    parked = _parked([plan for plan in along_the_curb if plan.parked], times)
    drivers += [plan for plan in along_the_curb if not plan.parked]
    drivers += plan_cyclists(network, cyclist_rng, int(cyclist_rng.integers(*crowd.cyclists)), float(times[0]))
    walkers = plan_walkers(network, walker_rng, int(walker_rng.integers(*crowd.walkers)), float(times[0]))
    signal_state = _signals(network, times)
    people = _walkers(walkers, times)
    traffic = _drivers(drivers, times, signal_state, people, parked)
    motion = _cut(_together(traffic, parked, people), WARM_UP_STEPS)
    draws = pose_rng.random((len(motion.plans), 3))
    head, torso, wheel = cue_yaws(
        motion.plans, motion.heading_rad, motion.speed_mps, motion.curvature, config.cue_lead_s, STEP_S, draws
    )
    gait = _gait(motion, 2 * np.pi * pose_rng.random(len(motion.plans)))
    ego, kept = _choose(motion, config.num_steps)
    shown = slice(0, config.num_steps)
    plans = [plan for plan, keep in zip(motion.plans, kept, strict=True) if keep]
    size = np.array([plan.size_m for plan in plans])
    heading = motion.heading_rad[kept, shown]
    speed = motion.speed_mps[kept, shown]
    flat = motion.position_m[kept, shown]
    height = np.broadcast_to(0.5 * size[:, None, 2:], (*flat.shape[:2], 1))
    buildings, poles = add_scenery(network, scenery_rng)
    buildings = without_people_inside(buildings, flat[:, ::4][motion.present[kept, shown][:, ::4]])
    origin = name_rng.uniform(-9000.0, 9000.0, 2)
    return World(
        scenario_id=f"{int(name_rng.integers(2**62)):016x}",
        layout=layout,
        origin_m=np.append(origin, name_rng.uniform(-20.0, 60.0)),
        timestamps_s=np.arange(config.num_steps, dtype=np.float64) * STEP_S,
        features=network.all_features(),
        signal_lane=np.array([signal.lane for signal in network.signals], dtype=np.int64),
        signal_state=signal_state[:, WARM_UP_STEPS : WARM_UP_STEPS + config.num_steps],
        signal_stop_m=np.array([signal.stop_m for signal in network.signals]).reshape(-1, 3),
        ego=int(kept[:ego].sum()),
        kind=np.array([plan.kind for plan in plans], dtype=np.int64),
        object_type=np.array([object_type(plan.kind) for plan in plans], dtype=np.int64),
        size_m=size,
        position_m=np.concatenate([flat, height], axis=-1),
        heading_rad=np.mod(heading + np.pi, 2 * np.pi) - np.pi,
        velocity_mps=speed[..., None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1),
        present=motion.present[kept, shown],
        head_yaw_rad=head[kept, shown],
        torso_yaw_rad=torso[kept, shown],
        front_wheel_yaw_rad=wheel[kept, shown],
        gait_phase_rad=gait[kept, shown],
        maneuver_step=_maneuver_steps(motion, config.num_steps)[kept],
        buildings=buildings,
        poles=poles,
    )


def object_type(kind: BodyKind) -> ObjectType:
    """WOMD's type of a body."""
    return {BodyKind.PEDESTRIAN: ObjectType.PEDESTRIAN, BodyKind.CYCLIST: ObjectType.CYCLIST}.get(kind, ObjectType.VEHICLE)


def _signals(network: RoadNetwork, times: Float) -> Int:
    """(G, T) states."""
    states = [network.cycles[signal.junction].state(signal.phase, times) for signal in network.signals]
    return np.array(states, dtype=np.int64).reshape(-1, len(times))


def _walkers(plans: list[Plan], times: Float) -> Motion:
    paths = Paths([plan.line_m for plan in plans], WALKER_SPACING_M, [plan.rounding_m for plan in plans])
    s, v = walk(plans, paths, times)
    return _motion(plans, paths, s, v)


def _parked(plans: list[Plan], times: Float) -> Motion:
    paths = Paths([plan.line_m for plan in plans], VEHICLE_SPACING_M, [plan.rounding_m for plan in plans])
    s = np.repeat(np.array([plan.start_m for plan in plans]).reshape(-1, 1), len(times), axis=1)
    return _motion(plans, paths, s, np.zeros_like(s))


def _drivers(plans: list[Plan], times: Float, signal_state: Int, people: Motion, parked: Motion) -> Motion:
    paths = Paths([plan.line_m for plan in plans], VEHICLE_SPACING_M, [plan.rounding_m for plan in plans])
    crossing = np.array([plan.crossing for plan in people.plans], dtype=bool)
    obstacles = _discs(parked)
    s, v = Traffic(plans, paths, signal_state, people.position_m[crossing], obstacles, STEP_S).run(times)
    return _motion(plans, paths, s, v)


def _discs(parked: Motion) -> Float:
    """Discs (n, 3) that cover parked bodies: x, y, diameter."""
    size = np.array([plan.size_m for plan in parked.plans]).reshape(-1, 3)
    offset = np.array([-0.5, 0.0, 0.5]) * (size[:, :1] - size[:, 1:2])
    heading = parked.heading_rad[:, :1]
    x = parked.position_m[:, :1, 0] + offset * np.cos(heading)
    y = parked.position_m[:, :1, 1] + offset * np.sin(heading)
    return np.stack([x, y, np.broadcast_to(size[:, 1:2], x.shape)], axis=-1).reshape(-1, 3)


def _motion(plans: list[Plan], paths: Paths, s: Float, v: Float) -> Motion:
    end = np.array([plan.end_m for plan in plans])
    return Motion(
        plans=plans,
        s_m=s,
        speed_mps=v,
        position_m=paths.position(s),
        heading_rad=paths.heading(s),
        curvature=paths.lookup(paths.curvature, s),
        present=s < end[:, None],
    )


ARRAYS = ("s_m", "speed_mps", "position_m", "heading_rad", "curvature", "present")


def _together(*motions: Motion) -> Motion:
    arrays = {name: np.concatenate([getattr(motion, name) for motion in motions]) for name in ARRAYS}
    return Motion(plans=[plan for motion in motions for plan in motion.plans], **arrays)


def _cut(motion: Motion, first: int) -> Motion:
    return Motion(plans=motion.plans, **{name: getattr(motion, name)[:, first:] for name in ARRAYS})


def _gait(motion: Motion, start: Float) -> Float:
    """(A, T) phase of legs or pedals: one full swing in 1.5 m walked, or 4.5 m ridden."""
    stride = np.where([plan.kind == BodyKind.PEDESTRIAN for plan in motion.plans], 1.5, 4.5)
    return np.mod(start[:, None] + 2 * np.pi * motion.s_m / stride[:, None], 2 * np.pi)


def _choose(motion: Motion, num_steps: int) -> tuple[int, Bool]:
    """Row of the recording vehicle, and the actors that stay in the scene (A,)."""
    kind = np.array([plan.kind for plan in motion.plans])
    present = motion.present[:, :num_steps]
    parked = np.array([plan.parked for plan in motion.plans])
    reach = np.hypot(*motion.position_m[:, CURRENT_STEP].T)
    able = (kind == BodyKind.CAR) & present.all(axis=1)
    # A moving car not far from the junction; a parked one if there is nothing else.
    cost = np.where(able, np.abs(reach - 22.0) + 200.0 * parked, np.inf)
    ego = int(np.argmin(cost))
    spared = np.zeros(len(kind), dtype=np.int64)
    spared[ego] = 2
    spared[(kind == BodyKind.PEDESTRIAN) | (kind == BodyKind.CYCLIST)] = 0
    shown = slice(0, num_steps)
    size = np.array([plan.size_m[:2] for plan in motion.plans])
    kept = without_overlaps(motion.position_m[:, shown], motion.heading_rad[:, shown], size, present, spared)
    kept &= present.any(axis=1)
    return ego, kept


def _maneuver_steps(motion: Motion, num_steps: int) -> Int:
    """(A,) the first step after the current one at which the path, or the speed, begins what the actor intended."""
    steps = np.full(len(motion.plans), -1, dtype=np.int64)
    for row, plan in enumerate(motion.plans):
        if plan.parked or plan.maneuver == "none":
            continue
        speed, s = motion.speed_mps[row, :num_steps], motion.s_m[row, :num_steps]
        if plan.maneuver == "branch":
            begun = s >= plan.branch_m - 0.5 * plan.rounding_m
        elif plan.maneuver == "stop":
            begun = (speed < 0.93 * plan.cruise_mps) & (s > plan.branch_m - 3.0)
        else:
            begun = (speed > 0.02) & (s >= plan.hold_m - 0.02)
        first = int(np.argmax(begun))
        if begun[first] and first > CURRENT_STEP:
            steps[row] = first
    return steps
