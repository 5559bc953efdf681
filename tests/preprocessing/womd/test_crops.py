from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limtr.scene import LidarCrops
from preprocessing.womd import schema
from preprocessing.womd.crops import CropConfig, crop_lidar
from preprocessing.womd.lidar import LidarError, frame_points
from preprocessing.womd.range_image import decode, decode_quantised, encode
from tests.preprocessing.womd.laser_records import LaserWorld, laser_scenario

ALL = CropConfig(max_points=10**9)


def crops_of_all_points(scenario: Any, margin_m: float) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
    """Points and features of each target and frame by converting every pixel."""
    crops = {}
    for step, frame in enumerate(scenario.compressed_frame_laser_data):
        returns = [item for laser in frame_points(frame) for item in laser]
        xyz, features = (np.concatenate([item[part] for item in returns]) for part in (0, 1))
        vehicle_from_world = np.linalg.inv(np.array(frame.pose.transform).reshape(4, 4))
        for position, target in enumerate(scenario.tracks_to_predict):
            state = scenario.tracks[target.track_index].states[step]
            if not state.valid:
                continue
            center = (vehicle_from_world @ [state.center_x, state.center_y, state.center_z, 1.0])[:3]
            heading = state.heading + np.arctan2(vehicle_from_world[1, 0], vehicle_from_world[0, 0])
            axes = np.array([[np.cos(heading), np.sin(heading), 0], [-np.sin(heading), np.cos(heading), 0], [0, 0, 1]])
            box_xyz = (xyz - center) @ axes.T
            half = np.array([state.length, state.width, state.height]) / 2 + margin_m
            inside = (np.abs(box_xyz) <= half).all(axis=1)
            crops[position, step] = (box_xyz[inside], features[inside])
    return crops


def same_points(ours: np.ndarray, expected: np.ndarray) -> None:
    """Rows are equal after sorting; float32 against float64."""
    assert ours.shape == expected.shape
    np.testing.assert_allclose(np.sort(ours, axis=0), np.sort(expected, axis=0), atol=2e-5, rtol=1e-6)


def bytes_of(crops: LidarCrops) -> tuple[bytes, ...]:
    return tuple(part.tobytes() for part in (crops.points_m, crops.features, crops.count, crops.count_in_box))


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    speed=st.sampled_from([0.0, 12.0, 35.0]),
    yaw_rate=st.sampled_from([-1.5, 0.0, 0.4]),
    margin_m=st.sampled_from([0.0, 0.15, 6.0]),
    uniform_top=st.booleans(),
)
def test_crops_hold_the_points_that_converting_every_pixel_finds(
    seed: int, speed: float, yaw_rate: float, margin_m: float, uniform_top: bool
) -> None:
    world = LaserWorld(
        seed=seed, num_frames=2, ego_speed_mps=speed, ego_yaw_rate=yaw_rate, uniform_top=uniform_top, top_shape=(16, 90)
    )
    scenario = laser_scenario(world)
    crops = crop_lidar(scenario, CropConfig(max_points=10**9, margin_m=margin_m))
    expected = crops_of_all_points(scenario, margin_m)
    for position in range(world.num_tracks):
        for step in range(11):
            xyz, features = crops.frame(position, step)
            nothing = (np.zeros((0, 3)), np.zeros((0, 3)))
            same_points(xyz, expected.get((position, step), nothing)[0])
            same_points(features, expected.get((position, step), nothing)[1])
    assert (crops.count == crops.count_in_box).all()


def test_ranges_in_very_fine_steps_are_not_taken_for_too_far() -> None:
    scenario = laser_scenario(LaserWorld(seed=3, num_frames=1))
    for laser in scenario.compressed_frame_laser_data[0].lasers:
        image = decode(laser.ri_return1.range_image_delta_compressed)
        image[:] = 12.0  # 1.5e9 steps in every channel: with their differences they fit into 32 bits, but not into 31
        laser.ri_return1.range_image_delta_compressed = encode(image, [8e-9] * 4)
    crops = crop_lidar(scenario, CropConfig(max_points=10**9, margin_m=4.0))
    expected = crops_of_all_points(scenario, 4.0)
    assert max(len(xyz) for xyz, _ in expected.values()) > 40
    for (position, step), (xyz, _) in expected.items():
        assert crops.count_in_box[position, step] == len(xyz)


