"""Plans of cars, trucks and buses: routes, lane changes, parked cars that stay, leave or arrive."""

from __future__ import annotations

import numpy as np

from preprocessing.synthetic.network import Lane, RoadNetwork
from preprocessing.synthetic.plans import NOWHERE_M, Plan
from preprocessing.synthetic.road_geometry import MAP_SPACING_M, arc_length, join
from preprocessing.synthetic.routes import Route, draw_route, shift_between
from preprocessing.synthetic.world import BodyKind

SLOT_M = 7.2
BAY_M = 2.9
LOTS_M = {2: 75.0, 3: 42.0}
"""How far from the corner (m) bays reach, by the number of arms (3: three or more)."""


def body(rng: np.random.Generator, kind: BodyKind) -> tuple[float, float, float]:
    """Length, width and height of a vehicle in metres."""
    if kind == BodyKind.BUS:
        return float(rng.uniform(10.5, 12.0)), float(rng.uniform(2.5, 2.6)), float(rng.uniform(3.0, 3.3))
    if kind == BodyKind.TRUCK:
        return float(rng.uniform(6.2, 8.5)), float(rng.uniform(2.3, 2.5)), float(rng.uniform(2.7, 3.4))
    return float(rng.uniform(4.1, 5.1)), float(rng.uniform(1.8, 2.05)), float(rng.uniform(1.45, 1.9))


def plan_vehicles(network: RoadNetwork, rng: np.random.Generator, number: int) -> list[Plan]:
    """Up to `number` moving vehicles, spread over the lanes with safe gaps."""
    arriving = [
        lane for lane in network.lanes.values() if lane.use == "drive" and not lane.outgoing and lane.turn in ("along", "ring")
    ]
    plans: list[Plan] = []
    taken: dict[int, list[tuple[float, float]]] = {}
    for _ in range(4 * number):
        if len(plans) == number:
            break
        arm = network.draw_arm(rng)
        lanes = [lane for lane in arriving if lane.arm == arm]
        lane = lanes[int(rng.integers(len(lanes)))]
        kind = BodyKind(int(rng.choice([BodyKind.CAR, BodyKind.TRUCK, BodyKind.BUS], p=[0.84, 0.11, 0.05])))
        size = body(rng, kind)
        route = draw_route(network, rng, lane)
        cruise = route.speed_mps * float(rng.uniform(0.82, 1.08)) * (0.85 if kind != BodyKind.CAR else 1.0)
        total = float(arc_length(lane.points_m)[-1])
        start = float(rng.uniform(max(3.0, total - 85.0), max(total - 4.0, 4.0)))
        near = taken.setdefault(lane.id, [])
        if any(abs(start - other) < 0.5 * (length + size[0]) + 13.0 for other, length in near):
            continue
        near.append((start, size[0]))
        if rng.random() < 0.28:
            route = _change_lanes(network, rng, lane, start, cruise, route)
        plans.append(
            Plan(
                kind=kind,
                size_m=size,
                line_m=route.line_m,
                start_m=start,
                cruise_mps=cruise,
                start_mps=cruise * float(rng.uniform(0.8, 1.0)),
                maneuver="branch" if route.turns else "none",
                branch_m=route.branch_m,
                stop_m=route.branch_m,
                signal=route.signal,
                stop_sign=route.stop_sign,
                priority=route.priority,
                ring=network.layout == "roundabout",
                end_m=float(arc_length(route.line_m)[-1]),
            )
        )
    return plans


def _change_lanes(
    network: RoadNetwork, rng: np.random.Generator, lane: Lane, start_m: float, cruise_mps: float, route: Route
) -> Route:
    """The route with a change to a neighbouring car lane before the junction, if there is one and room for it."""
    sides = [network.lanes[other] for other in lane.left + lane.right if network.lanes[other].use == "drive"]
    sides = [other for other in sides if other.turn == "along"]
    reach = int(3.2 * cruise_mps / MAP_SPACING_M)
    begin = int((start_m + cruise_mps * float(rng.uniform(4.2, 6.5))) / MAP_SPACING_M)
    if not sides or begin + reach > len(lane.points_m) - 4:
        return route
    target = sides[int(rng.integers(len(sides)))]
    onward = draw_route(network, rng, target)
    shifted = shift_between(lane.points_m, target.points_m, begin, reach)
    rest = onward.line_m[len(target.points_m) :]
    line = join(shifted, rest) if len(rest) else shifted
    return Route(
        line_m=line,
        turn=onward.turn,
        branch_m=float(arc_length(shifted)[-1]) if len(rest) else NOWHERE_M,
        signal=onward.signal,
        stop_sign=onward.stop_sign,
        speed_mps=route.speed_mps,
    )


