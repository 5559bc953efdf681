from __future__ import annotations

import numpy as np
import pytest

from preprocessing.womd.boxes import TrackBoxes
from preprocessing.womd.crops import CropConfig, crop_lidar
from preprocessing.womd.misalignment import ShiftProbe, probed_frames
from tests.preprocessing.womd.laser_records import LaserWorld, laser_scenario


@pytest.mark.parametrize("delay", [-7, 0, 1, 9])
def test_best_shift_is_how_far_the_lidar_is_ahead_of_the_boxes(delay: int) -> None:
    world = LaserWorld(seed=4, num_tracks=5, lidar_delay_steps=delay)
    assert crop_lidar(laser_scenario(world), CropConfig()).best_shift == delay


def test_a_record_that_ends_now_shows_shifts_too() -> None:
    for delay in (-4, 4):
        world = LaserWorld(seed=4, num_tracks=5, num_steps=11, lidar_delay_steps=delay)
        assert crop_lidar(laser_scenario(world), CropConfig()).best_shift == delay


def test_first_and_last_frames_are_probed() -> None:
    assert probed_frames(11) == {0, 1, 9, 10}
    assert probed_frames(3) == {0, 1, 2}
    assert probed_frames(1) == {0}
    assert probed_frames(0) == set()


def moving_box(num_steps: int, speed: float) -> TrackBoxes:
    center = np.zeros((1, num_steps, 3))
    center[0, :, 0] = speed * np.arange(num_steps)
    half = np.broadcast_to([2.0, 1.0, 1.0], center.shape)
    return TrackBoxes(
        center_m=center, half_size_m=half, heading_rad=np.zeros((1, num_steps)), valid=np.ones((1, num_steps), dtype=bool)
    )


def test_a_parked_track_and_no_points_speak_for_no_shift() -> None:
    probe = ShiftProbe(moving_box(21, speed=0.0))
    assert probe.best_shift() == 0
    for frame in probed_frames(11):
        probe.add_frame(frame, np.random.default_rng(0).uniform(-1, 1, (50, 3)), np.eye(4))
    assert probe.best_shift() == 0


@pytest.mark.parametrize(("ahead", "shift"), [(3, 0), (30, 1)], ids=["by chance", "clearly more"])
def test_a_shift_must_catch_clearly_more_points(ahead: int, shift: int) -> None:
    probe = ShiftProbe(moving_box(3, speed=0.5))
    rng = np.random.default_rng(0)
    own = rng.uniform([-1.4, -0.9, 0.0], [1.9, 0.9, 0.9], (100, 3))  # step 1's box holds them too
    next_only = rng.uniform([2.1, -0.9, 0.0], [2.4, 0.9, 0.9], (ahead, 3))
    probe.add_frame(0, np.concatenate([own, next_only]), np.eye(4))
    assert probe.best_shift() == shift


def test_points_of_the_road_do_not_count() -> None:
    # All of the road is seen around step 3's box only, the track itself around its own.
    boxes = moving_box(21, speed=3.0)
    probe = ShiftProbe(boxes)
    rng = np.random.default_rng(0)
    road = rng.uniform([7.0, -1.0, -0.95], [11.0, 1.0, -0.85], (500, 3))
    track = rng.uniform([-2.0, -1.0, 0.0], [2.0, 1.0, 1.0], (20, 3))
    probe.add_frame(0, np.concatenate([road, track]), np.eye(4))
    assert probe.best_shift() == 0


def test_blocks_hold_all_of_every_compared_box_that_counts() -> None:
    boxes = moving_box(21, speed=1.3)
    turned = np.array([[0.6, -0.8, 0.0, 4.0], [0.8, 0.6, 0.0, -1.0], [0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
    blocks = ShiftProbe(boxes).blocks(10, turned)
    assert 1 < len(blocks.heading_rad) < 21
    # A box counts from a quarter of its height up: here from -0.5 to 1.
    offsets = np.array([[x, y, z] for x in (-2, 2) for y in (-1, 1) for z in (-0.5, 1)])
    corners = (boxes.center_m[0, :, None] + offsets).reshape(-1, 3) @ turned[:3, :3].T + turned[:3, 3]
    x, y, z = (corners[:, None] - blocks.center_m).transpose(2, 0, 1)
    cos, sin = np.cos(blocks.heading_rad), np.sin(blocks.heading_rad)
    inside = np.abs(np.stack([cos * x + sin * y, cos * y - sin * x, z], axis=-1)) <= blocks.half_size_m + 1e-9
    assert inside.all(axis=-1).any(axis=1).all()
