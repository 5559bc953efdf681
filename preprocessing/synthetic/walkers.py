"""Plans of pedestrians: along sidewalks, over crosswalks, around corners, into doors, turning around, stopping, starting."""

from __future__ import annotations

from typing import Literal

import numpy as np

from preprocessing.synthetic.arms import corner_line
from preprocessing.synthetic.network import OUTSKIRTS, RoadNetwork, Walkway
from preprocessing.synthetic.plans import NEVER_S, NOWHERE_M, Plan
from preprocessing.synthetic.road_geometry import SIDEWALK_OFFSET_M, arc_length, join
from preprocessing.synthetic.world import BodyKind, Float

Errand = Literal["along", "cross", "corner", "door", "around", "stop", "start", "stand"]
ERRANDS: dict[Errand, float] = {
    "along": 0.16, "cross": 0.26, "corner": 0.1, "door": 0.12, "around": 0.12, "stop": 0.08, "start": 0.1, "stand": 0.06,
}  # fmt: skip
CURRENT_S = 1.0
TURN_RADIUS_M = 0.55


def plan_walkers(network: RoadNetwork, rng: np.random.Generator, number: int, begin_s: float) -> list[Plan]:
    """`number` pedestrians; about half begin what they are up to within two seconds after the current step.

    `begin_s` is the time (s) at which the simulation starts, before the first recorded step.
    """
    names = list(ERRANDS)
    errands = rng.choice(len(names), size=number, p=np.array(list(ERRANDS.values())))
    plans = []
    for errand in errands:
        soon = rng.random() < 0.6
        at_s = CURRENT_S + float(rng.uniform(0.25, 1.95) if soon else rng.uniform(-3.0, 6.0))
        plans.append(_plan(network, rng, names[int(errand)], at_s, begin_s))
    return plans


def _plan(network: RoadNetwork, rng: np.random.Generator, errand: Errand, at_s: float, begin_s: float) -> Plan:
    """One pedestrian who begins `errand` at time `at_s`."""
    speed = float(np.clip(rng.normal(1.4, 0.2), 0.9, 1.9))
    side = int(rng.choice([-1, 1]))
    crossing = False
    if errand == "cross" and network.walkways:
        walkway = _walkway(network, rng)
        approach, after = _crossing(network, rng, walkway, side)
        crossing = True
        release = _walk_time(network, walkway, at_s)
        if release > at_s + 0.05:
            # The light says wait: whoever would have to wait long is already standing at the curb.
            return _waiting(rng, approach, after, release, begin_s)
    elif errand == "corner" and network.corners:
        approach, after = _around_corner(network, rng)
    else:
        approach, after = _on_sidewalk(network, rng, side, errand)
    line = join(approach, after)
    branch = float(arc_length(approach)[-1])
    start = branch - speed * (at_s - begin_s)
    stop_at, until, maneuver = NOWHERE_M, NEVER_S, "branch"
    if errand in ("along", "stand"):
        maneuver = "none"
    if errand in ("stop", "stand", "start"):
        # Braking from walking speed takes about its square in metres.
        stop_at = branch + speed**2 / 1.6 if errand == "stop" else branch
    if errand == "stop":
        maneuver = "stop"
    if errand in ("start", "stand"):
        start = branch
    if errand == "start":
        maneuver, until = "start", at_s
    return _make(rng, line, start, speed, maneuver, branch, stop_at, until, crossing)


def _make(
    rng: np.random.Generator,
    line: Float,
    start: float,
    speed: float,
    maneuver: str,
    branch: float,
    stop_at: float,
    until: float,
    crossing: bool,
) -> Plan:
    return Plan(
        kind=BodyKind.PEDESTRIAN,
        size_m=(float(rng.uniform(0.7, 1.0)), float(rng.uniform(0.65, 0.9)), float(rng.uniform(1.55, 1.92))),
        line_m=line,
        start_m=start,
        cruise_mps=speed,
        start_mps=0.0 if start == stop_at else speed,
        maneuver=maneuver,  # type: ignore[arg-type]
        branch_m=branch,
        hold_m=stop_at,
        hold_until_s=until,
        rounding_m=0.9,
        crossing=crossing,
    )


