"""The roundabout: rings of car and bike lanes around an island, with an entry and an exit for each arm."""

from __future__ import annotations

import numpy as np

from preprocessing.synthetic.arms import ArmLanes
from preprocessing.synthetic.network import EDGE_MEDIAN, Lane, RoadNetwork, Turn
from preprocessing.synthetic.road_geometry import bezier, rounded_box, unit
from preprocessing.synthetic.world import Float


def connect_ring(
    network: RoadNetwork, numbers: list[int], lanes: dict[int, ArmLanes], *, radius_m: float, bike_radius_m: float
) -> None:
    """Join arms (sorted counter-clockwise, around one centre) by a ring that runs counter-clockwise."""
    centre = network.arms[numbers[0]].center_m
    network.add_feature("road_edge", rounded_box(0.0, 2 * np.pi, radius_m - 2.6, centre), type=EDGE_MEDIAN)
    for use, radius, spread in (("drive", radius_m, 0.52), ("bike", bike_radius_m, 0.48)):
        incoming = {n: lanes[n].incoming[0] if use == "drive" else lanes[n].bike_in for n in numbers}
        outgoing = {n: lanes[n].outgoing[0] if use == "drive" else lanes[n].bike_out for n in numbers}
        _ring(network, numbers, incoming, outgoing, centre, radius, spread)


def _ring(
    network: RoadNetwork,
    numbers: list[int],
    incoming: dict[int, Lane],
    outgoing: dict[int, Lane],
    centre: Float,
    radius: float,
    spread: float,
) -> None:
    ring_speed = 6.0
    use = incoming[numbers[0]].use
    speed = min(ring_speed, incoming[numbers[0]].speed_mps)

    def add(points: Float, turn: Turn, arm: int) -> Lane:
        return network.add_lane(points, use=use, turn=turn, speed_mps=speed, arm=arm)

    # Per arm: traffic leaves the ring before the arm's axis, passes it, and is joined from the arm behind it.
    passing = {
        n: add(rounded_box(network.arms[n].angle_rad - spread, network.arms[n].angle_rad + spread, radius, centre), "ring", n)
        for n in numbers
    }
    between: dict[int, Lane] = {}
    for place, n in enumerate(numbers):
        following = numbers[(place + 1) % len(numbers)]
        start, stop = network.arms[n].angle_rad + spread, network.arms[following].angle_rad - spread
        stop += 2 * np.pi * np.ceil((start - stop) / (2 * np.pi))
        between[n] = add(rounded_box(start, stop, radius, centre), "ring", n)
        network.connect(passing[n], between[n])
        network.connect(between[n], passing[following])
    for place, n in enumerate(numbers):
        arm, start, stop = network.arms[n], network.arms[n].angle_rad + spread, network.arms[n].angle_rad - spread
        joins, leaves = centre + radius * unit(start), centre + radius * unit(stop)
        entry = add(bezier(incoming[n].points_m[-1], arm.inward(), joins, unit(start + 0.5 * np.pi), 0.36), "enter", n)
        leave = add(bezier(leaves, unit(stop + 0.5 * np.pi), outgoing[n].points_m[0], arm.outward(), 0.36), "leave", n)
        network.connect(incoming[n], entry)
        network.connect(entry, between[n])
        network.connect(between[numbers[place - 1]], leave)
        network.connect(leave, outgoing[n])
