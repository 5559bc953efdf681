"""Junctions where arms meet in a point: four-way, T and the two-armed straight road with a merge."""

from __future__ import annotations

import numpy as np

from preprocessing.synthetic.arms import ArmLanes
from preprocessing.synthetic.network import Lane, RoadNetwork, Signal, Turn
from preprocessing.synthetic.road_geometry import Arm, bezier
from preprocessing.synthetic.world import Float


def wrap(angle_rad: float) -> float:
    """The angle in (-pi, pi]."""
    return float(np.pi - np.mod(np.pi - angle_rad, 2 * np.pi))


def turn_between(source: Arm, target: Arm) -> Turn:
    """How a driver turns who comes in on one arm and leaves by another."""
    change = wrap(target.angle_rad - source.angle_rad - np.pi)
    if source is target:
        return "u-turn"
    if abs(change) < 0.6:
        return "straight"
    return "left" if change > 0 else "right"


def connect_arms(
    network: RoadNetwork,
    numbers: list[int],
    lanes: dict[int, ArmLanes],
    *,
    junction: int,
    phases: dict[int, int] | None,
    stop_arms: tuple[int, ...] = (),
) -> None:
    """Connecting lanes between every two arms.

    Args:
        numbers: the arms of this junction.
        lanes: lanes of every arm.
        junction: number of the junction, for its signals.
        phases: green phase of each arm, or None where there are no lights.
        stop_arms: arms whose traffic stops at a sign.
    """
    for source in numbers:
        connectors: list[Lane] = []
        for target in numbers:
            connectors += _between(network, source, target, lanes)
        for lane in connectors:
            lane.stop_sign = source in stop_arms
            if phases is not None:
                lane.signal = len(network.signals)
                stop = np.append(lane.points_m[0], 0.0)
                network.signals.append(Signal(lane=lane.id, stop_m=stop, junction=junction, phase=phases[source]))
        if source in stop_arms:
            arm = network.arms[source]
            position = arm.to_local(arm.inner_m, arm.edge_in_m + 0.8)[None]
            network.add_feature("stop_sign", position, stop_lanes=[lane.id for lane in lanes[source].incoming])


def _between(network: RoadNetwork, source: int, target: int, lanes: dict[int, ArmLanes]) -> list[Lane]:
    """All connecting lanes from one arm to another, the bikes' included."""
    turn = turn_between(network.arms[source], network.arms[target])
    incoming, outgoing = lanes[source].incoming, lanes[target].outgoing
    last_in, last_out = len(incoming) - 1, len(outgoing) - 1
    pairs: list[tuple[Lane, Lane, Turn]] = []
    if turn == "u-turn":
        # Tighter than a car can turn unless it swings from the inner lane into the outer one.
        pairs = [(incoming[0], outgoing[last_out], turn)] if last_out >= 1 else []
    elif turn == "left":
        pairs = [(incoming[0], outgoing[0], turn)]
    elif turn == "right":
        pairs = [(incoming[last_in], outgoing[last_out], turn)]
    else:
        pairs = [
            (incoming[lane], outgoing[min(lane, last_out)], "merge" if lane > last_out else turn) for lane in range(last_in + 1)
        ]
    if turn != "u-turn":
        pairs.append((lanes[source].bike_in, lanes[target].bike_out, turn))
    made = []
    for start, end, kind in pairs:
        points = connector(network.arms[source], network.arms[target], start.points_m[-1], end.points_m[0], kind)
        lane = network.add_lane(
            points, use=start.use, turn=kind, speed_mps=min(start.speed_mps, end.speed_mps), arm=source, number=start.number
        )
        network.connect(start, lane)
        network.connect(lane, end)
        made.append(lane)
    return made


def connector(source: Arm, target: Arm, start: Float, end: Float, turn: Turn) -> Float:
    """Centre line (n, 2) through the junction."""
    if turn == "u-turn":
        far = source.inward() * 4.5
        half = 0.5 * (end - start)
        out = bezier(start, source.inward(), start + half + far, half / np.hypot(*half), 0.45)
        back = bezier(start + half + far, half / np.hypot(*half), end, target.outward(), 0.45)
        return np.concatenate([out, back[1:]])
    return bezier(start, source.inward(), end, target.outward())
