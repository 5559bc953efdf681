"""Scans: points of the written files lie on the bodies, poses roll, returns and losses behave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from preprocessing.synthetic.ego_pose import ego_path
from preprocessing.synthetic.materials import Material
from preprocessing.synthetic.protos import POSE_PRECISION, RANGE_PRECISION, lidar_record
from preprocessing.synthetic.returns import NOISE_CUT
from preprocessing.synthetic.scan_geometry import TOP, SensorConfig, lasers_of, top_inclinations_rad
from preprocessing.synthetic.sensor import LaserFrame, scan
from preprocessing.synthetic.surfaces import Surfaces, surfaces_by_step
from preprocessing.synthetic.world import World
from preprocessing.womd import schema
from preprocessing.womd.lidar import frame_points, open_frame
from tests.preprocessing.synthetic.worlds import small_world

STEPS = range(4, 6)
CONFIG = SensorConfig(top_columns=500, side_shape=(24, 80))
SEED = np.random.SeedSequence([3, 1])


@pytest.fixture(scope="module")
def world() -> World:
    return small_world(12)


@pytest.fixture(scope="module")
def frames(world: World) -> list[LaserFrame]:
    return scan(world, STEPS, CONFIG, np.random.SeedSequence([3, 1]))


def surfaces_at(world: World, step: int) -> Surfaces:
    return surfaces_by_step(world, range(step, step + 1), reach_m=100.0, rng=np.random.default_rng(0))[0]


def distance_to_surfaces(points_m: np.ndarray, surfaces: Surfaces) -> np.ndarray:
    """Distances from Open3D, which is not what made the points."""
    from preprocessing.open3d_loader import load_open3d

    open3d = load_open3d()
    scene = open3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(open3d.core.Tensor(surfaces.mesh.vertices_m[0].copy()), open3d.core.Tensor(surfaces.mesh.faces))
    return scene.compute_distance(open3d.core.Tensor(points_m.astype(np.float32)), nthreads=1).numpy()


def test_decoded_points_of_the_written_record_lie_on_the_surfaces(world: World, frames: list[LaserFrame]) -> None:
    record = schema.Scenario.FromString(lidar_record(world.scenario_id, frames))
    assert record.scenario_id == world.scenario_id
    tolerance = NOISE_CUT * CONFIG.range_noise_m + RANGE_PRECISION[0] / 2 + 2e-3
    for step, message in zip(STEPS, record.compressed_frame_laser_data, strict=True):
        global_from_vehicle = np.array(message.pose.transform).reshape(4, 4)
        surfaces = surfaces_at(world, step)
        decoded = frame_points(message)
        assert len(decoded) == 5
        num_second = 0
        for first, second in decoded:
            for xyz, features in (first, second):
                points = xyz @ global_from_vehicle[:3, :3].T + global_from_vehicle[:3, 3] - world.origin_m
                if len(points):
                    assert distance_to_surfaces(points, surfaces).max() < tolerance
                    assert features[:, 0].min() > 0
            assert len(first[0]) > 100
            num_second += len(second[0])
        assert num_second > 0


def test_ranges_have_the_noise_that_is_asked_for(world: World) -> None:
    exact, noisy = (
        scan(world, range(4, 5), replace(CONFIG, range_noise_m=noise_m), np.random.SeedSequence([3, 1]))[0]
        .images[0]
        .first[..., 0]
        for noise_m in (0.0, 0.05)
    )
    both = (exact > 0) & (noisy > 0)
    assert both.sum() > 5_000
    error = noisy[both] - exact[both]
    assert error.std() == pytest.approx(0.05, rel=0.05)
    assert abs(error.mean()) < 0.005


def test_decoding_in_the_wrong_pose_would_be_noticed(world: World, frames: list[LaserFrame]) -> None:
    """The test above can fail: without the pixels' own poses the TOP points leave the surfaces."""
    quick = small_world(12, speed_mps=20.0)
    record = schema.Scenario.FromString(
        lidar_record("a", scan(quick, range(5, 6), replace(CONFIG, range_noise_m=0.0), np.random.SeedSequence(0)))
    )
    message = record.compressed_frame_laser_data[0]
    top = open_frame(message)[0]
    surfaces = surfaces_at(quick, 5)
    pose = np.array(message.pose.transform).reshape(4, 4)

    def off(scanned: object) -> float:
        xyz = scanned.all_points(scanned.returns[0])[0]  # type: ignore[attr-defined]
        points = xyz @ pose[:3, :3].T + pose[:3, 3] - quick.origin_m
        return float(np.quantile(distance_to_surfaces(points, surfaces), 0.999))

    assert off(top) < 0.006
    assert off(replace(top, pixel_poses=None)) > 0.05


