"""A simulated world as the messages that WOMD consists of: the motion record and the LiDAR record of a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from limtr.scene import NUM_HISTORY_STEPS
from preprocessing.synthetic.scan_geometry import Laser
from preprocessing.synthetic.sensor import LaserFrame, LaserImages
from preprocessing.synthetic.world import Float, RoadFeature, World
from preprocessing.womd import schema
from preprocessing.womd.range_image import encode

Bool = npt.NDArray[np.bool_]

CURRENT_STEP = NUM_HISTORY_STEPS - 1
RANGE_PRECISION = (0.005, 0.01, 0.01, 1.0)
"""Metres of range, intensity, elongation, no-label zone."""
POSE_PRECISION = (2.0**-20, 2.0**-20, 2.0**-20, 2.0**-17, 2.0**-17, 2.0**-17)
"""Radians of roll, pitch, yaw; metres of x, y, z. Powers of two, because the format stores them as float32: an inexact
1e-5 puts points kilometres from the origin a fifth of a millimetre off."""
_BESIDE_M = 0.6
"""How much farther off than at its nearest a boundary still counts as beside the lane."""
_ZLIB_LEVEL = 2
"""Half the time of zlib's default for a few per cent more bytes; readers do not notice."""


def motion_record(
    world: World, valid: Bool, targets: Sequence[int], *, num_steps: int, difficulty: Sequence[int], track_ids: Sequence[int]
) -> bytes:
    """The motion record: a Scenario with tracks, map, signals and tracks to predict, without laser frames.

    Args:
        world: the simulated scene.
        valid: (A, T) which states the tracks have; actors without any are left out, the ego comes last.
        targets: rows of `world` to predict, each with a state at the current step.
        num_steps: steps to write: 91, or 11 for the test split.
        difficulty: RequiredPrediction.DifficultyLevel of each target.
        track_ids: object id of each row of `world`.
    """
    seen = valid[:, :num_steps].any(axis=1)
    order = [int(row) for row in np.flatnonzero(seen) if row != world.ego] + [world.ego]
    place = {row: index for index, row in enumerate(order)}
    scenario = schema.Scenario(scenario_id=world.scenario_id, current_time_index=CURRENT_STEP, sdc_track_index=place[world.ego])
    scenario.timestamps_seconds.extend(world.timestamps_s[:num_steps].tolist())
    for row in order:
        track = scenario.tracks.add(id=int(track_ids[row]), object_type=int(world.object_type[row]))
        _add_states(track.states, world, row, valid[row, :num_steps])
    for row, level in zip(targets, difficulty, strict=True):
        scenario.tracks_to_predict.add(track_index=place[row], difficulty=level)
    for step in range(num_steps):
        state = scenario.dynamic_map_states.add()
        for lane, light, stop in zip(world.signal_lane, world.signal_state[:, step], world.signal_stop_m, strict=True):
            x, y, z = (stop + world.origin_m).tolist()
            state.lane_states.add(lane=int(lane), state=int(light), stop_point=schema.MapPoint(x=x, y=y, z=z))
    kinds = {feature.id: feature for feature in world.features}
    for feature in world.features:
        _add_feature(scenario.map_features.add(id=feature.id), feature, kinds, world.origin_m)
    return bytes(scenario.SerializeToString(deterministic=True))


def lidar_record(scenario_id: str, frames: Sequence[LaserFrame]) -> bytes:
    """The LiDAR record: a Scenario of which only the id and the compressed laser frames are filled."""
    scenario = schema.Scenario(scenario_id=scenario_id)
    for frame in frames:
        message = scenario.compressed_frame_laser_data.add()
        message.pose.transform.extend(frame.global_from_vehicle.ravel().tolist())
        for images in frame.images:
            _add_laser(message.lasers.add(), images)
            _add_calibration(message.laser_calibrations.add(), images.laser)
    return bytes(scenario.SerializeToString(deterministic=True))


