"""Plane curves of the simulated roads: resampling, turns, smoothing, and the frame of a road arm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocessing.synthetic.world import Float

MAP_SPACING_M = 0.5
BIKE_LANE_M = 1.8
PARKING_M = 2.4
SIDEWALK_OFFSET_M = 2.0


def unit(angle_rad: float) -> Float:
    """(2,) unit vector at `angle_rad`."""
    return np.array([np.cos(angle_rad), np.sin(angle_rad)])


def arc_length(points: Float) -> Float:
    """(n,) distance from the first point along a polyline (n, 2)."""
    return np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))))


def resample(points: Float, spacing_m: float, *, keep_end: bool = True) -> Float:
    """Points (m, 2) at even steps of `spacing_m` along a polyline (n, 2).

    With `keep_end` the step is stretched so that the last point stays; without it what is left over at the end is cut off.
    """
    along = arc_length(points)
    total = float(along[-1])
    if keep_end:
        at = np.linspace(0.0, total, max(2, round(total / spacing_m) + 1))
    else:
        at = spacing_m * np.arange(0.0, max(2, int(total / spacing_m) + 1))
    return np.stack([np.interp(at, along, points[:, 0]), np.interp(at, along, points[:, 1])], axis=-1)


def bezier(start: Float, start_direction: Float, end: Float, end_direction: Float, handle: float = 0.39) -> Float:
    """A smooth turn (n, 2) between two points (2,) with given unit directions (2,); `handle` is in chord lengths.

    0.39 makes a quarter turn almost a circle.
    """
    chord = float(np.hypot(*(end - start)))
    control = np.stack([start, start + handle * chord * start_direction, end - handle * chord * end_direction, end])
    t = np.linspace(0.0, 1.0, max(4, int(chord / 0.2)))[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
    return np.asarray(weights @ control)


def join(*pieces: Float) -> Float:
    """One polyline (n, 2) from consecutive ones, with points that coincide merged."""
    points = np.concatenate(pieces)
    keep = np.concatenate(([True], np.hypot(*np.diff(points, axis=0).T) > 1e-6))
    return points[keep]


def smooth(points: Float, spacing_m: float, window_m: float) -> Float:
    """Round the corners of evenly spaced points (n, 2): two passes of a moving average over `window_m`; the ends stay."""
    half = int(0.5 * window_m / spacing_m)
    for _ in range(2):
        if half < 1 or len(points) < 3:
            break
        # Reflected through the end points, so that a straight end is left as it is.
        before = 2 * points[0] - points[half:0:-1]
        after = 2 * points[-1] - points[-2 : -half - 2 : -1]
        padded = np.concatenate([before, points, after])
        total = np.concatenate([np.zeros((1, 2)), np.cumsum(padded, axis=0)])
        width = len(padded) - len(points) + 1
        points = (total[width:] - total[:-width]) / width
    return points


def rounded_box(half_angle_from: float, half_angle_to: float, radius_m: float, center: Float) -> Float:
    """Points (n, 2) of an arc around `center` between two angles (rad), every 0.2 m."""
    count = max(3, int(abs(half_angle_to - half_angle_from) * radius_m / 0.2))
    angle = np.linspace(half_angle_from, half_angle_to, count)
    return center + radius_m * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A road leaving a junction: x runs outward along its centre line, y to the left of that.

    Traffic keeps right: lanes that leave the junction lie at y < 0, lanes that come in at y > 0. From the middle outwards:
    car lanes, a bike lane, an optional row of parked cars, the curb, the sidewalk. Behind `inner_m` the arm may bend.
    """

    center_m: Float
    angle_rad: float
    curvature: float
    corner_m: float
    """x where the rounded corner of the curb ends and the straight curb begins"""
    inner_m: float
    """x of the stop line"""
    length_m: float
    lanes_in: int
    lanes_out: int
    lane_width_m: float
    parking_in: bool
    parking_out: bool

    @property
    def crosswalk_m(self) -> float:
        """x of the middle of the crosswalk."""
        return self.corner_m + 2.0

    @property
    def edge_in_m(self) -> float:
        """y of the curb on the incoming side."""
        return self.lanes_in * self.lane_width_m + BIKE_LANE_M + PARKING_M * self.parking_in

    @property
    def edge_out_m(self) -> float:
        """Distance of the curb on the outgoing side (its y is negative)."""
        return self.lanes_out * self.lane_width_m + BIKE_LANE_M + PARKING_M * self.parking_out

    def edge_m(self, side: int) -> float:
        """Signed y of the curb: side +1 incoming, -1 outgoing."""
        return self.edge_in_m if side > 0 else -self.edge_out_m

    def sidewalk_m(self, side: int) -> float:
        """Signed y of the middle of the sidewalk."""
        return self.edge_m(side) + side * SIDEWALK_OFFSET_M

    def lane_m(self, number: int, side: int) -> float:
        """Signed y of the centre of car lane `number`, counted from the middle of the road."""
        return side * (number + 0.5) * self.lane_width_m

    def bike_m(self, side: int) -> float:
        """Signed y of the middle of the bike lane."""
        lanes = self.lanes_in if side > 0 else self.lanes_out
        return side * (lanes * self.lane_width_m + 0.5 * BIKE_LANE_M)

    def parking_m(self, side: int) -> float:
        """Signed y of the middle of the row of parked cars."""
        return self.edge_m(side) - side * 0.5 * PARKING_M

    def heading(self, x: Float | float) -> Float:
        """Direction (rad) of the outward axis at `x`."""
        return np.asarray(self.angle_rad + self.curvature * np.maximum(np.asarray(x) - self.inner_m, 0.0))

    def to_local(self, x: Float | float, y: Float | float) -> Float:
        """Points (..., 2) of the world's local frame at arm coordinates x and y (broadcast)."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        beyond = np.maximum(x - self.inner_m, 0.0)
        bend = self.curvature * beyond
        straight = x - beyond
        # The chord of a circular arc; sinc keeps it defined for a straight road.
        chord = beyond * np.sinc(0.5 * bend / np.pi)
        axis, middle, end = self.angle_rad, self.angle_rad + 0.5 * bend, self.angle_rad + bend
        east = straight * np.cos(axis) + chord * np.cos(middle) - y * np.sin(end)
        north = straight * np.sin(axis) + chord * np.sin(middle) + y * np.cos(end)
        return np.stack([east, north], axis=-1) + self.center_m

    def line(self, y: Float | float, x_from: float, x_to: float, spacing_m: float = MAP_SPACING_M) -> Float:
        """Points (n, 2) at constant y (or with one y per point) from `x_from` to `x_to`, whichever way that is."""
        count = max(2, round(abs(x_to - x_from) / spacing_m) + 1)
        return self.to_local(np.linspace(x_from, x_to, count), y)

    def inward(self) -> Float:
        """(2,) direction of incoming traffic at the stop line."""
        return -unit(self.angle_rad)

    def outward(self) -> Float:
        """(2,) direction of outgoing traffic at the stop line."""
        return unit(self.angle_rad)
