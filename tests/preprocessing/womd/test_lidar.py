from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from preprocessing.womd import schema
from preprocessing.womd.lidar import LidarError, frame_points, merge_lidar
from preprocessing.womd.range_image import decode, encode
from tests.preprocessing.womd.laser_records import RANGE_PRECISION, LaserWorld, laser_scenario, matrix, pixel_directions

SMALL = LaserWorld(num_frames=2, top_shape=(6, 20), side_shape=(4, 9))


def points_one_by_one(frame: Any, laser: Any, echo: int) -> np.ndarray:
    """Points of one return, pixel after pixel with 4 x 4 matrices."""
    calibration = next(item for item in frame.laser_calibrations if item.name == laser.name)
    extrinsic = np.array(calibration.extrinsic.transform).reshape(4, 4)
    image = decode((laser.ri_return1, laser.ri_return2)[echo].range_image_delta_compressed)
    directions = pixel_directions(calibration, image.shape[:2])
    points = []
    for row, column in zip(*np.nonzero(image[..., 0] > 0), strict=True):
        point = extrinsic @ [*(directions[row, column] * image[row, column, 0]), 1.0]
        if laser.name == schema.LaserName.TOP:
            poses = decode(laser.ri_return1.range_image_pose_delta_compressed)
            point = np.linalg.inv(np.array(frame.pose.transform).reshape(4, 4)) @ matrix(poses[row, column]) @ point
        points.append(point[:3])
    return np.array(points).reshape(-1, 3)


@pytest.mark.parametrize("uniform_top", [False, True], ids=["listed inclinations", "uniform TOP inclinations"])
def test_points_are_where_the_format_puts_each_pixel(uniform_top: bool) -> None:
    scenario = laser_scenario(LaserWorld(num_frames=1, top_shape=(6, 20), side_shape=(4, 9), uniform_top=uniform_top))
    frame = scenario.compressed_frame_laser_data[0]
    decoded = frame_points(frame)
    assert len(decoded) == len(frame.lasers) == 5
    for laser, returns in zip(frame.lasers, decoded, strict=True):
        for echo, (xyz, features) in enumerate(returns):
            np.testing.assert_allclose(xyz, points_one_by_one(frame, laser, echo), atol=1e-8)
            image = decode((laser.ri_return1, laser.ri_return2)[echo].range_image_delta_compressed)
            np.testing.assert_allclose(features, image[image[..., 0] > 0][:, :3])
    assert sum(len(xyz) for returns in decoded for xyz, _ in returns) > 50


def test_images_of_zeros_and_lasers_without_images_have_no_points() -> None:
    frame = laser_scenario(SMALL).compressed_frame_laser_data[0]
    for laser in frame.lasers:
        laser.ri_return1.range_image_delta_compressed = encode(np.zeros((6, 20, 4)), RANGE_PRECISION)
        laser.ClearField("ri_return2")
        if laser.name == schema.LaserName.REAR:
            laser.ClearField("ri_return1")
    assert all(xyz.shape == features.shape == (0, 3) for returns in frame_points(frame) for xyz, features in returns)


def test_pixels_of_no_or_negative_range_are_no_points() -> None:
    frame = laser_scenario(SMALL).compressed_frame_laser_data[0]
    image = np.zeros((4, 9, 4))
    image[1, 2:5, 0] = (-1.0, 7.0, 0.0)
    image[1, 2:5, 1] = 0.5
    side = next(laser for laser in frame.lasers if laser.name == schema.LaserName.FRONT)
    side.ri_return1.range_image_delta_compressed = encode(image, RANGE_PRECISION)
    xyz, features = frame_points(frame)[list(frame.lasers).index(side)][0]
    assert len(xyz) == 1
    np.testing.assert_allclose(features, [[7.0, 0.5, 0.0]], atol=1e-6)


def _drop_calibration(frame: Any) -> None:
    del frame.laser_calibrations[0]


def _repeat_calibration(frame: Any) -> None:
    frame.laser_calibrations.add().CopyFrom(frame.laser_calibrations[0])


