"""Windows of pixels: every pixel in a sphere is in one, and a small sphere far away has small ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.womd.lidar import LaserScan
from preprocessing.womd.pixel_windows import pixels_in_windows, sphere_windows
from preprocessing.womd.range_image import QuantisedImage
from tests.preprocessing.womd.laser_records import matrix

SHAPE = (30, 120)
POSE_UNITS = np.array([1e-6] * 3 + [1e-4] * 3)


def make_scan(
    seed: int, *, steepest_rad: float = 1.4, yaw_rad: float = 0.7, turn_rad: float = 0.1, rolling: bool = True
) -> tuple[LaserScan, QuantisedImage]:
    """A laser at any angle on a vehicle that moves 3 m and turns by `turn_rad` during the scan; ranges of all lengths."""
    rng = np.random.default_rng(seed)
    values = np.stack([rng.integers(-3, 6000, SHAPE), *rng.integers(1, 99, (2, *SHAPE))])
    values[:, rng.random(SHAPE) < 0.2] = 0
    image = QuantisedImage(values=values, precision=np.array([0.005, 0.01, 0.01]))
    vehicle = np.array([0.02, -0.03, yaw_rad, -7785.0, 6398.0, 20.0])
    poses = np.repeat(vehicle[None], SHAPE[1], axis=0)
    moment = np.linspace(-0.5, 0.5, SHAPE[1])
    poses[:, 2] += turn_rad * moment
    poses[:, 2] = np.arctan2(np.sin(poses[:, 2]), np.cos(poses[:, 2]))
    poses[:, 3] += 3.0 * moment
    steps = np.rint(poses / POSE_UNITS).astype(np.int64).T
    scan = LaserScan(
        name=1 if rolling else 2,
        returns=(image, None),
        vehicle_from_laser=matrix(np.array([*rng.uniform(-0.2, 0.2, 2), rng.uniform(-3, 3), 1.0, 0.3, 2.0])),
        inclination_rad=np.linspace(steepest_rad, -steepest_rad, SHAPE[0]),
        azimuth_rad=np.linspace(3.1, -3.1, SHAPE[1]) - rng.uniform(-3, 3),
        pixel_poses=(
            QuantisedImage(values=np.repeat(steps[:, None], SHAPE[0], axis=1), precision=POSE_UNITS) if rolling else None
        ),
        vehicle_from_world=np.linalg.inv(matrix(vehicle)),
    )
    return scan, image


def world_points(scan: LaserScan, image: QuantisedImage) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and world positions of all pixels that have a range."""
    rows, columns = np.nonzero(image.values[0] > 0)
    points = scan.points(rows, columns, image.channel(0)[rows, columns])
    world_from_vehicle = np.linalg.inv(scan.vehicle_from_world)
    return rows, columns, points @ world_from_vehicle[:3, :3].T + world_from_vehicle[:3, 3]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    steepest_rad=st.sampled_from([0.3, 1.4, 1.9]),
    yaw_rad=st.sampled_from([0.7, 3.14159]),
    turn_rad=st.sampled_from([0.0, 0.15]),
    rolling=st.booleans(),
)
def test_no_pixel_in_a_sphere_is_left_out(
    seed: int, steepest_rad: float, yaw_rad: float, turn_rad: float, rolling: bool
) -> None:
    scan, image = make_scan(seed, steepest_rad=steepest_rad, yaw_rad=yaw_rad, turn_rad=turn_rad, rolling=rolling)
    rows, columns, points = world_points(scan, image)
    rng = np.random.default_rng(seed)
    # Spheres around points, steep ones above and below the laser among them, so that each holds something at its very edge.
    center = points[rng.integers(0, len(points), 12)] + rng.normal(0.0, 1.0, (12, 3))
    for one in center:
        distance = np.linalg.norm(points - one, axis=1)
        radius = np.sort(distance)[rng.integers(0, 4)] + 1e-9
        found = np.zeros(SHAPE, dtype=bool)
        found[pixels_in_windows(image, sphere_windows(scan, one[None], np.array([radius])))] = True
        inside = distance <= radius
        assert found[rows[inside], columns[inside]].all()


@pytest.mark.parametrize("yaw_rad", [0.7, np.pi], ids=["plain", "yaw wraps around"])
def test_few_pixels_are_looked_at_for_a_small_sphere_far_away(yaw_rad: float) -> None:
    scan, image = make_scan(3, steepest_rad=0.3, yaw_rad=yaw_rad)
    _, _, points = world_points(scan, image)
    far = points[np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1))]
    rows, _ = pixels_in_windows(image, sphere_windows(scan, far[None], np.array([1.0])))
    assert 1 <= rows.size < 0.05 * np.prod(SHAPE)


def test_spheres_together_have_the_pixels_of_each_alone() -> None:
    scan, image = make_scan(5)
    _, _, points = world_points(scan, image)
    center, radius = points[:40:5], np.linspace(0.2, 4.0, 8)
    expected = np.zeros(SHAPE, dtype=bool)
    for one, size in zip(center, radius, strict=True):
        expected[pixels_in_windows(image, sphere_windows(scan, one[None], size[None]))] = True
    found = pixels_in_windows(image, sphere_windows(scan, center, radius))
    np.testing.assert_array_equal(np.stack(found), np.stack(np.nonzero(expected)))
    assert sphere_windows(scan, center[:0], radius[:0]) == []
