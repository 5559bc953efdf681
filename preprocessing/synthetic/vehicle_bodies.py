"""Bodies of cars, trucks and buses: convex prisms with wheels in open arches, so that steering shows from the side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from preprocessing.synthetic.materials import Material
from preprocessing.synthetic.mesh import Mesh, box, join, prism, rotation_z, wheel

Float = npt.NDArray[np.float64]

MAX_STEER_RAD = 0.6
_PLAY_M = 0.01  # between the widest part and the track's box


def car_body(size_m: Sequence[float], front_wheel_yaw_rad: Float) -> Mesh:
    """A saloon in its box frame: x forward, origin at the box centre.

    Args:
        size_m: length, width, height.
        front_wheel_yaw_rad: (T,) steering, cut at `MAX_STEER_RAD`.
    """
    length, width, height = (float(value) for value in size_m)
    half, side = length / 2 - _PLAY_M, width / 2 - _PLAY_M
    radius = min(0.33, 0.24 * height, 0.08 * length)
    floor, belt = -height / 2 + 0.6 * radius, -height / 2 + 0.56 * height
    arch = -height / 2 + 2.15 * radius
    top = height / 2 - _PLAY_M
    axles = (half - 0.19 * length, -half + 0.20 * length)
    hood = belt - 0.10 * height
    parts = [
        *_lower_blocks(half, side, floor, arch, axles, radius),
        # Above the arches: bonnet falling to the front, boot to the rear.
        prism(
            [(-half, arch), (half, arch), (half, hood), (0.22 * length, belt), (-0.36 * length, belt), (-half, belt - 0.05)],
            side,
            edges=Material.PAINT,
            sides=Material.PAINT,
        ),
        prism(
            [(0.22 * length, belt), (0.04 * length, top), (-0.25 * length, top), (-0.38 * length, belt)],
            [side * 0.95, side * 0.74, side * 0.74, side * 0.95],
            edges=[Material.GLASS, Material.PAINT, Material.GLASS, Material.PAINT],
            sides=Material.GLASS,
        ),
        *_lamps_and_plates(half, side, floor + 0.25 * height, width),
    ]
    return join(parts + _wheels(axles, radius, 0.21, width, height, front_wheel_yaw_rad))


def bus_body(size_m: Sequence[float], front_wheel_yaw_rad: Float) -> Mesh:
    """A bus in its box frame: one tall body with a band of windows."""
    length, width, height = (float(value) for value in size_m)
    half, side, top = length / 2 - _PLAY_M, width / 2 - _PLAY_M, height / 2 - _PLAY_M
    radius = min(0.5, 0.18 * height)
    floor, arch = -height / 2 + 0.6 * radius, -height / 2 + 2.15 * radius
    low, high = -0.08 * height, 0.28 * height
    axles = (half - 0.22 * length, -half + 0.25 * length)
    parts = _lower_blocks(half, side, floor, arch, axles, radius)
    for bottom, upper, material in ((arch, low, Material.PAINT), (low, high, Material.GLASS), (high, top, Material.PAINT)):
        parts.append(box((2 * half, 2 * side, upper - bottom), material).moved(None, (0.0, 0.0, (bottom + upper) / 2)))
    parts += _lamps_and_plates(half, side, floor + 0.2, width)
    return join(parts + _wheels(axles, radius, 0.3, width, height, front_wheel_yaw_rad))


def truck_body(size_m: Sequence[float], front_wheel_yaw_rad: Float) -> Mesh:
    """A box truck in its box frame: a cab, a gap and a higher load."""
    length, width, height = (float(value) for value in size_m)
    half, side, top = length / 2 - _PLAY_M, width / 2 - _PLAY_M, height / 2 - _PLAY_M
    radius = min(0.48, 0.18 * height)
    floor, deck = -height / 2 + 0.7 * radius, -height / 2 + 2.15 * radius
    axles = (half - 0.14 * length, -half + 0.2 * length)
    back_of_cab, roof = half - 0.28 * length, 0.30 * height
    window = 0.02 * height
    load = back_of_cab - 0.03 * length
    parts = [
        *_lower_blocks(half, side * 0.96, floor, deck, axles, radius),
        prism(
            [(back_of_cab, deck), (half, deck), (half, window), (back_of_cab, window)],
            side * 0.94,
            edges=Material.PAINT,
            sides=Material.PAINT,
        ),
        prism(
            [(back_of_cab, window), (half, window), (half - 0.05 * length, roof), (back_of_cab, roof)],
            side * 0.92,
            edges=[Material.PAINT, Material.GLASS, Material.PAINT, Material.PAINT],
            sides=Material.GLASS,
        ),
        box((load + half, 2 * side, top - deck), Material.PAINT).moved(None, ((load - half) / 2, 0.0, (top + deck) / 2)),
        *_lamps_and_plates(half, side, floor + 0.2, width),
    ]
    return join(parts + _wheels(axles, radius, 0.3, width, height, front_wheel_yaw_rad))


def _lower_blocks(half: float, side: float, floor: float, arch: float, axles: tuple[float, float], radius: float) -> list[Mesh]:
    """Bumpers and sill: what is between the wheel arches below their upper edge."""
    gap = 1.12 * radius
    edges = [(axles[0] + gap, half), (axles[1] + gap, axles[0] - gap), (-half, axles[1] - gap)]
    return [
        box((end - start, 2 * side, arch - floor), Material.PAINT).moved(None, ((start + end) / 2, 0.0, (floor + arch) / 2))
        for start, end in edges
        if end - start > 0.02
    ]


def _lamps_and_plates(half: float, side: float, level: float, width: float) -> list[Mesh]:
    """Licence plates and rear lamps: the bright spots that LiDARs see on vehicles."""
    plate, lamp = (0.02, 0.25 * width, 0.11), (0.02, 0.10 * width, 0.10)
    thin = half - 0.005
    parts = [box(plate, Material.REFLECTOR).moved(None, (x, 0.0, level)) for x in (thin, -thin)]
    return parts + [
        box(lamp, Material.REFLECTOR).moved(None, (-thin, sign * (side - 0.08 * width), level + 0.2)) for sign in (-1, 1)
    ]


def _wheels(
    axles: tuple[float, float], radius: float, tyre: float, width: float, height: float, steer_rad: Float
) -> list[Mesh]:
    """Four wheels; the front ones turn, moving inwards as they do so that they never leave the box."""
    steer = np.clip(steer_rad, -MAX_STEER_RAD, MAX_STEER_RAD)
    shape = wheel().scaled((radius, tyre, radius))
    level = -height / 2 + radius
    reach = radius * np.abs(np.sin(steer)) + tyre / 2 * np.cos(steer)
    parts = []
    for sign in (-1.0, 1.0):
        front = np.stack([np.full_like(steer, axles[0]), sign * (width / 2 - _PLAY_M - reach), np.full_like(steer, level)], -1)
        parts.append(shape.moved(rotation_z(steer), front))
        parts.append(shape.moved(None, (axles[1], sign * (width / 2 - _PLAY_M - tyre / 2), level)))
    return parts