def test_pixel_poses_follow_the_ego_through_the_sweep(world: World, frames: list[LaserFrame]) -> None:
    path = ego_path(world)
    for step, frame in zip(STEPS, frames, strict=True):
        poses = frame.images[0].column_poses
        assert frame.images[0].laser.name == TOP
        assert poses is not None
        assert poses.shape == (CONFIG.top_columns, 6)
        assert (poses[:, :2] == 0).all()
        # The sweep looks ahead at the frame's own time, and takes one step of 0.1 s from end to end.
        middle = poses[CONFIG.top_columns // 2 - 1 : CONFIG.top_columns // 2 + 1].mean(axis=0)
        np.testing.assert_allclose(middle[3:], frame.global_from_vehicle[:3, 3], atol=1e-3)
        travelled = np.linalg.norm(poses[-1, 3:] - poses[0, 3:])
        expected = np.linalg.norm(path.position_m[step + 1] - path.position_m[step - 1]) / 2
        assert travelled == pytest.approx(expected, rel=0.02)
        assert poses[-1, 2] - poses[0, 2] == pytest.approx(0.015, rel=0.02)
        assert all(image.column_poses is None for image in frame.images[1:])


def test_written_poses_are_exact_to_their_precision(frames: list[LaserFrame]) -> None:
    message = schema.Scenario.FromString(lidar_record("a", frames[:1])).compressed_frame_laser_data[0]
    written = open_frame(message)[0].pixel_poses
    assert written is not None
    image = written.image()
    poses = frames[0].images[0].column_poses
    assert image.shape == (64, CONFIG.top_columns, 6)
    assert (np.abs(image - poses).max(axis=(0, 1)) <= np.array(POSE_PRECISION) / 2 + 1e-9).all()


def test_same_seed_same_images_other_seed_other_noise(world: World, frames: list[LaserFrame]) -> None:
    again = scan(world, STEPS, CONFIG, np.random.SeedSequence([3, 1]))
    other = scan(world, STEPS, CONFIG, np.random.SeedSequence([3, 2]))
    assert lidar_record("a", again) == lidar_record("a", frames)
    assert lidar_record("a", other) != lidar_record("a", frames)


def test_ranges_are_limited_and_the_ego_does_not_see_itself(world: World, frames: list[LaserFrame]) -> None:
    for image in frames[0].images:
        ranges = image.first[..., 0]
        assert ranges.max() < image.laser.max_range_m + 0.1
        assert (ranges[ranges > 0] > 0.3).all()
    surfaces = surfaces_at(world, 4)
    assert world.ego not in surfaces.owner


def test_second_return_is_behind_the_first(frames: list[LaserFrame]) -> None:
    for frame in frames:
        for image in frame.images:
            both = image.second[..., 0] > 0
            assert (image.first[..., 0][both] > 0).all()
            assert (image.second[..., 0][both] > image.first[..., 0][both]).all()


def test_echoes_are_lost_more_often_far_away_and_under_grazing_incidence() -> None:
    from preprocessing.synthetic.mesh import box
    from preprocessing.synthetic.returns import measure
    from preprocessing.synthetic.surfaces import Hits

    surfaces = Surfaces(
        mesh=box((1, 1, 1), Material.PAINT), owner=np.zeros(12, np.int32), reflectance=np.full(12, 0.3, np.float32)
    )
    rows = np.arange(4000)

    def found(distance: float, cos: float) -> tuple[float, float]:
        hits = Hits(
            distance_m=np.full(4000, distance, np.float32), triangle=np.zeros(4000, np.int64),
            cos_incidence=np.full(4000, cos, np.float32),
        )  # fmt: skip
        image = measure(hits, rows, surfaces, config=CONFIG, rng=np.random.default_rng(0), strength=1.0)
        seen = image[image[:, 0] > 0]
        return len(seen) / 4000, float(seen[:, 1].mean())

    near, far, grazing = found(5.0, 0.9), found(70.0, 0.5), found(70.0, 0.05)
    assert near[0] > 0.97
    assert near[0] > far[0] > grazing[0] > 0
    assert near[1] > grazing[1]


def test_lasers_are_where_waymo_has_them() -> None:
    lasers = lasers_of(SensorConfig(), (4.6, 1.9, 1.6))
    assert [laser.name for laser in lasers] == [1, 2, 3, 4, 5]
    top = top_inclinations_rad()
    assert np.rad2deg(top[[0, -1]]) == pytest.approx([-17.6, 2.4])
    assert (np.diff(top) > 0).all()
    assert np.diff(top)[0] > 2.5 * np.diff(top)[-1]
    assert all(len(laser.columns) == pytest.approx(laser.shape[1] / 2, abs=2) for laser in lasers[1:])
    for laser, yaw in zip(lasers[1:], (0.0, np.pi / 2, -np.pi / 2, np.pi), strict=True):
        assert (np.cos(laser.azimuth_rad - yaw) > -0.01).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("top_columns", 4), ("side_shape", (60,)), ("top_range_m", 0.0), ("range_noise_m", -1.0), ("dropout", 1.0)],
)
def test_impossible_sensors_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field.split("_m")[0].replace("top_range", "ranges")):
        SensorConfig(**{field: value})  # type: ignore[arg-type]