def _add_states(states: Any, world: World, row: int, valid: Bool) -> None:
    """All ten fields where valid; elsewhere only `center_z` and `valid`, as real records have it."""
    length, width, height = world.size_m[row].tolist()
    center = (world.position_m[row] + world.origin_m).tolist()
    heading, velocity = world.heading_rad[row].tolist(), world.velocity_mps[row].tolist()
    for step, has_state in enumerate(valid.tolist()):
        x, y, z = center[step]
        if not has_state:
            states.add(center_z=world.origin_m[2], valid=False)
            continue
        states.add(
            center_x=x, center_y=y, center_z=z, length=length, width=width, height=height, heading=heading[step],
            velocity_x=velocity[step][0], velocity_y=velocity[step][1], valid=True,
        )  # fmt: skip


def _add_points(points: Any, feature: RoadFeature, origin_m: Float) -> None:
    for x, y, z in (feature.points_m + origin_m).tolist():
        points.add(x=x, y=y, z=z)


def _add_feature(message: Any, feature: RoadFeature, all_features: dict[int, RoadFeature], origin_m: Float) -> None:
    """Fill in one MapFeature."""
    if feature.kind == "lane":
        lane = message.lane
        lane.speed_limit_mph, lane.type, lane.interpolating = feature.speed_limit_mph, feature.type, feature.interpolating
        _add_points(lane.polyline, feature, origin_m)
        lane.entry_lanes.extend(feature.entry_lanes)
        lane.exit_lanes.extend(feature.exit_lanes)
        last = len(feature.points_m) - 1
        for field, others in ((lane.left_neighbors, feature.left_neighbors), (lane.right_neighbors, feature.right_neighbors)):
            for other in others:
                field.add(
                    feature_id=other, self_start_index=0, self_end_index=last, neighbor_start_index=0,
                    neighbor_end_index=len(all_features[other].points_m) - 1,
                )  # fmt: skip
        sides = ((lane.left_boundaries, feature.left_boundaries), (lane.right_boundaries, feature.right_boundaries))
        for field, others in sides:
            for other in others:
                boundary = all_features[other]
                line = boundary.type if boundary.kind == "road_line" else 0
                start, end = _stretch(feature.points_m, boundary.points_m)
                field.add(lane_start_index=start, lane_end_index=end, boundary_feature_id=other, boundary_type=line)
    elif feature.kind in ("road_line", "road_edge"):
        line = getattr(message, feature.kind)
        line.type = feature.type
        _add_points(line.polyline, feature, origin_m)
    elif feature.kind == "stop_sign":
        message.stop_sign.lane.extend(feature.stop_lanes)
        x, y, z = (feature.points_m.reshape(-1, 3)[0] + origin_m).tolist()
        message.stop_sign.position.CopyFrom(schema.MapPoint(x=x, y=y, z=z))
    else:
        _add_points(getattr(message, feature.kind).polygon, feature, origin_m)


def _stretch(lane_m: Float, boundary_m: Float) -> tuple[int, int]:
    """First and last point of a lane (n, 3) that a boundary (m, 3) runs beside; it may be shorter, longer or backwards."""
    # Every fourth point, 2 m apart, is plenty to find where two lines run side by side.
    sample = np.concatenate([boundary_m[::4, :2], boundary_m[-1:, :2]])
    distance = np.hypot(*(lane_m[:, None, :2] - sample[None]).transpose(2, 0, 1)).min(axis=1)
    beside = np.flatnonzero(distance <= distance.min() + _BESIDE_M)
    return int(beside[0]), int(beside[-1])


def _add_laser(message: Any, images: LaserImages) -> None:
    message.name = images.laser.name
    message.ri_return1.range_image_delta_compressed = encode(images.first, RANGE_PRECISION, level=_ZLIB_LEVEL)
    message.ri_return2.range_image_delta_compressed = encode(images.second, RANGE_PRECISION, level=_ZLIB_LEVEL)
    if images.column_poses is not None:
        rows = images.laser.shape[0]
        poses = np.broadcast_to(images.column_poses, (rows, *images.column_poses.shape))
        message.ri_return1.range_image_pose_delta_compressed = encode(poses, POSE_PRECISION, level=_ZLIB_LEVEL)


def _add_calibration(message: Any, laser: Laser) -> None:
    message.name = laser.name
    if laser.inclination_range_rad is None:
        message.beam_inclinations.extend(laser.inclinations_rad.tolist())
    else:
        message.beam_inclination_min, message.beam_inclination_max = laser.inclination_range_rad
    message.extrinsic.transform.extend(laser.vehicle_from_laser.ravel().tolist())
