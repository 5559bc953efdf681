"""Bodies of pedestrians and cyclists, whose head, torso and front wheel may point elsewhere than their path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from preprocessing.synthetic.materials import Material
from preprocessing.synthetic.mesh import Float as Vertices
from preprocessing.synthetic.mesh import Mesh, box, ellipsoid, join, limb, rotation_y, rotation_z, wheel

Float = npt.NDArray[np.float64]

_PLAY_M = 0.01


def _head(radius_m: float, height_m: float) -> Mesh:
    """A head about its own centre, looking along x: face, nose and the peak of a cap make its direction visible."""
    return join(
        [
            ellipsoid(Material.SKIN).scaled((radius_m, 0.82 * radius_m, height_m / 2)),
            box((0.45 * radius_m, 0.30 * radius_m, 0.25 * height_m), Material.SKIN).moved(None, (1.05 * radius_m, 0.0, 0.0)),
            box((0.9 * radius_m, 1.3 * radius_m, 0.06 * height_m), Material.CLOTH).moved(
                None, (1.15 * radius_m, 0.0, 0.22 * height_m)
            ),
        ]
    )


def _columns(*values: npt.ArrayLike) -> Float:
    """Coordinates, each one number or (T,), as (T, 3)."""
    return np.stack(np.broadcast_arrays(*[np.atleast_1d(np.asarray(value, np.float64)) for value in values]), axis=-1)


def pedestrian_body(size_m: Sequence[float], *, head_yaw_rad: Float, torso_yaw_rad: Float, gait_phase_rad: Float) -> Mesh:
    """A walker in the box frame: x forward, origin at the box centre.

    Args:
        size_m: length, width, height of the track's box.
        head_yaw_rad: (T,) head against the walking direction.
        torso_yaw_rad: (T,) shoulders against the walking direction.
        gait_phase_rad: (T,) legs and arms swing with its sine.
    """
    length, width, height = (float(value) for value in size_m)
    ground = -height / 2
    # Shoulders turn, so that they have to fit the box the short way.
    reach = min(length, width, 0.75) / 2 - _PLAY_M
    hip, shoulder, head_height = ground + 0.50 * height, ground + 0.81 * height, 0.145 * height
    head_radius = min(0.115, 0.48 * reach)
    swing = np.sin(gait_phase_rad)
    torso_turn = rotation_z(torso_yaw_rad)
    parts = [
        _head(head_radius, head_height)
        .moved(rotation_z(head_yaw_rad))
        .moved(None, (0.0, 0.0, height / 2 - head_height / 2 - _PLAY_M)),
        limb((0, 0, shoulder), (0, 0, shoulder + 0.06 * height), 0.45 * head_radius, Material.SKIN),
        # Wide shoulders, flat chest, and a bag on the back: the direction of the torso shows from every side.
        ellipsoid(Material.CLOTH)
        .scaled((0.36 * reach, 0.72 * reach, 0.19 * height))
        .moved(torso_turn, (0, 0, hip + 0.16 * height)),
        box((0.28 * reach, 0.7 * reach, 0.16 * height), Material.CLOTH)
        .moved(None, (-0.42 * reach, 0.0, 0.0))
        .moved(torso_turn, (0.0, 0.0, hip + 0.20 * height)),
    ]  # fmt: skip
    stride = 0.85 * (length / 2 - 0.09)
    for side in (-1.0, 1.0):
        foot = _columns(side * swing * stride, side * 0.24 * reach, ground + 0.055 + 0.04 * np.maximum(side * swing, 0))
        top = np.array([0.0, side * 0.24 * reach, hip + 0.02])
        knee = (foot + top) / 2 + _columns(0.05 * (1 + np.abs(swing)) * min(1.0, length), 0.0, 0.0)
        parts += [
            limb(top, knee, 0.19 * reach, Material.CLOTH),
            limb(knee, foot, 0.15 * reach, Material.CLOTH),
            box((min(0.22, 0.24 * length), 0.09, 0.07), Material.RUBBER).moved(None, foot + np.array([0.0, 0.0, -0.015])),
        ]
        hand = _columns(-side * swing * 0.5 * reach, side * 0.78 * reach, hip - 0.01 * height)
        arm = limb((0.0, side * 0.76 * reach, shoulder - 0.05), hand, 0.14 * reach, Material.CLOTH)
        parts.append(arm.moved(torso_turn))
    return join(parts)


def cyclist_body(
    size_m: Sequence[float],
    *,
    head_yaw_rad: Float,
    front_wheel_yaw_rad: Float,
    pedal_phase_rad: Float,
) -> Mesh:
    """A rider on a bicycle in the box frame: x forward, origin at the box centre.

    Wheels are closed discs: a real one lets most beams through between its spokes.

    Args:
        size_m: length, width, height of the track's box.
        head_yaw_rad: (T,) head against the riding direction.
        front_wheel_yaw_rad: (T,) front wheel, fork and handlebar.
        pedal_phase_rad: (T,) angle of the cranks.
    """
    length, width, height = (float(value) for value in size_m)
    ground, half, side = -height / 2, length / 2 - _PLAY_M, width / 2 - _PLAY_M
    radius = min(0.34, 0.2 * length, 0.2 * height)
    hub = (half - radius, ground + radius)
    turn = rotation_z(front_wheel_yaw_rad)
    tyre = wheel().scaled((radius, 0.05, radius))
    crank, bar = np.array([-0.03 * length, 0.0, ground + 0.85 * radius]), ground + 0.58 * height
    hip = np.array([-0.16 * length, 0.0, ground + 0.55 * height])
    saddle = hip - np.array([0.0, 0.0, 0.05 * height])
    stem = hub[0] - 0.07 * length
    handlebar_half = min(0.27, 0.85 * side)
    steered = join(
        [
            tyre.moved(None, (0.0, 0.0, hub[1])),
            limb((0.0, 0.0, hub[1]), (stem - hub[0], 0.0, bar), 0.03, Material.METAL),
            box((0.05, 2 * handlebar_half, 0.05), Material.METAL).moved(None, (stem - hub[0], 0.0, bar)),
        ]
    )
    metal = Material.METAL
    parts = [
        steered.moved(turn, (hub[0], 0.0, 0.0)),
        tyre.moved(None, (-hub[0], 0.0, hub[1])),
        limb(crank, (stem, 0, bar - 0.08), 0.025, metal),
        limb(crank, saddle, 0.025, metal),
        limb(saddle, (stem, 0, bar - 0.06), 0.025, metal),
        limb(crank, (-hub[0], 0, hub[1]), 0.025, metal),
        box((0.12 * length, 0.14, 0.04), Material.RUBBER).moved(None, saddle),
    ]
    return join([*parts, *_rider(size_m, hip, crank, turn, (hub[0], stem, bar, handlebar_half), head_yaw_rad, pedal_phase_rad)])


def _rider(
    size_m: Sequence[float],
    hip: Float,
    crank: Float,
    turn: Vertices,
    bar: tuple[float, float, float, float],
    head_yaw: Float,
    phase: Float,
) -> list[Mesh]:
    """Leaning torso, head, arms that follow the handlebar and legs that follow the pedals."""
    length, width, height = (float(value) for value in size_m)
    head_height = 0.14 * height
    head = np.array([0.12 * length, 0.0, height / 2 - head_height / 2 - _PLAY_M])
    shoulder = np.array([0.09 * length, 0.0, head[2] - 0.65 * head_height])
    breadth = min(0.21, 0.4 * width)
    trunk = shoulder - hip
    lean = float(np.arctan2(trunk[0], trunk[2]))
    parts = [
        _head(min(0.12, 0.22 * width), head_height).moved(rotation_z(head_yaw), head),
        ellipsoid(Material.CLOTH)
        .scaled((0.13, breadth, 0.5 * float(np.hypot(trunk[0], trunk[2]))))
        .moved(rotation_y(lean), (hip + shoulder) / 2),
    ]
    axis, stem, level, reach = bar
    for side in (-1.0, 1.0):
        grip = np.array([stem - axis, side * reach * 0.9, level + 0.03])
        hand = (turn.astype(np.float64) @ grip) + np.array([axis, 0.0, 0.0])
        parts.append(limb(shoulder + np.array([0.0, side * breadth * 0.85, 0.0]), hand, 0.045, Material.CLOTH))
        angle = phase + (0.0 if side < 0 else np.pi)
        pedal = _columns(crank[0] + 0.16 * np.cos(angle), side * 0.12, crank[2] - 0.16 * np.sin(angle))
        top = hip + np.array([0.0, side * 0.09, 0.0])
        knee = (pedal + top) / 2 + _columns(0.13 * length, 0.0, 0.04 * height)
        parts += [limb(top, knee, 0.07, Material.CLOTH), limb(knee, pedal, 0.055, Material.CLOTH)]
    return parts
