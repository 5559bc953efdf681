"""The shard record: a Scene as TFDS features and back, and as the bytes of one array_record entry.

Only valid states are stored, of those each field only where it changes (parked cars, constant sizes), every map point once,
and every traffic light once with its observations. Everything is exact except the LiDAR crops, whose precision is:
points 1 mm (stored as int16 multiples of 1 mm, off by at most 0.5 mm; a box that reaches beyond 32 m coarsens the unit of
its scene), range 2 mm (uint16 up to 131 m, coarser beyond), intensity and elongation float16 (relative 2**-11, clipped to
+-65504 so that nothing becomes infinite).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from limtr.scene import STATE_FIELDS, LidarCrops, Scene, SceneError

POINT_UNIT_M = 0.001
RANGE_UNIT_M = 0.002
FLOAT16_MAX = 65504.0
_REMEDY = "it is damaged or of another version of this package: run `limtr preprocess` again"

# name -> (shape, dtype, what it is); None is a length that differs from scene to scene.
FIELDS: dict[str, tuple[tuple[int | None, ...], type[np.generic], str]] = {
    "origin_m": ((3,), np.float64, "world position of the scene frame's zero"),
    "timestamps_s": ((None,), np.float64, "(T,)"),
    "track_id": ((None,), np.int64, "(A,) object ids"),
    "track_type": ((None,), np.uint8, "(A,) 0 unset, 1 vehicle, 2 pedestrian, 3 cyclist, 4 other"),
    "track_valid": ((None,), np.uint8, "validity of tracks x steps row by row, eight to a byte, high bit first"),
    "state_changes": ((None,), np.uint8, "bits, field by field, for the valid states in that order: 1 next value, 0 as before"),
    "state_values": ((None,), np.float32, "the values, field by field: " + ", ".join(STATE_FIELDS)),
    "tracks_to_predict": ((None,), np.int32, "(C,) rows"),
    "difficulty": ((None,), np.uint8, "(C,) 0 none, 1 level 1, 2 level 2"),
    "objects_of_interest": ((None,), np.int64, "object ids of the interactive group"),
    "map_points_m": ((None, 3), np.float32, "(M, 3) every map point once, feature after feature"),
    "feature_length": ((None,), np.int32, "(E,) points of each map feature"),
    "feature_type": ((None,), np.int16, "(E,) polyline type ids, -1 unknown"),
    "feature_id": ((None,), np.int64, "(E,) ids of the record"),
    "polyline_length": ((None,), np.uint8, "(P,) points (1..20) of each polyline cut from the map points"),
    "signal_step": ((None,), np.uint16, "(G,) time step of each traffic-light observation"),
    "signal_light": ((None,), np.uint16, "(G,) row of the observed light"),
    "signal_state": ((None,), np.uint8, "(G,) TrafficSignalLaneState.State"),
    "light_lane": ((None,), np.int64, "map feature id of the lane of each light"),
    "light_stop_m": ((None, 3), np.float32, "stop point of each light"),
    "lidar_points": ((None, 3), np.int16, "(N, 3) multiples of lidar_units_m[0] in the box frame of the step"),
    "lidar_range": ((None,), np.uint16, "(N,) multiples of lidar_units_m[1]"),
    "lidar_intensity": ((None,), np.float16, "(N,)"),
    "lidar_elongation": ((None,), np.float16, "(N,)"),
    "lidar_units_m": ((2,), np.float64, "units of lidar_points and lidar_range"),
    "lidar_count": ((None, 11), np.int32, "(C, 11) stored points per target and history step"),
    "lidar_count_in_box": ((None, 11), np.int32, "(C, 11) points found before the cap"),
    "lidar_empty_share": ((1,), np.float64, "share of valid target-frames without a point; NaN if there are none"),
}  # fmt: skip
SCALARS: dict[str, str] = {
    "current_step": "index of the current step",
    "sdc_track": "row of the recording vehicle, -1 if unknown",
    "has_lidar": "1 if the scene has LiDAR crops, else 0 and the lidar fields are empty",
    "lidar_best_shift": "frame shift between boxes and LiDAR that catches most points",
}


@cache
def scene_features() -> Any:
    """The TFDS `FeaturesDict` of a shard record: every array stored as its raw bytes."""
    from tensorflow_datasets import features

    connectors: dict[str, Any] = {"scenario_id": features.Text(doc="id of the WOMD scenario")}
    for name, meaning in SCALARS.items():
        connectors[name] = features.Scalar(dtype=np.int64, doc=meaning)
    for name, (shape, dtype, meaning) in FIELDS.items():
        connectors[name] = features.Tensor(shape=shape, dtype=dtype, encoding="bytes", doc=meaning)
    return features.FeaturesDict(connectors)


def scene_to_example(scene: Scene) -> dict[str, Any]:
    """The scene as the values of `scene_features()`.

    Raises:
        SceneError: the scene contradicts itself or holds a number that its field cannot store.
    """
    scene.validate()
    example: dict[str, Any] = {
        "scenario_id": scene.scenario_id,
        "current_step": scene.current_step,
        "sdc_track": scene.sdc_track,
        "track_valid": np.packbits(scene.track_valid.ravel()),
        **_states_to_example(scene.track_states[scene.track_valid]),
        **_lights_to_example(scene),
        **_lidar_to_example(scene),
    }
    for name in FIELDS.keys() - example.keys():
        example[name] = getattr(scene, name)
    for name, (_, dtype, _) in FIELDS.items():
        example[name] = _narrow(scene.scenario_id, name, example[name], np.dtype(dtype))
    return example


def example_to_scene(example: Mapping[str, Any], *, lidar_points: int | None = None) -> Scene:
    """The scene of a record as `scene_features()` decodes it; checked.

    Args:
        example: the record.
        lidar_points: so many points of every target and frame, the first stored ones, which are an unbiased sample; all by
            default.

    Raises:
        SceneError: the fields contradict each other.
    """
    scenario_id = example["scenario_id"]
    num_tracks, num_steps = len(example["track_id"]), len(example["timestamps_s"])
    bits = np.unpackbits(np.asarray(example["track_valid"]), count=num_tracks * num_steps)
    valid = bits.reshape(num_tracks, num_steps).astype(bool)
    name = scenario_id.decode() if isinstance(scenario_id, bytes) else str(scenario_id)
    values, num_valid = np.asarray(example["state_values"]), int(valid.sum())
    changes = np.unpackbits(np.asarray(example["state_changes"]), count=len(STATE_FIELDS) * num_valid)
    if int(changes.sum()) != len(values):
        raise SceneError(f"scenario {name!r}: {len(values)} state values stored for {int(changes.sum())} changes")
    states = np.zeros((num_tracks, num_steps, len(STATE_FIELDS)), dtype=np.float32)
    # The first valid state of every field counts as a change, so that no field reaches back into the one before.
    states[valid] = values[np.cumsum(changes) - 1].reshape(len(STATE_FIELDS), num_valid).T
    lights = np.asarray(example["signal_light"]).astype(np.int64)

    def integers(field: str) -> npt.NDArray[np.int64]:
        return np.asarray(example[field]).astype(np.int64)

    def floats(field: str) -> npt.NDArray[np.float32]:
        return np.asarray(example[field]).astype(np.float32)

    return Scene(
        scenario_id=name,
        origin_m=np.asarray(example["origin_m"]).astype(np.float64),
        timestamps_s=np.asarray(example["timestamps_s"]).astype(np.float64),
        current_step=int(example["current_step"]),
        sdc_track=int(example["sdc_track"]),
        track_id=integers("track_id"),
        track_type=integers("track_type"),
        track_states=states,
        track_valid=valid,
        tracks_to_predict=integers("tracks_to_predict"),
        difficulty=integers("difficulty"),
        objects_of_interest=integers("objects_of_interest"),
        map_points_m=floats("map_points_m"),
        feature_length=integers("feature_length"),
        feature_type=integers("feature_type"),
        feature_id=integers("feature_id"),
        polyline_length=integers("polyline_length"),
        signal_step=integers("signal_step"),
        signal_lane=integers("light_lane")[lights],
        signal_state=integers("signal_state"),
        signal_stop_m=floats("light_stop_m")[lights],
        lidar=_lidar_from_example(example, lidar_points) if int(example["has_lidar"]) else None,
    ).validate()


def encode_scene(scene: Scene) -> bytes:
    """One array_record entry: TFDS's own serialisation, the same bytes for the same scene in every process.

    Raises:
        SceneError: as `scene_to_example`.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    data = scene_features().serialize_example(scene_to_example(scene))
    # A protobuf map has no order of its own; the deterministic form sorts the field names.
    return bytes(tf_example_pb2.Example.FromString(data).SerializeToString(deterministic=True))


