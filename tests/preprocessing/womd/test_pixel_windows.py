"""Windows of pixels: every pixel in a box is in one, and a small box far away has small ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.womd.lidar import LaserScan
from preprocessing.womd.pixel_windows import Blocks, PixelWindows, block_windows, joined, pixels_in_windows
from preprocessing.womd.range_image import QuantisedImage, RangeImage, encode, open_image
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


def vehicle_points(scan: LaserScan, image: QuantisedImage) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and positions in the vehicle frame of all pixels that have a range."""
    rows, columns = np.nonzero(image.values[0] > 0)
    return rows, columns, scan.points(rows, columns, image.channel(0)[rows, columns])


def windows_of(scan: LaserScan, blocks: Blocks) -> PixelWindows:
    (windows,) = block_windows([scan], blocks)
    return windows


def block(center: np.ndarray, half_size: np.ndarray, heading_rad: float = 0.0) -> Blocks:
    return Blocks(center_m=center[None], half_size_m=half_size[None], heading_rad=np.array([heading_rad]))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    steepest_rad=st.sampled_from([0.3, 1.4, 1.9]),
    yaw_rad=st.sampled_from([0.7, 3.14159]),
    turn_rad=st.sampled_from([0.0, 0.15]),
    rolling=st.booleans(),
)
def test_no_pixel_in_a_box_is_left_out(seed: int, steepest_rad: float, yaw_rad: float, turn_rad: float, rolling: bool) -> None:
    scan, image = make_scan(seed, steepest_rad=steepest_rad, yaw_rad=yaw_rad, turn_rad=turn_rad, rolling=rolling)
    rows, columns, points = vehicle_points(scan, image)
    rng = np.random.default_rng(seed)
    # Boxes around points, steep ones above and below the laser among them, so that each holds something at its very edge.
    center = points[rng.integers(0, len(points), 12)] + rng.normal(0.0, 1.0, (12, 3))
    for one in center:
        heading, shape = rng.uniform(-3, 3), rng.uniform(0.2, 2.0, 3)
        x, y, z = (points - one).T
        turned = np.stack([np.cos(heading) * x + np.sin(heading) * y, np.cos(heading) * y - np.sin(heading) * x, z], axis=1)
        needed = (np.abs(turned) / shape).max(axis=1)
        size = np.sort(needed)[rng.integers(0, 4)] + 1e-9
        found = np.zeros(SHAPE, dtype=bool)
        found[pixels_in_windows(image, windows_of(scan, block(one, size * shape, heading)))] = True
        inside = needed <= size
        assert found[rows[inside], columns[inside]].all()


@pytest.mark.parametrize("yaw_rad", [0.7, np.pi], ids=["plain", "yaw wraps around"])
def test_few_pixels_are_looked_at_for_a_small_box_far_away(yaw_rad: float) -> None:
    scan, image = make_scan(3, steepest_rad=0.3, yaw_rad=yaw_rad)
    _, _, points = vehicle_points(scan, image)
    far = points[np.argmax(np.linalg.norm(points, axis=1))]
    rows, _ = pixels_in_windows(image, windows_of(scan, block(far, np.full(3, 0.7))))
    assert 1 <= rows.size < 0.05 * np.prod(SHAPE)


def test_beams_that_pass_below_a_box_are_not_looked_at() -> None:
    scan, image = make_scan(3, steepest_rad=0.3, rolling=False)
    scan = replace(scan, vehicle_from_laser=np.eye(4))
    box = block(np.array([10.0, 0.0, 1.0]), np.array([8.0, 5.0, 0.4]))
    rows, columns = pixels_in_windows(image, windows_of(scan, box))
    height = np.sin(scan.inclination_rad)[rows] * image.channel(0)[rows, columns]
    assert rows.size
    assert ((height > 0.55) & (height < 1.45)).all()


def test_boxes_together_have_the_pixels_of_each_alone() -> None:
    scan, image = make_scan(5)
    _, _, points = vehicle_points(scan, image)
    blocks = [block(one, np.full(3, size), size) for one, size in zip(points[:40:5], np.linspace(0.2, 4.0, 8), strict=True)]
    expected = np.zeros(SHAPE, dtype=bool)
    for one in blocks:
        expected[pixels_in_windows(image, windows_of(scan, one))] = True
    together = windows_of(scan, joined(blocks))
    np.testing.assert_array_equal(np.stack(pixels_in_windows(image, together)), np.stack(np.nonzero(expected)))
    assert block_windows([], joined(blocks)) == []
    nothing = Blocks(center_m=np.zeros((0, 3)), half_size_m=np.zeros((0, 3)), heading_rad=np.zeros(0))
    assert pixels_in_windows(image, windows_of(scan, nothing))[0].size == 0


@pytest.mark.parametrize("filled", [0.7, 0.01], ids=["many entries", "few entries"])
def test_an_image_that_is_not_laid_out_has_the_same_pixels_in_boxes(filled: float) -> None:
    scan, image = make_scan(5)
    values = np.where(np.random.default_rng(1).random(SHAPE) < filled, image.values, 0)
    values[0, :, 40:70] = 0  # columns without anything
    dense = QuantisedImage(values=values, precision=image.precision)
    packed: RangeImage = open_image(encode(dense.image(), image.precision.tolist()))
    rows, columns, points = vehicle_points(scan, dense)
    for one in points[:: max(len(points) // 8, 1)]:
        box = block(one, np.full(3, 1.5))
        found = {}
        for kind in (dense, packed):
            seen = np.zeros(SHAPE, dtype=bool)
            seen[pixels_in_windows(kind, windows_of(replace(scan, returns=(kind, None)), box))] = True
            found[type(kind).__name__] = seen[rows, columns]
        inside = (np.abs(points - one) <= 1.5).all(axis=1)
        assert inside.any()
        for each in found.values():
            assert each[inside].all()
