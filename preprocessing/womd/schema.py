"""The Waymo messages that this project reads and writes, declared as a table and built without generated code.

Field numbers and types follow the public definitions of the Waymo Open Dataset (scenario, map, compressed_lidar,
camera_tokens, motion_submission and the calibration part of dataset; proto2). The messages live in a private
descriptor pool, so that they never clash with the official package in the same process. Fields that are not in the
table keep their bytes: protobuf carries unknown fields through parsing and writing.

One line of a table is `number name type`; the type is a scalar, an enum or a message, `[]` makes it repeated and
`[packed]` repeated and packed. Lines that start with `|` belong to the oneof named behind the message.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "waymo.open_dataset"

_ENUMS: dict[str, tuple[str, ...]] = {
    "Track.ObjectType": ("TYPE_UNSET", "TYPE_VEHICLE", "TYPE_PEDESTRIAN", "TYPE_CYCLIST", "TYPE_OTHER"),
    "RequiredPrediction.DifficultyLevel": ("NONE", "LEVEL_1", "LEVEL_2"),
    "TrafficSignalLaneState.State": (
        "LANE_STATE_UNKNOWN",
        "LANE_STATE_ARROW_STOP",
        "LANE_STATE_ARROW_CAUTION",
        "LANE_STATE_ARROW_GO",
        "LANE_STATE_STOP",
        "LANE_STATE_CAUTION",
        "LANE_STATE_GO",
        "LANE_STATE_FLASHING_STOP",
        "LANE_STATE_FLASHING_CAUTION",
    ),
    "LaneCenter.LaneType": ("TYPE_UNDEFINED", "TYPE_FREEWAY", "TYPE_SURFACE_STREET", "TYPE_BIKE_LANE"),
    "RoadLine.RoadLineType": (
        "TYPE_UNKNOWN",
        "TYPE_BROKEN_SINGLE_WHITE",
        "TYPE_SOLID_SINGLE_WHITE",
        "TYPE_SOLID_DOUBLE_WHITE",
        "TYPE_BROKEN_SINGLE_YELLOW",
        "TYPE_BROKEN_DOUBLE_YELLOW",
        "TYPE_SOLID_SINGLE_YELLOW",
        "TYPE_SOLID_DOUBLE_YELLOW",
        "TYPE_PASSING_DOUBLE_YELLOW",
    ),
    "RoadEdge.RoadEdgeType": ("TYPE_UNKNOWN", "TYPE_ROAD_EDGE_BOUNDARY", "TYPE_ROAD_EDGE_MEDIAN"),
    "LaserName.Name": ("UNKNOWN", "TOP", "FRONT", "SIDE_LEFT", "SIDE_RIGHT", "REAR"),
    "CameraName.Name": (
        "UNKNOWN",
        "FRONT",
        "FRONT_LEFT",
        "FRONT_RIGHT",
        "SIDE_LEFT",
        "SIDE_RIGHT",
        "REAR_LEFT",
        "REAR",
        "REAR_RIGHT",
    ),
    "MotionChallengeSubmission.SubmissionType": ("UNKNOWN", "MOTION_PREDICTION", "INTERACTION_PREDICTION"),
}
"""Enum names and their values 0, 1, 2, ... in order."""

_MESSAGES: dict[str, str] = {
    # --- tracks
    "ObjectState": """
        2 center_x double       3 center_y double       4 center_z double
        5 length float          6 width float           7 height float
        8 heading float         9 velocity_x float     10 velocity_y float     11 valid bool""",
    "Track": "1 id int32    2 object_type Track.ObjectType    3 states ObjectState[]",
    "RequiredPrediction": "1 track_index int32    2 difficulty RequiredPrediction.DifficultyLevel",
    # --- map
    "MapPoint": "1 x double    2 y double    3 z double",
    "TrafficSignalLaneState": "1 lane int64    2 state TrafficSignalLaneState.State    3 stop_point MapPoint",
    "DynamicMapState": "1 lane_states TrafficSignalLaneState[]",
    "BoundarySegment": """
        1 lane_start_index int32    2 lane_end_index int32    3 boundary_feature_id int64
        4 boundary_type RoadLine.RoadLineType""",
    "LaneNeighbor": """
        1 feature_id int64    2 self_start_index int32    3 self_end_index int32
        4 neighbor_start_index int32    5 neighbor_end_index int32    6 boundaries BoundarySegment[]""",
    "LaneCenter": """
        1 speed_limit_mph double    2 type LaneCenter.LaneType    3 interpolating bool    8 polyline MapPoint[]
        9 entry_lanes int64[packed]    10 exit_lanes int64[packed]
        11 left_neighbors LaneNeighbor[]    12 right_neighbors LaneNeighbor[]
        13 left_boundaries BoundarySegment[]    14 right_boundaries BoundarySegment[]""",
    "RoadLine": "1 type RoadLine.RoadLineType    2 polyline MapPoint[]",
    "RoadEdge": "1 type RoadEdge.RoadEdgeType    2 polyline MapPoint[]",
    "StopSign": "1 lane int64[]    2 position MapPoint",
    "Crosswalk": "1 polygon MapPoint[]",
    "SpeedBump": "1 polygon MapPoint[]",
    "Driveway": "1 polygon MapPoint[]",
    "MapFeature oneof feature_data": """
        1 id int64    | 3 lane LaneCenter    | 4 road_line RoadLine    | 5 road_edge RoadEdge    | 7 stop_sign StopSign
        | 8 crosswalk Crosswalk    | 9 speed_bump SpeedBump    | 10 driveway Driveway""",
    # --- LiDAR
    "LaserName": "",
    "Transform": "1 transform double[]",
    "LaserCalibration": """
        1 name LaserName.Name    2 beam_inclinations double[]    3 beam_inclination_min double
        4 beam_inclination_max double    5 extrinsic Transform""",
    "CompressedRangeImage": "1 range_image_delta_compressed bytes    4 range_image_pose_delta_compressed bytes",
    "Metadata": "1 shape int32[]    2 quant_precision float[]",
    "DeltaEncodedData": "1 residual sint64[packed]    2 mask uint32[packed]    3 metadata Metadata",
    # The same bytes as DeltaEncodedData: a packed field travels as a length and its varints, which NumPy reads faster.
    "PackedDeltaData": "1 residual bytes    2 mask bytes    3 metadata Metadata",
    "CompressedLaser": "1 name LaserName.Name    2 ri_return1 CompressedRangeImage    3 ri_return2 CompressedRangeImage",
    "CompressedFrameLaserData": """
        1 lasers CompressedLaser[]    2 laser_calibrations LaserCalibration[]    3 pose Transform""",
    # --- camera tokens
    "CameraName": "",
    "CameraTokens": "1 camera_name CameraName.Name    2 tokens uint32[packed]",
    "FrameCameraTokens": "1 camera_tokens CameraTokens[]",
    # --- the record
    "Scenario": """
        1 timestamps_seconds double[]    2 tracks Track[]    4 objects_of_interest int32[]    5 scenario_id string
        6 sdc_track_index int32    7 dynamic_map_states DynamicMapState[]    8 map_features MapFeature[]
        10 current_time_index int32    11 tracks_to_predict RequiredPrediction[]
        12 compressed_frame_laser_data CompressedFrameLaserData[]    13 frame_camera_tokens FrameCameraTokens[]""",
    # --- the same bytes as the messages above, with the many small parts left as bytes (for `wire`)
    "TrackParts": "3 states bytes[]",
    "LaneParts": "8 polyline bytes[]",
    "LineParts": "2 polyline bytes[]",
    "OutlineParts": "1 polygon bytes[]",
    # --- challenge submission
    "Trajectory": "2 center_x float[packed]    3 center_y float[packed]",
    "ScoredTrajectory": "1 trajectory Trajectory    2 confidence float",
    "SingleObjectPrediction": "1 object_id int32    2 trajectories ScoredTrajectory[]",
    "PredictionSet": "1 predictions SingleObjectPrediction[]",
    "ObjectTrajectory": "1 object_id int32    2 trajectory Trajectory",
    "ScoredJointTrajectory": "2 trajectories ObjectTrajectory[]    3 confidence float",
    "JointPrediction": "1 joint_trajectories ScoredJointTrajectory[]",
    "ChallengeScenarioPredictions oneof prediction_set": """
        1 scenario_id string    | 2 single_predictions PredictionSet    | 3 joint_prediction JointPrediction""",
    "MotionChallengeSubmission": """
        1 scenario_predictions ChallengeScenarioPredictions[]
        2 submission_type MotionChallengeSubmission.SubmissionType
        3 account_name string    4 unique_method_name string    5 authors string[]    6 affiliation string
        7 description string    8 method_link string    9 uses_lidar_data bool    10 uses_camera_data bool
        11 uses_public_model_pretraining bool    12 num_model_parameters string    13 public_model_names string[]""",
}

_SCALARS: dict[str, FieldDescriptorProto.Type.ValueType] = {
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "sint64": FieldDescriptorProto.TYPE_SINT64,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
}

_FIELD = re.compile(r"(?P<oneof>\|\s*)?(?P<number>\d+) (?P<name>\w+) (?P<type>[\w.]+)(?P<repeated>\[(?P<packed>packed)?\])?")


def _file_descriptor() -> FileDescriptorProto:
    """The tables as protobuf describes a .proto file."""
    file = FileDescriptorProto(name="limtr_womd.proto", package=PACKAGE, syntax="proto2")
    for heading, table in _MESSAGES.items():
        name, _, oneof = heading.partition(" oneof ")
        message = file.message_type.add(name=name)
        if oneof:
            message.oneof_decl.add(name=oneof)
        for enum, values in _ENUMS.items():
            if enum.startswith(f"{name}."):
                declared = message.enum_type.add(name=enum.partition(".")[2])
                for number, value in enumerate(values):
                    declared.value.add(name=value, number=number)
        assert not _FIELD.sub("", table).strip(), f"the table of {name} holds what is no field"
        for entry in _FIELD.finditer(table):
            _add_field(message.field.add(), entry)
    return file


def _add_field(field: FieldDescriptorProto, entry: re.Match[str]) -> None:
    """Fill in one field from its line of the table."""
    field.name, field.number = entry["name"], int(entry["number"])
    field.label = FieldDescriptorProto.LABEL_REPEATED if entry["repeated"] else FieldDescriptorProto.LABEL_OPTIONAL
    if entry["packed"]:
        field.options.packed = True
    if entry["oneof"]:
        field.oneof_index = 0
    kind = entry["type"]
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = FieldDescriptorProto.TYPE_ENUM if kind in _ENUMS else FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"


_POOL: Any = DescriptorPool()
_POOL.Add(_file_descriptor())


def _message_class(name: str) -> Any:
    """The class of a message; `Any`, because its fields are known only to the descriptor."""
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


ObjectState = _message_class("ObjectState")
Track = _message_class("Track")
RequiredPrediction = _message_class("RequiredPrediction")
MapPoint = _message_class("MapPoint")
TrafficSignalLaneState = _message_class("TrafficSignalLaneState")
DynamicMapState = _message_class("DynamicMapState")
BoundarySegment = _message_class("BoundarySegment")
LaneNeighbor = _message_class("LaneNeighbor")
LaneCenter = _message_class("LaneCenter")
RoadLine = _message_class("RoadLine")
RoadEdge = _message_class("RoadEdge")
StopSign = _message_class("StopSign")
Crosswalk = _message_class("Crosswalk")
SpeedBump = _message_class("SpeedBump")
Driveway = _message_class("Driveway")
MapFeature = _message_class("MapFeature")
LaserName = _message_class("LaserName")
Transform = _message_class("Transform")
LaserCalibration = _message_class("LaserCalibration")
CompressedRangeImage = _message_class("CompressedRangeImage")
Metadata = _message_class("Metadata")
DeltaEncodedData = _message_class("DeltaEncodedData")
PackedDeltaData = _message_class("PackedDeltaData")
CompressedLaser = _message_class("CompressedLaser")
CompressedFrameLaserData = _message_class("CompressedFrameLaserData")
CameraName = _message_class("CameraName")
CameraTokens = _message_class("CameraTokens")
FrameCameraTokens = _message_class("FrameCameraTokens")
Scenario = _message_class("Scenario")
TrackParts = _message_class("TrackParts")
LaneParts = _message_class("LaneParts")
LineParts = _message_class("LineParts")
OutlineParts = _message_class("OutlineParts")
Trajectory = _message_class("Trajectory")
ScoredTrajectory = _message_class("ScoredTrajectory")
SingleObjectPrediction = _message_class("SingleObjectPrediction")
PredictionSet = _message_class("PredictionSet")
ObjectTrajectory = _message_class("ObjectTrajectory")
ScoredJointTrajectory = _message_class("ScoredJointTrajectory")
JointPrediction = _message_class("JointPrediction")
ChallengeScenarioPredictions = _message_class("ChallengeScenarioPredictions")
MotionChallengeSubmission = _message_class("MotionChallengeSubmission")
