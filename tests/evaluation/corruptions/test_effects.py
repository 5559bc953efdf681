"""What each corruption does, in numbers that can be worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.corruptions.catalogue import corrupt
from evaluation.corruptions.crops import keep_points, owners
from evaluation.corruptions.lidar import delay, drop_points, fog, range_noise
from evaluation.corruptions.map import missing_map
from evaluation.corruptions.poses import box_from_scene, scene_from_box
from evaluation.corruptions.tracks import missing_history, track_noise
from limtr.polylines import polyline_tensor
from limtr.scene import LidarCrops, Scene
from tests.builders import tiny_scene

RNG = np.random.default_rng


def with_points(
    scene: Scene, points: dict[tuple[int, int], np.ndarray], features: tuple[float, float, float] = (10.0, 1.0, 0.0)
):
    """The scene with these points (n, 3) by target and step."""
    count = np.zeros((len(scene.tracks_to_predict), 11), dtype=np.int64)
    for place, cloud in points.items():
        count[place] = len(cloud)
    stacked = np.concatenate([points[place] for place in sorted(points)]).astype(np.float32)
    lidar = LidarCrops(
        points_m=stacked, features=np.tile(np.float32(features), (len(stacked), 1)), count=count, count_in_box=count,
        empty_share=0.0, best_shift=0,
    )  # fmt: skip
    return replace(scene, lidar=lidar).validate()


def straight_scene(speed_mps: float = 5.0) -> Scene:
    """One target that drives along x, always seen; the recorder stands at (0, -30)."""
    scene = tiny_scene(0, num_tracks=2, num_targets=1, gaps=False, with_lidar=False)
    states = np.zeros_like(scene.track_states)
    states[0, :, 0] = speed_mps * 0.1 * np.arange(91)
    states[0, :, 3:6] = (4.0, 2.0, 1.6)
    states[0, :, 7] = speed_mps
    states[1, :, 1] = -30.0
    states[1, :, 3:6] = (4.0, 2.0, 2.0)
    return replace(scene, track_states=states, sdc_track=1)


def places(scene: Scene) -> np.ndarray:
    """Where the points are in the scene frame."""
    agent, step = owners(scene.lidar)
    states = scene.track_states[scene.tracks_to_predict[agent], step]
    return scene_from_box(scene.lidar.points_m.astype(float), states.astype(float))


def test_points_and_boxes_round_trip():
    rng = RNG(0)
    states = rng.normal(size=(50, 9)) * 3
    points = rng.normal(size=(50, 3))
    np.testing.assert_allclose(box_from_scene(scene_from_box(points, states), states), points, atol=1e-12)


def test_kept_points_stay_with_their_agent_and_step_in_order():
    scene = tiny_scene(3)
    assert scene.lidar is not None
    kept = RNG(0).random(len(scene.lidar.points_m)) < 0.5
    crops = keep_points(scene.lidar, kept)
    agent, step = owners(scene.lidar)
    for place in np.ndindex(scene.lidar.count.shape):
        here = kept & (agent == place[0]) & (step == place[1])
        np.testing.assert_array_equal(crops.frame(*place)[0], scene.lidar.points_m[here])


def test_the_share_of_lost_points_is_the_stated_one():
    scene = with_points(straight_scene(), {(0, 10): np.zeros((20_000, 3))})
    assert len(drop_points(scene, 0.9, RNG(0)).lidar.points_m) == pytest.approx(2_000, abs=150)


def test_fog_keeps_the_share_of_points_and_of_intensity_that_the_formula_says():
    scene = with_points(straight_scene(), {(0, 10): np.zeros((20_000, 3))}, features=(25.0, 0.8, 0.0))
    foggy = fog(scene, 100.0, RNG(0)).lidar
    expected = np.exp(-6.0 * 25.0 / 100.0)
    assert len(foggy.points_m) == pytest.approx(20_000 * expected, rel=0.05)
    np.testing.assert_allclose(foggy.features[:, 1], 0.8 * expected, rtol=1e-5)
    np.testing.assert_array_equal(foggy.features[:, 0], np.float32(25.0))


def test_range_noise_moves_points_along_the_ray_from_the_recorder():
    scene = with_points(straight_scene(0.0), {(0, 10): np.zeros((5_000, 3))}, features=(30.0, 1.0, 0.0))
    noisy = range_noise(scene, 0.1, RNG(0)).lidar
    error = noisy.features[:, 0] - 30.0
    assert error.std() == pytest.approx(0.1, rel=0.05)
    # The sensor is at (0, -30, 1): seen from the target's centre the ray runs along (0, 30, -1).
    np.testing.assert_allclose(noisy.points_m, error[:, None] * np.array([0.0, 30.0, -1.0]) / np.hypot(30.0, 1.0), atol=1e-5)


def test_a_point_that_noise_moves_out_of_its_box_is_lost():
    # Rays run along y here; the box ends at y = 1.
    cloud = np.tile([0.0, 0.99, 0.0], (4_000, 1))
    scene = with_points(straight_scene(0.0), {(0, 9): cloud, (0, 10): np.zeros((50, 3))}, features=(30.0, 1.0, 0.0))
    noisy = range_noise(scene, 0.1, RNG(0)).lidar
    assert noisy.count[0, 10] == 50
    # Two centimetres of rounding are granted beyond the box: an error of 0.3 sigma takes a point out.
    assert noisy.count[0, 9] / 4_000 == pytest.approx(0.618, abs=0.03)
    assert noisy.frame(0, 9)[0][:, 1].max() <= 1.0 + 0.02 + 1e-6


def test_the_sensor_of_an_unseen_recorder_is_not_taken_from_its_empty_state():
    scene = with_points(straight_scene(0.0), {(0, 10): np.zeros((2_000, 3))}, features=(30.0, 1.0, 0.0))
    valid = scene.track_valid.copy()
    valid[1, 10] = False
    states = np.where(valid[..., None], scene.track_states, np.float32(0.0))
    noisy = range_noise(replace(scene, track_valid=valid, track_states=states), 0.05, RNG(0)).lidar
    moved = noisy.points_m / np.linalg.norm(noisy.points_m, axis=1, keepdims=True)
    assert np.abs(moved.mean(axis=0)).max() < 0.1, "no direction is preferred"
    assert (moved.std(axis=0) > 0.5).all()


def test_ranges_stay_distances():
    scene = with_points(straight_scene(0.0), {(0, 10): np.zeros((500, 3))}, features=(0.1, 1.0, 0.0))
    assert range_noise(scene, 0.4, RNG(0)).lidar.features[:, 0].min() == 0.0


def test_late_frames_trail_behind_and_leave_the_box():
    cloud = np.array([[-1.0, 0.0, 0.0], [0.5, 0.2, 0.1], [1.9, 0.0, 0.0]])
    scene = with_points(straight_scene(5.0), {(0, step): cloud for step in range(11)})
    late = delay(scene, 3, RNG(0)).lidar  # 1.5 m behind
    assert late.count[0].tolist() == [0, 0, 0] + [2] * 8
    np.testing.assert_allclose(late.frame(0, 10)[0], cloud[1:] - [1.5, 0.0, 0.0], atol=1e-5)


def test_late_frames_need_a_box_to_crop_with():
    scene = with_points(straight_scene(0.0), {(0, step): np.zeros((2, 3)) for step in range(11)})
    valid = scene.track_valid.copy()
    valid[0, 7] = False
    states = np.where(valid[..., None], scene.track_states, np.float32(0))
    count = scene.lidar.count.copy()
    count[0, 7] = 0
    lidar = replace(
        scene.lidar, count=count, count_in_box=count, points_m=np.zeros((20, 3), np.float32), features=scene.lidar.features[:20]
    )
    late = delay(replace(scene, track_valid=valid, track_states=states, lidar=lidar), 2, RNG(0)).lidar
    assert late.count[0].tolist() == [0, 0, 2, 2, 2, 2, 2, 0, 2, 0, 2]


def test_track_noise_has_the_stated_size_and_spares_the_recorder():
    scene = tiny_scene(0, num_tracks=400, num_targets=1, gaps=False, with_lidar=False)
    noisy = track_noise(scene, 0.5, RNG(0))
    error = (noisy.track_states - scene.track_states)[:-1, :11].astype(np.float64)
    assert not (noisy.track_states - scene.track_states)[-1].any()
    assert error[..., :2].std() == pytest.approx(0.5, rel=0.05)
    turn = np.arctan2(np.sin(error[..., 6]), np.cos(error[..., 6]))
    assert np.rad2deg(turn).std() == pytest.approx(5.0, rel=0.05)
    assert error[..., 7:].std() == pytest.approx(1.0, rel=0.05)
    assert not error[..., 2:6].any()


def test_points_stay_where_they_are_when_boxes_are_noisy():
    cloud = np.array([[0.3, -0.2, 0.1], [0.0, 0.4, 0.0]])
    scene = with_points(straight_scene(5.0), {(0, step): cloud for step in range(11)})
    noisy = track_noise(scene, 0.1, RNG(0))
    assert noisy.lidar.count.tolist() == scene.lidar.count.tolist()
    old, new = places(scene), places(noisy)
    assert np.abs(scene.track_states - noisy.track_states).max() > 0.05
    np.testing.assert_allclose(new, old, atol=1e-5)


def test_a_noisy_box_cuts_points_off():
    cloud = np.stack(np.meshgrid(np.linspace(-2, 2, 9), np.linspace(-1, 1, 5), [0.0]), axis=-1).reshape(-1, 3)
    scene = with_points(straight_scene(5.0), {(0, step): cloud for step in range(11)})
    noisy = track_noise(scene, 0.8, RNG(0))
    assert 0 < noisy.lidar.count.sum() < 0.9 * scene.lidar.count.sum()
    assert (np.abs(noisy.lidar.points_m) <= np.array([2.0, 1.0, 0.8]) + 0.02 + 1e-5).all()
    # What is left are points of the scene: nothing moved but the box.
    known = {tuple(point) for point in np.round(places(scene), 3).tolist()}
    assert all(tuple(point) in known for point in np.round(places(noisy), 3).tolist())


def test_missing_history_leaves_the_newest_steps():
    scene = straight_scene()
    short = missing_history(with_points(scene, {(0, step): np.zeros((1, 3)) for step in range(11)}), 2, RNG(0))
    assert short.track_valid[0, :11].tolist() == [False] * 9 + [True] * 2
    assert short.track_valid[1].all(), "the recorder knows its own past"
    assert short.lidar.count[0].tolist() == [0] * 9 + [1] * 2


def test_a_lost_lane_takes_its_signals_along_and_the_rest_stays_the_same():
    scene = tiny_scene(0, num_features=30)
    number = np.arange(len(scene.signal_lane))
    scene = replace(scene, signal_lane=1000 + number % 30, signal_state=number % 9)
    left = missing_map(scene, 0.5, RNG(0))
    kept = np.isin(scene.feature_id, left.feature_id)
    assert 5 < kept.sum() < 25
    np.testing.assert_array_equal(left.map_points_m, scene.map_points_m[np.repeat(kept, scene.feature_length)])
    lit = np.isin(scene.signal_lane, left.feature_id)
    assert 0 < lit.sum() < len(lit)
    for name in ("signal_lane", "signal_step", "signal_state", "signal_stop_m"):
        np.testing.assert_array_equal(getattr(left, name), getattr(scene, name)[lit])
    polylines, mask = polyline_tensor(left)
    assert mask.sum() == len(left.map_points_m)
    assert np.isfinite(polylines).all()
    assert len(corrupt(scene, "missing-map", 5, 0).map_points_m) == 0