def plan_parked(network: RoadNetwork, rng: np.random.Generator, share: float) -> list[Plan]:
    """Cars along the curb: a `share` of the slots is taken; some cars leave, and some arrive at a slot that is free."""
    plans: list[Plan] = []
    for number, arm in enumerate(network.arms):
        for side, there in ((+1, arm.parking_in), (-1, arm.parking_out)):
            if not there:
                continue
            lane = _outer_lane(network, number, side)
            slots = np.arange(arm.inner_m + 12.0, arm.length_m - 8.0, SLOT_M)
            busy = False
            for x in slots:
                if rng.random() >= share or busy:
                    busy = False
                    continue
                line = arm.line(arm.parking_m(side), arm.length_m, arm.inner_m)
                line = line if side > 0 else line[::-1]
                at = arm.length_m - x if side > 0 else x - arm.inner_m
                # Offset lines of a bent arm differ in length, points do not: count in points.
                begin = int(at / MAP_SPACING_M)
                leaves = rng.random() < 0.12 and begin + 60 < len(lane.points_m)
                busy = bool(leaves and side < 0)
                plans.append(_leaving(network, rng, lane, line, begin) if leaves else _standing(rng, line, begin))
    return plans


def plan_lots(network: RoadNetwork, rng: np.random.Generator, share: float) -> list[Plan]:
    """Cars in bays behind the sidewalks of the first junction's arms, nose to the road; a `share` of the bays is taken."""
    plans: list[Plan] = []
    # The fewer arms, the longer their lots: every layout has its crowd in the sensor's sight.
    reach_m = LOTS_M[min(network.arm_junction.count(0), 3)]
    for number, arm in enumerate(network.arms):
        if network.arm_junction[number] != 0:
            continue
        for side in (+1, -1):
            openings = [x for other, x in network.driveways if other == number and side < 0]
            for x in np.arange(arm.corner_m + 9.0, arm.corner_m + reach_m, BAY_M):
                if rng.random() >= share or any(abs(x - opening) < 6.0 for opening in openings):
                    continue
                near, far = arm.edge_m(side) + side * 4.0, arm.edge_m(side) + side * 10.0
                plans.append(_standing(rng, np.stack([arm.to_local(x, y) for y in np.linspace(far, near, 13)]), 6))
    return plans


def _outer_lane(network: RoadNetwork, arm: int, side: int) -> Lane:
    lanes = [
        lane
        for lane in network.lanes.values()
        if lane.arm == arm and lane.use == "drive" and lane.turn == "along" and lane.outgoing == (side < 0)
    ]
    return max(lanes, key=lambda lane: lane.number)


def _standing(rng: np.random.Generator, line: np.ndarray, begin: int) -> Plan:
    along = arc_length(line)
    return Plan(
        kind=BodyKind.CAR,
        size_m=body(rng, BodyKind.CAR),
        line_m=line,
        start_m=float(along[min(begin, len(along) - 1)]),
        cruise_mps=0.1,
        start_mps=0.0,
        parked=True,
        hold_m=float(along[min(begin, len(along) - 1)]),
    )


def _leaving(network: RoadNetwork, rng: np.random.Generator, lane: Lane, line: np.ndarray, begin: int) -> Plan:
    """A parked car that pulls out into the lane beside it."""
    route = draw_route(network, rng, lane)
    shifted = shift_between(line, lane.points_m, begin + 2, 30)
    rest = route.line_m[len(lane.points_m) :]
    path = join(shifted, rest) if len(rest) else shifted
    start = float(arc_length(line)[begin])
    stop = float(arc_length(shifted)[-1]) if len(rest) else NOWHERE_M
    return Plan(
        kind=BodyKind.CAR,
        size_m=body(rng, BodyKind.CAR),
        line_m=path,
        start_m=start,
        cruise_mps=route.speed_mps * 0.8,
        start_mps=0.0,
        maneuver="start",
        hold_m=start,
        hold_until_s=float(rng.uniform(0.2, 5.0)),
        stop_m=stop,
        signal=route.signal,
        stop_sign=route.stop_sign,
        priority=-1,
        ring=network.layout == "roundabout",
        end_m=float(arc_length(path)[-1]),
    )
