"""The message table against bytes that Waymo's own code wrote, and against the wire format."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.unknown_fields import UnknownFieldSet

from preprocessing.womd import schema
from preprocessing.womd.tfrecord import iter_records

GOLDEN = Path(__file__).parents[2] / "golden" / "lidar"


def count_unknown(message: Any) -> int:
    """Fields of the message and its parts that the table does not name."""
    number = len(UnknownFieldSet(message))
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            number += sum(map(count_unknown, value if hasattr(value, "__len__") else [value]))
    return number


@pytest.mark.parametrize("name", ["crops_golden.tfrecord", "synthetic_womd_lidar.tfrecord"])
def test_official_records_survive_byte_for_byte_and_hold_no_unknown_field(name: str) -> None:
    for _, data in iter_records(GOLDEN / name):
        scenario = schema.Scenario.FromString(data)
        assert scenario.SerializeToString() == data
        assert count_unknown(scenario) == 0
        assert len(scenario.compressed_frame_laser_data) > 0


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (schema.LaneCenter(entry_lanes=[1, 300]), "4a0301ac02"),
        (schema.StopSign(lane=[1, 2]), "08010802"),
        (schema.Scenario(objects_of_interest=[5, 6]), "20052006"),
        (schema.DeltaEncodedData(residual=[-1, 1], mask=[7]), "0a020102" + "120107"),
        (schema.Metadata(shape=[4, 5]), "08040805"),
        (schema.Trajectory(center_x=[1.0]), "1204" + "0000803f"),
        (schema.CameraTokens(camera_name=schema.CameraName.FRONT, tokens=[3, 300]), "08011203" + "03ac02"),
        (schema.TrafficSignalLaneState(lane=-1, state=8), "08ffffffffffffffffff01" + "1008"),
        (schema.ObjectState(valid=False), "5800"),
    ],
    ids=["packed-lanes", "unpacked-lanes", "unpacked-ids", "zigzag", "shape", "floats", "tokens", "light", "set-to-default"],
)
def test_wire_format(message: Any, expected: str) -> None:
    assert message.SerializeToString().hex() == expected


# The field numbers of the public definitions, stated a second time: most of these no official file in the tests carries.
NUMBERS = {
    "Scenario": {"timestamps_seconds": 1, "tracks": 2, "objects_of_interest": 4, "scenario_id": 5, "sdc_track_index": 6,
                 "dynamic_map_states": 7, "map_features": 8, "current_time_index": 10, "tracks_to_predict": 11,
                 "compressed_frame_laser_data": 12, "frame_camera_tokens": 13},
    "Track": {"id": 1, "object_type": 2, "states": 3},
    "ObjectState": {"center_x": 2, "center_y": 3, "center_z": 4, "length": 5, "width": 6, "height": 7, "heading": 8,
                    "velocity_x": 9, "velocity_y": 10, "valid": 11},
    "RequiredPrediction": {"track_index": 1, "difficulty": 2},
    "TrafficSignalLaneState": {"lane": 1, "state": 2, "stop_point": 3},
    "MapFeature": {"id": 1, "lane": 3, "road_line": 4, "road_edge": 5, "stop_sign": 7, "crosswalk": 8, "speed_bump": 9,
                   "driveway": 10},
    "LaneCenter": {"speed_limit_mph": 1, "type": 2, "interpolating": 3, "polyline": 8, "entry_lanes": 9, "exit_lanes": 10,
                   "left_neighbors": 11, "right_neighbors": 12, "left_boundaries": 13, "right_boundaries": 14},
    "BoundarySegment": {"lane_start_index": 1, "lane_end_index": 2, "boundary_feature_id": 3, "boundary_type": 4},
    "LaneNeighbor": {"feature_id": 1, "self_start_index": 2, "self_end_index": 3, "neighbor_start_index": 4,
                     "neighbor_end_index": 5, "boundaries": 6},
    "RoadLine": {"type": 1, "polyline": 2},
    "RoadEdge": {"type": 1, "polyline": 2},
    "StopSign": {"lane": 1, "position": 2},
    "Driveway": {"polygon": 1},
    "LaserCalibration": {"name": 1, "beam_inclinations": 2, "beam_inclination_min": 3, "beam_inclination_max": 4,
                         "extrinsic": 5},
    "CompressedRangeImage": {"range_image_delta_compressed": 1, "range_image_pose_delta_compressed": 4},
    "CompressedLaser": {"name": 1, "ri_return1": 2, "ri_return2": 3},
    "CompressedFrameLaserData": {"lasers": 1, "laser_calibrations": 2, "pose": 3},
    "Trajectory": {"center_x": 2, "center_y": 3},
    "SingleObjectPrediction": {"object_id": 1, "trajectories": 2},
    "ChallengeScenarioPredictions": {"scenario_id": 1, "single_predictions": 2, "joint_prediction": 3},
    "ScoredJointTrajectory": {"trajectories": 2, "confidence": 3},
    "MotionChallengeSubmission": {"scenario_predictions": 1, "submission_type": 2, "account_name": 3, "unique_method_name": 4,
                                  "authors": 5, "affiliation": 6, "description": 7, "method_link": 8, "uses_lidar_data": 9,
                                  "uses_camera_data": 10, "uses_public_model_pretraining": 11, "num_model_parameters": 12,
                                  "public_model_names": 13},
}  # fmt: skip


@pytest.mark.parametrize("message", NUMBERS)
def test_fields_have_waymos_numbers(message: str) -> None:
    fields = getattr(schema, message).DESCRIPTOR.fields
    assert {field.name: field.number for field in fields} == NUMBERS[message]


def test_enums_have_waymos_numbers() -> None:
    assert schema.Track.TYPE_CYCLIST == 3
    assert schema.LaneCenter.TYPE_BIKE_LANE == 3
    assert schema.RoadLine.TYPE_PASSING_DOUBLE_YELLOW == 8
    assert schema.RoadEdge.TYPE_ROAD_EDGE_MEDIAN == 2
    assert schema.TrafficSignalLaneState.LANE_STATE_FLASHING_CAUTION == 8
    assert schema.RequiredPrediction.LEVEL_2 == 2
    assert schema.LaserName.Name.Value("REAR") == 5
    assert schema.MotionChallengeSubmission.INTERACTION_PREDICTION == 2


def test_a_map_feature_is_of_one_kind() -> None:
    feature = schema.MapFeature(id=4)
    feature.driveway.polygon.add(x=1.0)
    assert feature.WhichOneof("feature_data") == "driveway"
    feature.lane.speed_limit_mph = 25.0
    assert feature.WhichOneof("feature_data") == "lane"
    assert not feature.HasField("driveway")


def test_fields_of_a_later_version_keep_their_bytes() -> None:
    data = schema.Scenario(scenario_id="a").SerializeToString() + bytes.fromhex("fa3f03616263")
    assert schema.Scenario.FromString(data).SerializeToString() == data


def test_lives_beside_the_official_package() -> None:
    """Another definition of the same names in protobuf's own pool neither clashes nor is taken for ours."""
    other = FileDescriptorProto(name="another_scenario.proto", package=schema.PACKAGE, syntax="proto2")
    other.message_type.add(name="Scenario")
    descriptor_pool.Default().Add(other)
    assert descriptor_pool.Default().FindMessageTypeByName(f"{schema.PACKAGE}.Scenario") is not schema.Scenario.DESCRIPTOR
    assert schema.Scenario(scenario_id="a").scenario_id == "a"