def test_pixels_whose_own_poses_are_turned_reach_far_boxes() -> None:
    scenario = laser_scenario(LaserWorld(seed=5, num_frames=1, ego_speed_mps=0.0, ego_yaw_rate=0.0))
    for track in scenario.tracks:
        track.states[0].valid = True
        track.states[0].length = track.states[0].width = 0.5
    top = scenario.compressed_frame_laser_data[0].lasers[1]
    quantised = decode_quantised(top.ri_return1.range_image_pose_delta_compressed)
    poses = quantised.image()
    poses[..., 2] += np.random.default_rng(0).choice([-0.3, 0.3], poses.shape[:2])
    top.ri_return1.range_image_pose_delta_compressed = encode(poses, quantised.precision.tolist())
    crops, expected = crop_lidar(scenario, CropConfig(max_points=10**9, margin_m=0.5)), crops_of_all_points(scenario, 0.5)
    assert sum(len(xyz) for xyz, _ in expected.values()) > 10
    for (position, step), (xyz, _) in expected.items():
        same_points(crops.frame(position, step)[0], xyz)


def test_pixels_without_a_return_may_have_any_pose() -> None:
    scenario = laser_scenario(LaserWorld(num_frames=1))
    expected = crop_lidar(scenario, ALL)
    top = scenario.compressed_frame_laser_data[0].lasers[1]
    first, second = (decode(part.range_image_delta_compressed) for part in (top.ri_return1, top.ri_return2))
    quantised = decode_quantised(top.ri_return1.range_image_pose_delta_compressed)
    poses = quantised.image()
    poses[(first[..., 0] == 0) & (second[..., 0] == 0)] = 0.0
    top.ri_return1.range_image_pose_delta_compressed = encode(poses, quantised.precision.tolist())
    assert expected.count.sum() > 0
    assert bytes_of(crop_lidar(scenario, ALL)) == bytes_of(expected)


def test_capped_crops_are_the_first_points_of_larger_ones_in_a_random_order() -> None:
    scenario = laser_scenario(LaserWorld(seed=3, num_frames=4))
    whole, capped = crop_lidar(scenario, ALL), crop_lidar(scenario, CropConfig(max_points=20))
    assert (capped.count == np.minimum(whole.count, 20)).all()
    assert (capped.count_in_box == whole.count).all()
    assert (whole.count > 40).any()
    for position, step in np.argwhere(whole.count > 40):
        xyz, _ = whole.frame(position, step)
        np.testing.assert_array_equal(capped.frame(position, step)[0], xyz[:20])
        # In pixel order the height would fall steadily; a random order has about as many rises as falls.
        rises = (np.diff(xyz[:, 2]) > 0).mean()
        assert 0.3 < rises < 0.7


def test_first_points_are_no_biased_sample() -> None:
    scenario = laser_scenario(LaserWorld(seed=3, num_frames=1, num_tracks=6))
    whole = crop_lidar(scenario, ALL)
    position, step = np.unravel_index(whole.count.argmax(), whole.count.shape)
    mean = whole.frame(position, step)[0].mean(axis=0)
    samples = [crop_lidar(scenario, CropConfig(max_points=30, seed=seed)).frame(position, step)[0] for seed in range(12)]
    assert len({sample.tobytes() for sample in samples}) == 12
    spread = whole.frame(position, step)[0].std(axis=0)
    assert (np.abs(np.concatenate(samples).mean(axis=0) - mean) < 4.5 * spread / np.sqrt(360)).all()


def test_the_sample_of_a_track_depends_on_no_other_track_nor_on_the_order_of_lasers() -> None:
    scenario = laser_scenario(LaserWorld(seed=3, num_frames=3))
    config = CropConfig(max_points=20)
    before = crop_lidar(scenario, config)
    del scenario.tracks_to_predict[:]
    for row in (2, 0):
        scenario.tracks_to_predict.add(track_index=row)
    for frame in scenario.compressed_frame_laser_data:
        lasers = list(frame.lasers)
        del frame.lasers[:]
        frame.lasers.extend(lasers[::-1])
    after = crop_lidar(scenario, config)
    for now, then in ((0, 2), (1, 0)):
        for step in range(11):
            np.testing.assert_array_equal(after.frame(now, step)[0], before.frame(then, step)[0])
    scenario.scenario_id = "another"
    assert bytes_of(crop_lidar(scenario, config)) != bytes_of(after)


def test_equal_frames_have_samples_of_their_own() -> None:
    scenario = laser_scenario(LaserWorld(seed=3, num_frames=2))
    scenario.compressed_frame_laser_data[1].CopyFrom(scenario.compressed_frame_laser_data[0])
    for track in scenario.tracks:
        track.states[1].CopyFrom(track.states[0])
    whole, capped = crop_lidar(scenario, ALL), crop_lidar(scenario, CropConfig(max_points=20))
    agent = int(whole.count[:, 0].argmax())
    assert whole.count[agent, 0] == whole.count[agent, 1] > 40
    assert not np.array_equal(capped.frame(agent, 0)[0], capped.frame(agent, 1)[0])


