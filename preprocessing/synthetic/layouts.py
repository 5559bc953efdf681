"""The four kinds of road: which arms meet where, and who has to wait."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from preprocessing.synthetic.arms import ArmLanes, add_crosswalk, add_driveway, add_speed_bump, draw_curb, paint_lines
from preprocessing.synthetic.junctions import connect_arms
from preprocessing.synthetic.network import Cycle, RoadNetwork
from preprocessing.synthetic.road_geometry import Arm, unit
from preprocessing.synthetic.roundabout import connect_ring
from preprocessing.synthetic.world import Float

Layout = Literal["signalised", "t_junction", "roundabout", "straight"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
SPEED_MPS: dict[Layout, tuple[float, float]] = {
    "signalised": (8.5, 12.0),
    "t_junction": (7.5, 10.5),
    "roundabout": (7.0, 9.0),
    "straight": (10.0, 14.0),
}


def build_network(rng: np.random.Generator, layout: Layout, *, womd: bool = False) -> RoadNetwork:
    """A road network of one layout around (0, 0); with `womd` a second, signalised junction is joined to it."""
    network = RoadNetwork(layout=layout)
    base = float(rng.uniform(-np.pi, np.pi))
    length = 145.0 if womd else 95.0
    speed = float(rng.uniform(*SPEED_MPS[layout]))
    width = float(rng.uniform(3.3, 3.7))
    joined = _add_junction(network, rng, layout, np.zeros(2), base, length, width, speed, join_from=-1, womd=womd)
    if womd:
        arm = network.arms[joined]
        beyond = 95.0
        centre = arm.center_m + unit(arm.angle_rad) * (arm.length_m + beyond)
        _add_junction(
            network, rng, "signalised", centre, arm.angle_rad + np.pi, beyond, width, speed, join_from=joined, womd=True
        )
    return network


def _angles(rng: np.random.Generator, layout: Layout, base: float, fixed_first: bool) -> list[float]:
    """Directions of the arms, counter-clockwise."""
    quarter = 0.5 * np.pi
    turns = {
        "signalised": [0.0, quarter, 2 * quarter, 3 * quarter],
        "t_junction": [0.0, quarter, 2 * quarter],
        "roundabout": [0.0, quarter, 2 * quarter, 3 * quarter] if rng.random() < 0.6 else [0.0, 1.35 * quarter, 2.65 * quarter],
        "straight": [0.0, 2 * quarter],
    }[layout]
    jitter = rng.uniform(-0.14, 0.14, len(turns)) * (layout != "straight")
    if fixed_first:
        jitter[0] = 0.0
    return [base + turn + float(shift) for turn, shift in zip(turns, jitter, strict=True)]


def _lane_counts(rng: np.random.Generator, layout: Layout, number: int, fixed: int) -> tuple[int, int]:
    """Incoming and outgoing lanes of arm `number`."""
    if fixed:
        return fixed, fixed
    if layout == "roundabout":
        return 1, 1
    if layout == "t_junction":
        return 1, 1
    if layout == "straight":
        # A lane ends on the way from arm 0 to arm 1: the merge.
        return (3, 2) if number == 0 else (2, 2)
    return (2, 2) if number % 2 == 0 or rng.random() < 0.5 else (1, 1)


def _add_junction(
    network: RoadNetwork,
    rng: np.random.Generator,
    layout: Layout,
    centre: Float,
    base: float,
    length: float,
    width: float,
    speed: float,
    *,
    join_from: int,
    womd: bool,
) -> int:
    """Add one junction with all its arms; returns an arm that another junction may be joined to (an even, straight one)."""
    junction = len(set(network.arm_junction))
    first = len(network.arms)
    joining = network.arms[join_from] if join_from >= 0 else None
    angles = _angles(rng, layout, base, joining is not None)
    counts = [
        _lane_counts(rng, layout, place, joining.lanes_out if joining and place == 0 else 0) for place in range(len(angles))
    ]
    parking = rng.random((len(angles), 2)) < (0.85 if womd else 0.55)
    if joining is not None:
        # The joined arm continues the other one, the right way round.
        parking[0] = (joining.parking_out, joining.parking_in)
    edges = [max(count) * width + 1.8 + 2.4 * any(sides) for count, sides in zip(counts, parking, strict=True)]
    corner = {"signalised": max(edges) + 4.5, "t_junction": max(edges) + 4.5, "roundabout": 25.0, "straight": 18.0}[layout]
    gap = {"signalised": 4.8, "t_junction": 4.8, "roundabout": 1.0, "straight": 4.8}[layout]
    straight_arm = 1 if layout == "straight" else 0
    bends = rng.choice([-1.0, 1.0], len(angles)) * rng.uniform(0.0, 1 / 170, len(angles))
    if layout == "straight":
        bends = np.repeat(rng.choice([-1.0, 1.0]) * rng.uniform(0.0, 1 / 220), 2) * np.array([1.0, -1.0])
    for place, angle in enumerate(angles):
        bend = 0.0 if (womd and place == straight_arm) or (joining is not None and place == 0) else float(bends[place])
        network.arms.append(
            Arm(
                center_m=centre,
                angle_rad=angle,
                curvature=bend,
                corner_m=corner,
                inner_m=corner + gap,
                length_m=length if joining is None or place == 0 else 85.0,
                lanes_in=counts[place][0],
                lanes_out=counts[place][1],
                lane_width_m=width,
                parking_in=bool(parking[place, 0]),
                parking_out=bool(parking[place, 1]),
            )
        )
        network.arm_junction.append(junction)
    numbers = list(range(first, first + len(angles)))
    lanes = {number: ArmLanes(network, number, speed) for number in numbers}
    _connect(network, rng, layout, numbers, lanes, junction)
    _furnish(network, rng, layout, numbers, lanes, junction)
    if joining is not None:
        _join(network, join_from, first)
    return numbers[straight_arm]


def _connect(
    network: RoadNetwork,
    rng: np.random.Generator,
    layout: Layout,
    numbers: list[int],
    lanes: dict[int, ArmLanes],
    junction: int,
) -> None:
    """Lights, signs and connecting lanes."""
    if layout == "roundabout":
        corner = network.arms[numbers[0]].corner_m
        connect_ring(network, numbers, lanes, radius_m=corner - 10.0, bike_radius_m=corner - 7.0)
        if junction == 0:
            network.ring_m = corner - 5.6
        return
    phases = None
    if layout == "signalised":
        phases = {number: place % 2 for place, number in enumerate(numbers)}
        green = float(rng.uniform(6.0, 11.0))
        period = 2 * (green + 3.0 + 1.5)
        network.cycles[junction] = Cycle(green_s=green, yellow_s=3.0, all_red_s=1.5, offset_s=float(rng.uniform(0, period)))
    stops = (numbers[1],) if layout == "t_junction" else ()
    connect_arms(network, numbers, lanes, junction=junction, phases=phases, stop_arms=stops)


def _furnish(
    network: RoadNetwork,
    rng: np.random.Generator,
    layout: Layout,
    numbers: list[int],
    lanes: dict[int, ArmLanes],
    junction: int,
) -> None:
    """Crosswalks, driveways, bumps, lines and curbs."""
    for place, number in enumerate(numbers):
        arm = network.arms[number]
        if layout in ("signalised", "roundabout") or place == 1 or (layout == "t_junction" and place == 0):
            x = arm.crosswalk_m if layout != "roundabout" else arm.corner_m + 6.0
            add_crosswalk(network, number, x, junction, phase=place % 2)
        if not arm.parking_out:
            for x in (arm.inner_m + 22.0, arm.inner_m + 47.0):
                if rng.random() < 0.6:
                    add_driveway(network, number, x + float(rng.uniform(-4.0, 4.0)))
        if arm.lanes_in == arm.lanes_out == 1 and rng.random() < 0.35:
            add_speed_bump(network, number, arm.inner_m + float(rng.uniform(33.0, 38.0)))
        paint_lines(network, number, lanes[number])
    for place, number in enumerate(numbers):
        following = numbers[(place + 1) % len(numbers)]
        draw_curb(network, number, following, lanes)
        network.corners[number] = following


def _join(network: RoadNetwork, one: int, other: int) -> None:
    """Let the lanes of two arms that meet end to end flow into each other."""
    network.linked[one], network.linked[other] = other, one
    for source, target in ((one, other), (other, one)):
        ending = [lane for lane in network.lanes.values() if lane.arm == source and lane.outgoing]
        for lane in ending:
            follower = next(
                other_lane
                for other_lane in network.lanes.values()
                if other_lane.arm == target
                and not other_lane.outgoing
                and other_lane.turn == "along"
                and (other_lane.use, other_lane.number) == (lane.use, lane.number)
            )
            network.connect(lane, follower)