def _waiting(rng: np.random.Generator, approach: Float, after: Float, release_s: float, begin_s: float) -> Plan:
    """Someone at the curb until the light lets them go."""
    speed = float(np.clip(rng.normal(1.4, 0.2), 0.9, 1.9))
    # They face the road: the path begins with its last step towards the curb.
    toward = after[1] - after[0]
    line = join(after[:1] - 1.2 * toward / np.hypot(*toward), after)
    at = 1.2
    walked_up = release_s - begin_s > 6.0 and rng.random() < 0.5
    if walked_up:
        line = join(approach, after)
        at = float(arc_length(approach)[-1])
    arrival = float(rng.uniform(begin_s, min(release_s - 1.5, CURRENT_S + 2.0))) if walked_up else begin_s
    start = at - speed * (arrival - begin_s)
    return _make(rng, line, start, speed, "start", at, at, release_s, True)


def _walk_time(network: RoadNetwork, walkway: Walkway, at_s: float) -> float:
    """The first time from `at_s` on at which the light lets people go; without a light, that very time."""
    cycle = network.cycles.get(walkway.junction)
    if cycle is None:
        return at_s
    times = at_s + np.arange(0.0, cycle.period_s, 0.1)
    since = cycle.since_green_s(1 - walkway.phase, times)
    return float(times[int(np.argmax(since < 0.45 * cycle.green_s))])


def _spot(rng: np.random.Generator, side: int) -> float:
    """Where on the sidewalk someone walks, in metres from its middle, away from the road: people keep to the right."""
    return float(rng.uniform(0.2, 0.9)) * side


def _walkway(network: RoadNetwork, rng: np.random.Generator) -> Walkway:
    """A crosswalk at random, mostly in the middle of the scene."""
    weight = np.array([1.0 if walkway.junction == 0 else OUTSKIRTS for walkway in network.walkways])
    return network.walkways[int(rng.choice(len(weight), p=weight / weight.sum()))]


def _crossing(network: RoadNetwork, rng: np.random.Generator, walkway: Walkway, side: int) -> tuple[Float, Float]:
    """Along the sidewalk to the crosswalk, and over it and on."""
    arm = network.arms[walkway.arm]
    near, far = arm.sidewalk_m(side), arm.sidewalk_m(-side)
    near += _spot(rng, 1) * 0.6
    x = walkway.x_m + float(rng.uniform(-0.9, 0.9))
    inward = rng.random() < 0.6
    approach = arm.line(near, x + (25.0 if inward else -6.0), x)
    leave = arm.line(far, x, x + (25.0 if rng.random() < 0.5 else -2.0))
    return approach, join(np.stack([arm.to_local(x, near), arm.to_local(x, far)]), leave)


def _around_corner(network: RoadNetwork, rng: np.random.Generator) -> tuple[Float, Float]:
    """Along one arm's sidewalk, around the corner, along the next arm's."""
    first = network.draw_arm(rng)
    second = network.corners[first]
    one, two = network.arms[first], network.arms[second]
    x = max(one.crosswalk_m, two.crosswalk_m) + 1.0
    outside = SIDEWALK_OFFSET_M + float(rng.uniform(-0.8, 0.8))
    turn = corner_line(network, first, second, x, outside)
    approach = one.line(one.edge_in_m + outside, x + 22.0, x)
    leave = two.line(-two.edge_out_m - outside, x, x + 22.0)
    if rng.random() < 0.5:
        approach, turn, leave = leave[::-1], turn[::-1], approach[::-1]
    return approach, join(turn, leave)


def _on_sidewalk(network: RoadNetwork, rng: np.random.Generator, side: int, errand: Errand) -> tuple[Float, Float]:
    """Along one arm; then straight on, to a door, or back."""
    arm = network.arms[network.draw_arm(rng)]
    outward = bool(rng.random() < 0.5)
    sign = 1.0 if outward else -1.0
    x = float(rng.uniform(arm.crosswalk_m + 8.0, min(arm.inner_m + 32.0, arm.length_m - 15.0)))
    y = arm.sidewalk_m(side) + _spot(rng, -side if outward == (side > 0) else side)
    approach = arm.line(y, x - sign * 25.0, x)
    if errand == "door":
        door = arm.to_local(x + sign * 0.3, y + side * float(rng.uniform(8.0, 12.0)))
        return approach, np.stack([arm.to_local(x, y), door])
    if errand == "around":
        # A half turn to either hand, always drawn in the walker's own frame.
        hand = float(rng.choice([-1.0, 1.0]))
        angle = np.linspace(0.0, np.pi, 12)
        turn = arm.to_local(x + sign * TURN_RADIUS_M * np.sin(angle), y + sign * hand * TURN_RADIUS_M * (1 - np.cos(angle)))
        back = arm.line(y + sign * hand * 2 * TURN_RADIUS_M, x, x - sign * 25.0)
        return approach, join(turn, back)
    return approach, arm.line(y, x, x + sign * 25.0)