def decode_scene(data: bytes, *, lidar_points: int | None = None) -> Scene:
    """The scene in one array_record entry; the inverse of `encode_scene` up to the precision of the LiDAR crops.

    Raises:
        SceneError: the bytes are no such entry, or its fields contradict each other.
    """
    return example_to_scene(read_example(data), lidar_points=lidar_points)


def read_example(data: bytes) -> dict[str, Any]:
    """What `scene_features()` decodes from an array_record entry, several times as fast; arrays are not to be written to.

    Raises:
        SceneError: the bytes are no entry with these fields.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        stored = tf_example_pb2.Example.FromString(data).features.feature
    except DecodeError as error:
        raise SceneError(f"a shard record of {len(data)} bytes cannot be parsed ({error}); {_REMEDY}") from error
    example: dict[str, Any] = {}
    for name in ("scenario_id", *SCALARS, *FIELDS):
        values = stored[name].int64_list.value if name in SCALARS else stored[name].bytes_list.value
        if len(values) != 1:
            raise SceneError(f"a shard record has {len(values)} values of field {name}, expected one; {_REMEDY}")
        example[name] = values[0]
    for name, (shape, dtype, _) in FIELDS.items():
        try:
            array = np.frombuffer(example[name], dtype=np.dtype(dtype).newbyteorder("<"))
            example[name] = array.reshape([-1 if size is None else size for size in shape])
        except ValueError as error:
            size = len(example[name])
            raise SceneError(
                f"a shard record's field {name} has {size} bytes, which are no {shape} of {dtype.__name__}; {_REMEDY}"
            ) from error
    return example


def _narrow(scenario_id: str, name: str, value: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    array = np.asarray(value)
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            found = f"{array.min()}..{array.max()}"
            raise SceneError(f"scenario {scenario_id!r}: field {name} must be within {limits.min}..{limits.max}, has {found}")
    return np.ascontiguousarray(array, dtype=dtype)


def _states_to_example(states: npt.NDArray[np.float32]) -> dict[str, Any]:
    # Compared bit by bit: what comes back must be what went in, the sign of a zero included.
    by_field = np.ascontiguousarray(states.T)
    bits = by_field.view(np.uint32)
    changes = np.ones(by_field.shape, dtype=bool)
    changes[:, 1:] = bits[:, 1:] != bits[:, :-1]
    return {"state_changes": np.packbits(changes), "state_values": by_field[changes]}


def _lights_to_example(scene: Scene) -> dict[str, Any]:
    stop_bits = np.ascontiguousarray(scene.signal_stop_m, dtype=np.float32).view(np.uint32).astype(np.int64)
    keys = np.concatenate([scene.signal_lane[:, None], stop_bits], axis=1)
    _, first, light = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return {"signal_light": light.ravel(), "light_lane": scene.signal_lane[first], "light_stop_m": scene.signal_stop_m[first]}


def _lidar_to_example(scene: Scene) -> dict[str, Any]:
    lidar = scene.lidar
    points, features = (lidar.points_m, lidar.features) if lidar else (np.zeros((0, 3)), np.zeros((0, 3)))
    if lidar and bool((features[:, 0] < 0).any()):
        raise SceneError(f"scenario {scene.scenario_id!r}: field lidar.features must have ranges of at least 0 m")
    point_unit = max(POINT_UNIT_M, float(np.abs(points).max(initial=0.0)) / np.iinfo(np.int16).max)
    range_unit = max(RANGE_UNIT_M, float(features[:, 0].max(initial=0.0)) / np.iinfo(np.uint16).max)
    no_frames = np.zeros((0, 11), dtype=np.int64)
    return {
        "has_lidar": int(lidar is not None),
        "lidar_best_shift": lidar.best_shift if lidar else 0,
        "lidar_empty_share": [lidar.empty_share if lidar else float("nan")],
        "lidar_units_m": [point_unit, range_unit],
        "lidar_points": np.rint(points.astype(np.float64) / point_unit),
        "lidar_range": np.rint(features[:, 0].astype(np.float64) / range_unit),
        "lidar_intensity": np.clip(features[:, 1], -FLOAT16_MAX, FLOAT16_MAX),
        "lidar_elongation": np.clip(features[:, 2], -FLOAT16_MAX, FLOAT16_MAX),
        "lidar_count": lidar.count if lidar else no_frames,
        "lidar_count_in_box": lidar.count_in_box if lidar else no_frames,
    }


def _lidar_from_example(example: Mapping[str, Any], most: int | None) -> LidarCrops:
    point_unit, range_unit = (float(unit) for unit in example["lidar_units_m"])
    stored = np.asarray(example["lidar_count"]).astype(np.int64)
    count = stored if most is None else np.minimum(stored, most)
    points, *channels = (
        _first(np.asarray(example[name]), stored, count)
        for name in ("lidar_points", "lidar_range", "lidar_intensity", "lidar_elongation")
    )
    features = np.empty((len(points), 3), dtype=np.float32)
    features[:, 0] = _multiples(range_unit, "u2")[channels[0]]
    features[:, 1], features[:, 2] = channels[1:]
    return LidarCrops(
        # As unsigned numbers, so that they are places in the table.
        points_m=_multiples(point_unit, "i2")[np.ascontiguousarray(points).view(np.uint16)],
        features=features,
        count=count,
        count_in_box=np.asarray(example["lidar_count_in_box"]).astype(np.int64),
        empty_share=float(np.asarray(example["lidar_empty_share"])[0]),
        best_shift=int(example["lidar_best_shift"]),
    )


def _first(values: npt.NDArray[Any], stored: npt.NDArray[np.int64], count: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The first `count` (C, 11) of the `stored` (C, 11) values of every target and frame."""
    if count is stored or np.array_equal(count, stored):
        return values
    stop = np.cumsum(stored)
    starts = (stop - stored.ravel()).tolist()
    return np.concatenate([values[start : start + kept] for start, kept in zip(starts, count.ravel().tolist(), strict=True)])


@lru_cache(maxsize=16)
def _multiples(unit: float, kind: str) -> npt.NDArray[np.float32]:
    """Every 16-bit multiple of a unit, in the order of the numbers read as unsigned: looking up is faster than multiplying."""
    numbers = np.arange(2**16).astype(np.uint16).view(kind)
    return (numbers.astype(np.float64) * unit).astype(np.float32)
