"""Plans of cyclists: bike lanes, turns at junctions and into driveways, U-turns, stopping, starting."""

from __future__ import annotations

from typing import Literal

import numpy as np

from preprocessing.synthetic.arms import driveway_path
from preprocessing.synthetic.network import Lane, RoadNetwork, Turn
from preprocessing.synthetic.plans import NEVER_S, NOWHERE_M, Plan
from preprocessing.synthetic.road_geometry import MAP_SPACING_M, Arm, arc_length, join
from preprocessing.synthetic.routes import Route, draw_route
from preprocessing.synthetic.walkers import CURRENT_S
from preprocessing.synthetic.world import BodyKind, Float

Errand = Literal["junction", "u-turn", "driveway", "stop", "start", "along"]
ERRANDS: dict[Errand, float] = {"junction": 0.44, "u-turn": 0.12, "driveway": 0.14, "stop": 0.1, "start": 0.1, "along": 0.1}
JUNCTION_TURNS: tuple[Turn, ...] = ("straight", "left", "right")


def plan_cyclists(network: RoadNetwork, rng: np.random.Generator, number: int, begin_s: float) -> list[Plan]:
    """`number` cyclists; about half begin what they are up to within two seconds after the current step."""
    names = list(ERRANDS)
    errands = rng.choice(len(names), size=number, p=np.array(list(ERRANDS.values())))
    plans = []
    for errand in errands:
        soon = rng.random() < 0.6
        at_s = CURRENT_S + float(rng.uniform(0.3, 1.9) if soon else rng.uniform(-2.0, 5.0))
        plans.append(_plan(network, rng, names[int(errand)], at_s, begin_s))
    return plans


def _plan(network: RoadNetwork, rng: np.random.Generator, errand: Errand, at_s: float, begin_s: float) -> Plan:
    speed = float(np.clip(rng.normal(4.4, 0.7), 3.0, 6.0))
    lanes = [lane for lane in network.lanes.values() if lane.use == "bike" and lane.turn == "along"]
    if errand == "junction":
        return _through_junction(network, rng, [lane for lane in lanes if not lane.outgoing], at_s, begin_s, speed)
    chosen = network.draw_arm(rng)
    near = [lane for lane in lanes if lane.arm == chosen]
    lane = near[int(rng.integers(len(near)))]
    if errand == "driveway" and network.driveways:
        number, x = network.driveways[int(rng.integers(len(network.driveways)))]
        lane = next(other for other in lanes if other.arm == number and other.outgoing)
        arm = network.arms[number]
        # From the bike lane the turn is tighter than a car's, but begins on the same curve.
        turn = driveway_path(arm, x, arm.bike_m(-1))
        begin = int(np.argmin(np.hypot(*(lane.points_m - turn[0]).T)))
        approach, after = lane.points_m[: max(begin, 2)], turn
        return _make(rng, join(approach, after), approach, at_s, begin_s, speed, "branch")
    if errand == "u-turn":
        # Wide roads take too long to cross, so the narrower half of them is where people turn back.
        width = [network.arms[other.arm].edge_in_m + network.arms[other.arm].edge_out_m for other in lanes]
        narrow = [other for other, metres in zip(lanes, width, strict=True) if metres <= np.median(width)]
        lane = narrow[int(rng.integers(len(narrow)))]
    arm = network.arms[lane.arm]
    # Where the sensor still sees them, and far enough from the junction to have come straight along the lane.
    away_m = float(rng.uniform(20.0, 45.0) if lane.outgoing else rng.uniform(8.0, 40.0))
    away = min(int(away_m / MAP_SPACING_M), int(0.8 * len(lane.points_m)))
    at = away if lane.outgoing else len(lane.points_m) - 1 - away
    approach, after = lane.points_m[:at], draw_route(network, rng, lane).line_m[at:]
    if errand == "u-turn":
        after = _u_turn(arm, lane, at)
        return _make(rng, join(approach, after), approach, at_s, begin_s, min(speed, 4.4), "branch", priority=0)
    line = join(approach, after)
    if errand == "along":
        route = draw_route(network, rng, lane)
        return _make(rng, line, approach, at_s, begin_s, speed, "none", route=route)
    return _make(rng, line, approach, at_s, begin_s, speed, "stop" if errand == "stop" else "start")


def _through_junction(
    network: RoadNetwork, rng: np.random.Generator, lanes: list[Lane], at_s: float, begin_s: float, speed: float
) -> Plan:
    """Straight on, left or right, where no light stops it; the history is the same for all three."""
    best: Plan | None = None
    for _ in range(6):
        lane = lanes[int(rng.integers(len(lanes)))]
        route = draw_route(network, rng, lane, turn=JUNCTION_TURNS[int(rng.integers(3))])
        best = _make(rng, route.line_m, lane.points_m, at_s, begin_s, speed, "branch" if route.turns else "none", route=route)
        if route.signal < 0 or route.stop_sign:
            break
        signal = network.signals[route.signal]
        cycle = network.cycles[signal.junction]
        arrivals = at_s + np.array([-2.5, -1.0, 0.0])
        if bool((cycle.since_green_s(signal.phase, arrivals) < cycle.green_s).all()):
            break
    assert best is not None
    return best


def _u_turn(arm: Arm, lane: Lane, at: int) -> Float:
    """Across all lanes into the bike lane the other way, which it then follows."""
    share = at / (len(lane.points_m) - 1)
    share = share if lane.outgoing else 1.0 - share
    x = arm.inner_m + share * (arm.length_m - arm.inner_m)
    here, there = arm.bike_m(-1 if lane.outgoing else 1), arm.bike_m(1 if lane.outgoing else -1)
    sign = 1.0 if lane.outgoing else -1.0
    angle = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 30)
    middle, radius = 0.5 * (here + there), 0.5 * abs(here - there)
    # Turning left: across y from here to there while x swings ahead and comes back.
    turn = arm.to_local(x + sign * radius * np.cos(angle), middle + np.sign(there - here) * radius * np.sin(angle))
    end = arm.inner_m if lane.outgoing else arm.length_m
    return join(turn, arm.line(there, x, end))


def _make(
    rng: np.random.Generator,
    line: Float,
    approach: Float,
    at_s: float,
    begin_s: float,
    speed: float,
    maneuver: str,
    *,
    route: Route | None = None,
    priority: int = 3,
) -> Plan:
    branch = float(arc_length(approach)[-1])
    start = branch - speed * (at_s - begin_s)
    hold, until = NOWHERE_M, NEVER_S
    if maneuver == "stop":
        hold = branch + speed**2 / 2.6
    if maneuver == "start":
        start, hold, until = branch, branch, at_s
    return Plan(
        kind=BodyKind.CYCLIST,
        size_m=(float(rng.uniform(1.65, 1.9)), float(rng.uniform(0.6, 0.8)), float(rng.uniform(1.6, 1.85))),
        line_m=line,
        start_m=start,
        cruise_mps=speed,
        start_mps=0.0 if maneuver == "start" else speed,
        maneuver=maneuver,  # type: ignore[arg-type]
        branch_m=branch,
        hold_m=hold,
        hold_until_s=until,
        rounding_m=2.0,
        stop_m=NOWHERE_M if route is None else route.branch_m,
        signal=-1 if route is None else route.signal,
        stop_sign=False if route is None else route.stop_sign,
        priority=priority if route is None else route.priority,
        end_m=float(arc_length(line)[-1]),
    )
