"""Scenario bytes to arrays: reading runs of equal messages with NumPy, against protobuf and a walk over its attributes.

    python benchmarks/scenario_parsing.py FILE.tfrecord [...]

FILE is a motion file: Waymo's, or one of `limtr synthesize --size womd`. Both ways give the same arrays (checked), in one
process, on one thread; the ratio is the median over pairs timed one after the other.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.allocator import keep_freed_memory
from preprocessing.womd import schema
from preprocessing.womd.map_features import LANE_TYPES, ROAD_EDGE_TYPES, ROAD_LINE_TYPES
from preprocessing.womd.record_arrays import ScenarioArrays, read_arrays
from preprocessing.womd.scenario import parse_scenario, record_to_scene, scenario_to_scene
from preprocessing.womd.tfrecord import iter_records

RECORDS = 4
PAIRS = 25
OUTLINES = {"crosswalk": 18, "speed_bump": 19, "driveway": 20}
LINES = {"lane": LANE_TYPES, "road_line": ROAD_LINE_TYPES, "road_edge": ROAD_EDGE_TYPES}


def attribute_walk(data: bytes, *, skip_invalid: bool = False) -> dict[str, Any]:
    """The plain way: let protobuf parse, then ask every message for its fields."""
    scenario = schema.Scenario.FromString(data)
    states = np.zeros((len(scenario.tracks), len(scenario.timestamps_seconds), 10))
    for row, track in enumerate(scenario.tracks):
        for step, state in enumerate(track.states):
            if not skip_invalid or state.valid:
                states[row, step] = (
                    state.center_x, state.center_y, state.center_z, state.length, state.width, state.height, state.heading,
                    state.velocity_x, state.velocity_y, state.valid,
                )  # fmt: skip
    points, features = [], []
    for feature in scenario.map_features:
        name = feature.WhichOneof("feature_data")
        part = getattr(feature, name)
        if name == "stop_sign":
            kind, corners = 17, [part.position]
        elif name in OUTLINES:
            kind, corners = OUTLINES[name], part.polygon
        else:
            kind, corners = LINES[name][part.type], part.polyline
        points += [(point.x, point.y, point.z) for point in corners]
        features.append((len(corners), kind, feature.id))
    lights = [
        (step, light.lane, light.state, light.stop_point.x, light.stop_point.y, light.stop_point.z)
        for step, moment in enumerate(scenario.dynamic_map_states)
        for light in moment.lane_states
    ]
    return {"states": states, "points_m": np.array(points), "features": np.array(features),
            "lights": np.array(lights, dtype=np.float64).reshape(-1, 6)}  # fmt: skip


def bulk(data: bytes) -> dict[str, Any]:
    """Ours, brought into the shapes of the plain way."""
    arrays: ScenarioArrays = read_arrays(data)
    states = arrays.states.reshape(len(arrays.num_states), -1, 10)
    features = arrays.features
    return {"states": states, "points_m": features.points_m,
            "features": np.column_stack([features.length, features.type, features.id]),
            "lights": np.column_stack([arrays.signals, arrays.stops_m])}  # fmt: skip


def to_scene_by_message(data: bytes) -> object:
    """A checked Scene from the parsed message."""
    return scenario_to_scene(parse_scenario(data, source=""))


def short_walk(data: bytes) -> object:
    """The walk, leaving invalid states zero."""
    return attribute_walk(data, skip_invalid=True)


def seconds(work: Callable[[bytes], object], data: bytes) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work(data)
    return time.process_time() - start


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    keep_freed_memory()  # as preprocessing does
    for file in map(Path, sys.argv[1:]):
        records = [data for _, data in islice(iter_records(file), RECORDS)]
        whole = np.zeros((0, 5))
        for data in records:
            plain, ours = attribute_walk(data), bulk(data)
            for name, array in plain.items():
                np.testing.assert_array_equal(ours[name], array, err_msg=name)
            message = parse_scenario(data, source=str(file))
            ways = (attribute_walk, bulk, short_walk, to_scene_by_message, record_to_scene)
            timed = [[seconds(way, data) for way in ways] for _ in range(PAIRS)]
            whole = np.concatenate([whole, np.array(timed)])
            shape = plain["states"].shape
            print(
                f"{file.name} {message.scenario_id}: {len(data) / 1e6:.2f} MB, {shape[0]} tracks x {shape[1]} steps "
                f"({plain['states'][..., 9].mean():.0%} valid), {len(plain['points_m'])} map points, "
                f"{len(plain['lights'])} lights"
            )
        walk, quick, short, slow_scene, scene = 1e3 * np.median(whole, axis=0)
        ratio = whole[:, 0] / whole[:, 1]
        print(
            f"  attribute walk {walk:.2f} ms, ours {quick:.2f} ms: {np.median(ratio):.1f} times as fast "
            f"({np.percentile(ratio, 10):.1f} to {np.percentile(ratio, 90):.1f}), equal arrays"
        )
        print(
            f"  a walk that leaves invalid states zero: {short:.2f} ms, "
            f"ours {np.median(whole[:, 2] / whole[:, 1]):.1f} times as fast"
        )
        print(f"  to a checked Scene: from the message {slow_scene:.2f} ms, from the bytes {scene:.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
