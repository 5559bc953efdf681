"""What lies along one arm of a junction: lanes, lines, curbs, a crosswalk, speed bumps and driveways."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from preprocessing.synthetic.network import (
    BROKEN_WHITE,
    BROKEN_YELLOW,
    DOUBLE_YELLOW,
    EDGE_BOUNDARY,
    SOLID_WHITE,
    Lane,
    RoadNetwork,
    Walkway,
)
from preprocessing.synthetic.road_geometry import Arm, bezier, join, rounded_box, unit
from preprocessing.synthetic.world import Float

DRIVEWAY_WIDTH_M = 5.0
DRIVEWAY_DEPTH_M = 9.0


class ArmLanes:
    """The lanes of one arm: car lanes counted from the middle of the road, and a bike lane each way."""

    def __init__(self, network: RoadNetwork, number: int, speed_mps: float) -> None:
        arm = network.arms[number]
        self.incoming = [_lane(network, number, lane, +1, speed_mps) for lane in range(arm.lanes_in)]
        self.outgoing = [_lane(network, number, lane, -1, speed_mps) for lane in range(arm.lanes_out)]
        self.bike_in = _lane(network, number, -1, +1, speed_mps)
        self.bike_out = _lane(network, number, -1, -1, speed_mps)
        for row in ([*self.incoming, self.bike_in], [*self.outgoing, self.bike_out]):
            # Counted from the middle, the next lane is to the right of whoever drives on it.
            for inner, outer in pairwise(row):
                inner.right.append(outer.id)
                outer.left.append(inner.id)


def _lane(network: RoadNetwork, number: int, lane: int, side: int, speed_mps: float) -> Lane:
    arm = network.arms[number]
    y = arm.bike_m(side) if lane < 0 else arm.lane_m(lane, side)
    ends = (arm.length_m, arm.inner_m) if side > 0 else (arm.inner_m, arm.length_m)
    return network.add_lane(
        arm.line(y, *ends),
        use="bike" if lane < 0 else "drive",
        turn="along",
        speed_mps=min(speed_mps, 6.0) if lane < 0 else speed_mps,
        arm=number,
        number=max(lane, 0),
        outgoing=side < 0,
    )


def paint_lines(network: RoadNetwork, number: int, lanes: ArmLanes) -> None:
    """Line between the directions, between lanes, and along the bike lanes; tells the lanes which bounds them."""
    arm = network.arms[number]
    single = arm.lanes_in == arm.lanes_out == 1
    middle = network.add_feature(
        "road_line", arm.line(0.0, arm.inner_m, arm.length_m), type=BROKEN_YELLOW if single else DOUBLE_YELLOW
    )
    for side, row, bike in ((+1, lanes.incoming, lanes.bike_in), (-1, lanes.outgoing, lanes.bike_out)):
        row[0].left_lines.append(middle)
        for place, (inner, outer) in enumerate(zip(row, [*row[1:], bike], strict=True)):
            last = place == len(row) - 1
            y = side * (place + 1) * arm.lane_width_m
            line = network.add_feature(
                "road_line", arm.line(y, arm.inner_m, arm.length_m), type=SOLID_WHITE if last else BROKEN_WHITE
            )
            inner.right_lines.append(line)
            outer.left_lines.append(line)


def draw_curb(network: RoadNetwork, first: int, second: int, lanes: dict[int, ArmLanes]) -> None:
    """The curb from the left side of arm `first` around the corner to the right side of arm `second`, open at driveways.

    It bounds the bike lanes that run along it, `first`'s incoming and `second`'s outgoing one.
    """
    one, two = network.arms[first], network.arms[second]
    corner = corner_line(network, first, second, one.corner_m, 0.0)
    approach = one.line(one.edge_in_m, one.length_m, one.corner_m)
    starts = [two.corner_m]
    stops: list[float] = []
    for x in sorted(x for arm, x in network.driveways if arm == second):
        stops.append(x - 0.5 * DRIVEWAY_WIDTH_M)
        starts.append(x + 0.5 * DRIVEWAY_WIDTH_M)
    stops.append(two.length_m)
    for place, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        piece = two.line(-two.edge_out_m, start, stop)
        curb = network.add_feature("road_edge", join(approach, corner, piece) if place == 0 else piece, type=EDGE_BOUNDARY)
        lanes[second].bike_out.right_lines.append(curb)
        if place == 0:
            lanes[first].bike_in.right_lines.append(curb)


def corner_line(network: RoadNetwork, first: int, second: int, x_m: float, outward_m: float) -> Float:
    """Points (n, 2) from the left side of arm `first` to the right side of arm `second`, `outward_m` outside the curb.

    It leaves and reaches the arms at x = `x_m` of their frames, and goes around the ring of a roundabout.
    """
    one, two = network.arms[first], network.arms[second]
    start, end = one.to_local(x_m, one.edge_in_m + outward_m), two.to_local(x_m, -two.edge_out_m - outward_m)
    if network.ring_m <= 0.0:
        return bezier(start, one.inward(), end, two.outward())
    radius = network.ring_m + outward_m
    opening = 0.62
    from_rad = one.angle_rad + opening
    to_rad = two.angle_rad - opening
    to_rad += 2 * np.pi * np.ceil((from_rad - to_rad) / (2 * np.pi))
    ring = rounded_box(from_rad, to_rad, radius, one.center_m)
    quarter = 0.5 * np.pi
    return join(
        bezier(start, one.inward(), ring[0], unit(from_rad + quarter)),
        ring,
        bezier(ring[-1], unit(to_rad + quarter), end, two.outward()),
    )


def add_crosswalk(network: RoadNetwork, number: int, x_m: float, junction: int, phase: int) -> None:
    """A crosswalk 3 m wide across the arm, from sidewalk to sidewalk."""
    arm = network.arms[number]
    far, near = arm.edge_in_m + 0.4, -arm.edge_out_m - 0.4
    network.add_feature(
        "crosswalk",
        np.stack([arm.to_local(x_m + dx, y) for dx, y in ((-1.5, near), (-1.5, far), (1.5, far), (1.5, near))]),
    )
    network.walkways.append(Walkway(arm=number, x_m=x_m, junction=junction, phase=phase))


def add_speed_bump(network: RoadNetwork, number: int, x_m: float) -> None:
    """A bump over the whole carriageway."""
    arm = network.arms[number]
    near, far = -arm.edge_out_m + 0.3, arm.edge_in_m - 0.3
    corners = ((-0.6, near), (-0.6, far), (0.6, far), (0.6, near))
    network.add_feature("speed_bump", np.stack([arm.to_local(x_m + dx, y) for dx, y in corners]))


def add_driveway(network: RoadNetwork, number: int, x_m: float) -> None:
    """An opening in the curb on the outgoing side, with a short lane that leaves the outer car lane to the right."""
    arm = network.arms[number]
    edge = -arm.edge_out_m
    half = 0.5 * DRIVEWAY_WIDTH_M
    corners = ((-half, edge), (half, edge), (half, edge - DRIVEWAY_DEPTH_M), (-half, edge - DRIVEWAY_DEPTH_M))
    network.add_feature("driveway", np.stack([arm.to_local(x_m + dx, y) for dx, y in corners]))
    network.driveways.append((number, x_m))
    # A driveway leaves its lane half way along: the lane graph knows no such link, so it stands alone there.
    network.add_lane(
        driveway_path(arm, x_m, arm.lane_m(arm.lanes_out - 1, -1)), use="driveway", turn="right", speed_mps=3.0, arm=number
    )


def driveway_path(arm: Arm, x_m: float, lane_y_m: float) -> Float:
    """Points (n, 2) from the lane at y = `lane_y_m` turning right into the driveway at `x_m`, to its far end."""
    reach = abs(-arm.edge_out_m - lane_y_m) + 2.0
    along = arm.to_local(x_m - reach, lane_y_m)
    heading = float(arm.heading(x_m))
    into = np.array([np.sin(heading), -np.cos(heading)])
    first = float(arm.heading(x_m - reach))
    mouth = arm.to_local(x_m, lane_y_m - reach)
    turn = bezier(along, np.array([np.cos(first), np.sin(first)]), mouth, into)
    return join(turn, np.stack([mouth, arm.to_local(x_m, -arm.edge_out_m - DRIVEWAY_DEPTH_M + 0.5)]))
