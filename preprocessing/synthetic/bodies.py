"""The mesh of every actor, posed at the wanted steps in the world."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from preprocessing.synthetic.mesh import Mesh, rotation_z
from preprocessing.synthetic.people_bodies import cyclist_body, pedestrian_body
from preprocessing.synthetic.vehicle_bodies import bus_body, car_body, truck_body
from preprocessing.synthetic.world import BodyKind, World


def body_in_box(world: World, actor: int, steps: Sequence[int]) -> Mesh:
    """The actor's body in its box frame (x forward, origin at the box centre) at `steps`; T of the mesh is their number."""
    rows = np.asarray(steps, np.int64)
    size = world.size_m[actor]
    kind = BodyKind(int(world.kind[actor]))
    wheels = world.front_wheel_yaw_rad[actor, rows]
    if kind is BodyKind.PEDESTRIAN:
        return pedestrian_body(
            size,
            head_yaw_rad=world.head_yaw_rad[actor, rows],
            torso_yaw_rad=world.torso_yaw_rad[actor, rows],
            gait_phase_rad=world.gait_phase_rad[actor, rows],
        )
    if kind is BodyKind.CYCLIST:
        return cyclist_body(
            size,
            head_yaw_rad=world.head_yaw_rad[actor, rows],
            front_wheel_yaw_rad=wheels,
            pedal_phase_rad=world.gait_phase_rad[actor, rows],
        )
    build = {BodyKind.CAR: car_body, BodyKind.TRUCK: truck_body, BodyKind.BUS: bus_body}[kind]
    return build(size, wheels)


def body_in_world(world: World, actor: int, steps: Sequence[int]) -> Mesh:
    """The actor's body in the world's local frame at `steps`."""
    rows = np.asarray(steps, np.int64)
    body = body_in_box(world, actor, steps)
    return body.moved(rotation_z(world.heading_rad[actor, rows]), world.position_m[actor, rows])
