"""Routes: ways through the lane graph, with all that traffic has to know about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocessing.synthetic.network import Lane, RoadNetwork, Turn
from preprocessing.synthetic.plans import NOWHERE_M
from preprocessing.synthetic.road_geometry import MAP_SPACING_M, arc_length, join
from preprocessing.synthetic.world import Float

PRIORITY: dict[Turn, int] = {
    "along": 4,
    "straight": 3,
    "merge": 1,
    "right": 2,
    "left": 1,
    "u-turn": 0,
    "enter": 1,
    "ring": 3,
    "leave": 3,
}
TURN_WEIGHT: dict[Turn, float] = {
    "straight": 0.8,
    "left": 1.2,
    "right": 1.0,
    "u-turn": 0.12,
    "merge": 1.0,
    "leave": 0.8,
    "ring": 1.1,
}
MAX_ROUTE_M = 320.0


@dataclass(frozen=True, kw_only=True)
class Route:
    """A chain of lanes as one curve."""

    line_m: Float
    """(n, 2)"""
    turn: Turn
    """of the first connecting lane; "along" if there is none"""
    branch_m: float = NOWHERE_M
    """where the first connecting lane begins: also the stop line"""
    signal: int = -1
    stop_sign: bool = False
    speed_mps: float = 10.0

    @property
    def turns(self) -> bool:
        """Whether it does anything but go on along the road."""
        return self.turn not in ("along", "straight")

    @property
    def priority(self) -> int:
        """Right of way of whoever drives it."""
        return PRIORITY[self.turn] - 2 * self.stop_sign


def draw_route(network: RoadNetwork, rng: np.random.Generator, first: Lane, *, turn: Turn | None = None) -> Route:
    """A random route that begins with lane `first`; `turn` decides the first junction where that is possible."""
    lanes = [first]
    length = MAP_SPACING_M * len(first.points_m)
    seen = {first.id}
    while lanes[-1].exits and length < MAX_ROUTE_M:
        options = [network.lanes[lane] for lane in lanes[-1].exits if lane not in seen]
        if not options:
            break
        wanted = [lane for lane in options if lane.turn == turn] if len(lanes) == 1 else []
        weights = np.array([TURN_WEIGHT.get(lane.turn, 1.0) for lane in options])
        lane = wanted[0] if wanted else options[int(rng.choice(len(options), p=weights / weights.sum()))]
        lanes.append(lane)
        seen.add(lane.id)
        length += MAP_SPACING_M * len(lane.points_m)
    connector = next((lane for lane in lanes if lane.turn != "along"), None)
    if connector is None:
        return Route(line_m=join(*[lane.points_m for lane in lanes]), turn="along", speed_mps=first.speed_mps)
    place = lanes.index(connector)
    before = sum(float(arc_length(lane.points_m)[-1]) for lane in lanes[:place])
    return Route(
        line_m=join(*[lane.points_m for lane in lanes]),
        turn=connector.turn,
        branch_m=before,
        signal=connector.signal,
        stop_sign=connector.stop_sign,
        speed_mps=first.speed_mps,
    )


def shift_between(from_line: Float, to_line: Float, begin: int, length: int) -> Float:
    """A line (n, 2) that leaves one line (n, 2) at point `begin` and is on another, (m, 2) beside it, `length` points later."""
    count = len(from_line)
    # Beside each other on a bend, two lines differ in length: what counts is the share of the way.
    place = np.linspace(0.0, len(to_line) - 1.0, count)
    beside = np.stack([np.interp(place, np.arange(len(to_line)), to_line[:, axis]) for axis in (0, 1)], axis=-1)
    along = np.clip((np.arange(count) - begin) / max(length, 1), 0.0, 1.0)
    # Quintic: curvature starts and ends at zero.
    share = (along**3 * (10 - 15 * along + 6 * along**2))[:, None]
    return np.asarray(from_line * (1 - share) + beside * share)
