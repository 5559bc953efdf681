"""Bodies fit their boxes, move what their pose says and nothing else, and point where they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.synthetic.bodies import body_in_box, body_in_world
from preprocessing.synthetic.materials import ELONGATION, REFLECTANCE, TRANSMISSION, VARIES, Material
from preprocessing.synthetic.mesh import box, ellipsoid, join, limb, rotation_z, wheel
from preprocessing.synthetic.world import BodyKind, World
from tests.preprocessing.synthetic.worlds import SIZES_M, small_world

SIZES = {
    BodyKind.CAR: [(3.8, 1.7, 1.4), (4.6, 1.95, 1.6), (5.5, 2.2, 2.0)],
    BodyKind.TRUCK: [(6.0, 2.2, 2.6), (12.0, 2.6, 3.9)],
    BodyKind.BUS: [(9.0, 2.5, 2.9), (13.0, 2.6, 3.4)],
    BodyKind.PEDESTRIAN: [(0.5, 0.5, 1.2), (0.8, 0.8, 1.75), (1.1, 0.9, 2.0), (0.6, 1.0, 1.6)],
    BodyKind.CYCLIST: [(1.5, 0.6, 1.5), (1.8, 0.8, 1.75), (2.1, 1.0, 1.95)],
}


def posed(kind: BodyKind, size: tuple[float, float, float], **yaws: float) -> World:
    world = small_world(3)
    actor = int(np.flatnonzero(world.kind == kind)[-1])
    sizes = world.size_m.copy()
    sizes[actor] = size
    fields = {name: np.full(world.heading_rad.shape, value) for name, value in yaws.items()}
    return replace(world, size_m=sizes, **fields)


def actor_of(world: World, kind: BodyKind) -> int:
    return int(np.flatnonzero(world.kind == kind)[-1])


@pytest.mark.parametrize(("kind", "size"), [(kind, size) for kind, sizes in SIZES.items() for size in sizes])
@settings(max_examples=12, deadline=None)
@given(head=st.floats(-1.6, 1.6), torso=st.floats(-1.6, 1.6), wheels=st.floats(-1.0, 1.0), gait=st.floats(0.0, 6.3))
def test_body_stays_inside_its_box_and_nearly_fills_it(
    kind: BodyKind, size: tuple[float, float, float], head: float, torso: float, wheels: float, gait: float
) -> None:
    world = posed(
        kind, size, head_yaw_rad=head, torso_yaw_rad=torso, front_wheel_yaw_rad=wheels, gait_phase_rad=gait
    )  # fmt: skip
    mesh = body_in_box(world, actor_of(world, kind), [0])
    low, high = mesh.vertices_m.min(axis=(0, 1)), mesh.vertices_m.max(axis=(0, 1))
    half = np.array(size) / 2
    assert (low >= -half - 0.01).all()
    assert (high <= half + 0.01).all()
    # On the ground, up to the top, and from end to end for what has a stiff frame.
    assert low[2] < -half[2] + 0.08
    assert high[2] > half[2] - 0.08
    if kind in (BodyKind.CAR, BodyKind.TRUCK, BodyKind.BUS):
        assert (high - low > 0.95 * np.array(size)).all()
    assert np.isfinite(mesh.vertices_m).all()


@pytest.mark.parametrize("kind", list(SIZES_M))
def test_faces_refer_to_vertices_and_have_known_materials(kind: BodyKind) -> None:
    world = small_world(4)
    mesh = body_in_box(world, actor_of(world, kind), range(4))
    assert mesh.faces.max() < mesh.vertices_m.shape[1]
    assert mesh.material.shape == (len(mesh.faces),)
    assert set(mesh.material.tolist()) <= {int(material) for material in Material}
    corners = mesh.vertices_m[0][mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    assert area.min() > 0


@pytest.mark.parametrize(
    ("kind", "yaw", "moves_above_m"),
    [
        (BodyKind.PEDESTRIAN, "head_yaw_rad", 0.55),
        (BodyKind.CYCLIST, "head_yaw_rad", 0.55),
    ],
)
def test_turning_the_head_moves_the_head_alone(kind: BodyKind, yaw: str, moves_above_m: float) -> None:
    size = SIZES_M[kind]
    straight = posed(kind, size, **{yaw: 0.0})
    turned = posed(kind, size, **{yaw: 0.8})
    actor = actor_of(straight, kind)
    before, after = (body_in_box(world, actor, [0]).vertices_m[0] for world in (straight, turned))
    moved = np.linalg.norm(after - before, axis=-1) > 1e-6
    assert moved.any()
    assert (before[moved, 2] > moves_above_m).all()
    # The foremost point of the head (the peak of its cap) goes to the left, as a positive yaw does.
    front = np.flatnonzero(moved)[np.argmax(before[moved, 0])]
    assert after[front, 1] > before[front, 1] + 0.03


@pytest.mark.parametrize("kind", [BodyKind.CAR, BodyKind.TRUCK, BodyKind.BUS, BodyKind.CYCLIST])
def test_steering_moves_the_front_only(kind: BodyKind) -> None:
    size = SIZES_M[kind]
    before, after = (
        body_in_box(world, actor_of(world, kind), [0]).vertices_m[0]
        for world in (posed(kind, size, front_wheel_yaw_rad=0.0), posed(kind, size, front_wheel_yaw_rad=0.4))
    )
    moved = np.linalg.norm(after - before, axis=-1) > 1e-6
    assert moved.any()
    assert (before[moved, 0] > 0).all()
    wheel_front = np.flatnonzero(moved)[np.argmax(before[moved, 0])]
    assert after[wheel_front, 1] > before[wheel_front, 1]


def test_torso_turns_without_the_legs() -> None:
    size = SIZES_M[BodyKind.PEDESTRIAN]
    before, after = (
        body_in_box(world, actor_of(world, BodyKind.PEDESTRIAN), [0]).vertices_m[0]
        for world in (posed(BodyKind.PEDESTRIAN, size, torso_yaw_rad=0.0), posed(BodyKind.PEDESTRIAN, size, torso_yaw_rad=0.6))
    )
    moved = np.linalg.norm(after - before, axis=-1) > 1e-6
    assert moved.mean() > 0.2
    assert (before[moved, 2] > -0.1 * size[2]).all()


def test_legs_swing_with_the_gait() -> None:
    world = small_world(30)
    actor = actor_of(world, BodyKind.PEDESTRIAN)
    feet = body_in_box(world, actor, range(30)).vertices_m
    low = feet[0, :, 2] < -0.4 * world.size_m[actor, 2]
    assert np.ptp(feet[:, low, 0], axis=0).max() > 0.3


def test_body_in_world_is_turned_and_put_at_the_track() -> None:
    world = small_world(5)
    for actor in range(len(world.kind)):
        local, placed = body_in_box(world, actor, [4]), body_in_world(world, actor, [4])
        yaw = world.heading_rad[actor, 4]
        offset = placed.vertices_m[0] - world.position_m[actor, 4]
        forward = offset[:, 0] * np.cos(yaw) + offset[:, 1] * np.sin(yaw)
        np.testing.assert_allclose(forward, local.vertices_m[0, :, 0], atol=1e-4)


def test_primitives_have_the_sizes_they_are_asked_for() -> None:
    np.testing.assert_allclose(np.ptp(box((2.0, 3.0, 4.0), Material.PAINT).vertices_m[0], axis=0), (2, 3, 4))
    np.testing.assert_allclose(np.abs(wheel().vertices_m[0]).max(axis=0), (1.0, 0.5, 1.0), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(ellipsoid(Material.SKIN).vertices_m[0], axis=1), 1.0, atol=1e-6)
    start, end = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.5, 2.0])
    vertices = limb(start, end, 0.1, Material.CLOTH).vertices_m[0]
    axis = (end - start) / np.linalg.norm(end - start)
    along = (vertices - start) @ axis
    across = np.linalg.norm(vertices - start - along[:, None] * axis, axis=1)
    np.testing.assert_allclose(across, 0.1, atol=1e-5)
    np.testing.assert_allclose([along.min(), along.max()], [0.0, np.linalg.norm(end - start)], atol=1e-5)


def test_joined_meshes_keep_what_stands_and_what_moves() -> None:
    cube = box((1.0, 1.0, 1.0), Material.METAL)
    both = join([cube, cube.moved(rotation_z([0.0, 0.5, 1.0]), [[2.0, 0, 0]] * 3)])
    assert both.vertices_m.shape == (3, 16, 3)
    assert (both.vertices_m[0, :8] == both.vertices_m[2, :8]).all()
    assert not np.allclose(both.vertices_m[0, 8:], both.vertices_m[2, 8:])
    assert both.faces.max() == 15


def test_every_material_has_its_properties() -> None:
    for table in (REFLECTANCE, TRANSMISSION, ELONGATION, VARIES):
        assert len(table) == len(Material)
    assert (REFLECTANCE > 0).all()