def test_the_two_returns_of_a_pixel_are_sampled_apart() -> None:
    scenario = laser_scenario(LaserWorld(seed=3, num_frames=1))
    for laser in scenario.compressed_frame_laser_data[0].lasers:
        image = decode(laser.ri_return1.range_image_delta_compressed)
        laser.ri_return2.range_image_delta_compressed = encode(np.zeros_like(image), [0.01] * 4)
    first = crop_lidar(scenario, ALL)
    for laser in scenario.compressed_frame_laser_data[0].lasers:
        images = laser.ri_return2.range_image_delta_compressed, laser.ri_return1.range_image_delta_compressed
        laser.ri_return1.range_image_delta_compressed, laser.ri_return2.range_image_delta_compressed = images
    second = crop_lidar(scenario, ALL)
    agent = int(first.count[:, 0].argmax())
    one, other = first.frame(agent, 0)[0], second.frame(agent, 0)[0]
    same_points(one, other)
    assert len(one) > 40
    assert not np.array_equal(one, other)


def test_missing_frames_and_invalid_states_are_empty() -> None:
    scenario = laser_scenario(LaserWorld(seed=3, num_frames=4))
    scenario.compressed_frame_laser_data[2].ClearField("lasers")
    valid = np.array([[state.valid for state in track.states[:11]] for track in scenario.tracks])
    crops = crop_lidar(scenario, ALL)
    assert crops.count.shape == (3, 11)
    assert not crops.count[:, 4:].any()
    assert not crops.count[:, 2].any()
    assert not crops.count[~valid].any()
    assert crops.count.sum() == len(crops.points_m) > 0
    assert crops.empty_share == pytest.approx((crops.count[valid] == 0).mean())


def test_a_scenario_without_targets_or_valid_states_has_no_crops() -> None:
    scenario = laser_scenario(LaserWorld(num_frames=2))
    for track in scenario.tracks:
        for state in track.states:
            state.valid = False
    crops = crop_lidar(scenario, ALL)
    assert crops.points_m.shape == (0, 3)
    assert np.isnan(crops.empty_share)
    assert crops.best_shift == 0
    del scenario.tracks_to_predict[:]
    assert crop_lidar(scenario, ALL).count.shape == (0, 11)


def test_images_of_zeros_give_empty_crops() -> None:
    scenario = laser_scenario(LaserWorld(num_frames=2))
    for frame in scenario.compressed_frame_laser_data:
        for laser in frame.lasers:
            for part in (laser.ri_return1, laser.ri_return2):
                image = decode(part.range_image_delta_compressed)
                part.range_image_delta_compressed = encode(np.zeros_like(image), [0.01] * 4)
    crops = crop_lidar(scenario, ALL)
    assert crops.count.sum() == 0
    assert crops.empty_share == 1.0
    assert crops.best_shift == 0


def test_what_does_not_fit_is_named() -> None:
    scenario = laser_scenario(LaserWorld(num_frames=2))
    scenario.tracks[1].states[1].valid = True
    scenario.tracks[1].states[1].center_x = float("nan")
    with pytest.raises(LidarError, match=r"laser0000.*tracks\[1\].states\[1\]"):
        crop_lidar(scenario, ALL)
    scenario.tracks[1].states[1].valid = False
    scenario.compressed_frame_laser_data[1].lasers[0].ri_return1.range_image_delta_compressed = b"?"
    with pytest.raises(LidarError, match=r"laser0000.*laser_data\[1\].*FRONT"):
        crop_lidar(scenario, ALL)
    scenario.tracks_to_predict[0].track_index = 99
    with pytest.raises(LidarError, match=r"tracks_to_predict\[0\].track_index is 99"):
        crop_lidar(scenario, ALL)
    scenario.current_time_index = 0
    with pytest.raises(LidarError, match="2 laser frames"):
        crop_lidar(scenario, ALL)


def test_more_frames_than_history_steps_are_refused() -> None:
    scenario = schema.Scenario(scenario_id="long", current_time_index=20)
    for _ in range(12):
        scenario.compressed_frame_laser_data.add()
    with pytest.raises(LidarError, match="12 laser frames, expected at most 11"):
        crop_lidar(scenario, ALL)


@pytest.mark.parametrize("wrong", [{"max_points": 0}, {"margin_m": -0.1}, {"margin_m": float("nan")}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CropConfig(**wrong)