def _drop_frame_pose(frame: Any) -> None:
    frame.ClearField("pose")


def _nan_frame_pose(frame: Any) -> None:
    frame.pose.transform[3] = float("nan")


def _scaled_extrinsic(frame: Any) -> None:
    frame.laser_calibrations[2].extrinsic.transform[0] = 9.0


def _drop_pixel_poses(frame: Any) -> None:
    frame.lasers[1].ri_return1.ClearField("range_image_pose_delta_compressed")


def _short_inclinations(frame: Any) -> None:
    del frame.laser_calibrations[2].beam_inclinations[0]


def _break_second_return(frame: Any) -> None:
    frame.lasers[3].ri_return2.range_image_delta_compressed = b"nonsense"


def _few_channels(frame: Any) -> None:
    frame.lasers[3].ri_return2.range_image_delta_compressed = encode(np.ones((4, 9, 2)), [1.0, 1.0])


def _other_shape(frame: Any) -> None:
    frame.lasers[3].ri_return2.range_image_delta_compressed = encode(np.ones((4, 8, 4)), RANGE_PRECISION)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_drop_calibration, "REAR: no calibration"),
        (_repeat_calibration, "REAR: two calibrations"),
        (_drop_frame_pose, "frame's pose must be 16"),
        (_nan_frame_pose, "frame's pose must be 16 finite"),
        (_scaled_extrinsic, "TOP: the calibration's extrinsic must be a rotation"),
        (_drop_pixel_poses, "TOP: a pose for each of 6 x 20 pixels"),
        (_short_inclinations, "TOP: .*beam_inclinations must be 6"),
        (_break_second_return, "SIDE_RIGHT, ri_return2.*no zlib"),
        (_few_channels, "SIDE_RIGHT, ri_return2.*at least 3 channels"),
        (_other_shape, "SIDE_RIGHT: its two returns"),
    ],
)
def test_a_damaged_frame_is_named(damage: Callable[[Any], None], says: str) -> None:
    frame = laser_scenario(SMALL).compressed_frame_laser_data[0]
    damage(frame)
    with pytest.raises(LidarError, match=says):
        frame_points(frame)


def lidar_record(scenario: Any) -> Any:
    """The record that Waymo keeps beside the motion record."""
    record = schema.Scenario(scenario_id=scenario.scenario_id)
    record.compressed_frame_laser_data.extend(scenario.compressed_frame_laser_data)
    scenario.ClearField("compressed_frame_laser_data")
    return record


def test_merge_puts_the_frames_into_the_motion_record() -> None:
    scenario = laser_scenario(SMALL)
    whole = scenario.SerializeToString(deterministic=True)
    record = lidar_record(scenario)
    merge_lidar(scenario, record)
    assert scenario.SerializeToString(deterministic=True) == whole
    with pytest.raises(LidarError, match="already"):
        merge_lidar(scenario, record)


def test_a_lidar_record_may_hold_its_frames_and_no_id() -> None:
    scenario = laser_scenario(SMALL)
    whole = scenario.SerializeToString(deterministic=True)
    record = lidar_record(scenario)
    record.ClearField("scenario_id")
    merge_lidar(scenario, record)
    assert scenario.SerializeToString(deterministic=True) == whole


def test_merge_refuses_what_does_not_belong_together() -> None:
    scenario = laser_scenario(SMALL)
    record = lidar_record(scenario)
    with pytest.raises(LidarError, match="no compressed_frame_laser_data"):
        merge_lidar(scenario, schema.Scenario(scenario_id=scenario.scenario_id))
    record.scenario_id = "another"
    with pytest.raises(LidarError, match="'another'"):
        merge_lidar(scenario, record)
    record.scenario_id = scenario.scenario_id
    scenario.current_time_index = 0
    with pytest.raises(LidarError, match="2 laser frames, expected at most 1"):
        merge_lidar(scenario, record)
    assert not scenario.compressed_frame_laser_data
