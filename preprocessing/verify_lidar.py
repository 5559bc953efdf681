"""`limtr verify lidar --scenario FILE.tfrecord FILE.npz`: are our points those of Waymo's decoder?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from limtr.conformance import Comparison, print_comparisons
from preprocessing.verify_files import Arrays, Float, read_arrays, read_one_scenario, relative_difference, vectors
from preprocessing.womd import schema
from preprocessing.womd.lidar import LASER_NAMES, TOP, LidarError, frame_points

TOP_TOLERANCE_M = 1.1e-3
"""Waymo's decoder places TOP points in world coordinates in float32: a millimetre at 6,400 m."""
SIDE_TOLERANCE_M = 2e-5
"""float32 at the 20 m of a side laser."""
FEATURE_TOLERANCE = 1e-4
"""Of the feature (of 1 where it is smaller): golden files may hold float32."""

_ARRAY = re.compile(r"f(?P<frame>\d+)_l(?P<laser>\d+)_(?:xyz|feat)(?P<echo>[12])")


@dataclass(frozen=True, kw_only=True)
class VerifyLidarConfig:
    """Compare decoded LiDAR points with those of Waymo's decoder."""

    scenario: Path
    """TFRecord with one Scenario whose laser frames are compared."""
    golden: Positional[Path]
    """Golden file (.npz): f{frame}_l{laser}_xyz{return} in metres in the vehicle frame, ..._feat{return}."""


def run(config: VerifyLidarConfig) -> int:
    """Print every compared quantity; 0 only if all agree."""
    return print_comparisons(list(compare(config)))


def compare(config: VerifyLidarConfig) -> Iterator[Comparison]:
    """Points and features of every frame, laser and return in the golden file; see `compare_points`.

    Raises:
        ValueError: a file is broken, or as `compare_points` says.
    """
    arrays = read_arrays(config.golden, _ARRAY, "f0_l1_xyz1")
    yield from compare_points(arrays, config.golden, read_one_scenario(config.scenario), config.scenario)


def compare_points(
    arrays: Arrays, path: Path, scenario: Any, source: Path, top_tolerance_m: float = TOP_TOLERANCE_M
) -> Iterator[Comparison]:
    """Points and features of every frame, laser and return in `arrays`, in the order of their pixels.

    Args:
        arrays: f{frame}_l{laser}_xyz{return} and ..._feat{return}.
        path: where they came from.
        scenario: a `schema.Scenario` with laser frames.
        source: where it came from.
        top_tolerance_m: of points of the TOP laser.

    Lasers are numbered by LaserName (1 TOP ... 5 REAR), or by their place in the frame if the file has a laser 0. An empty
    array of a frame or laser that the record does not have agrees with it.

    Raises:
        ValueError: an array is missing or misshapen, or frame or laser are not in the record.
    """
    found = [match for match in map(_ARRAY.fullmatch, arrays) if match]
    by_place = any(int(match["laser"]) == 0 for match in found)
    for index in sorted({int(match["frame"]) for match in found}):
        frames = scenario.compressed_frame_laser_data
        of_frame = [match for match in found if int(match["frame"]) == index]
        if index >= len(frames) and any(arrays[match[0]].size for match in of_frame):
            raise ValueError(f"{path}: has frame {index}, but {source} has {len(frames)} laser frames")
        frame = frames[index] if index < len(frames) else schema.CompressedFrameLaserData()
        numbers = {place if by_place else laser.name: place for place, laser in enumerate(frame.lasers)}
        compared = {(int(match["laser"]), int(match["echo"])) for match in of_frame}
        absent = [match for match in of_frame if int(match["laser"]) not in numbers]
        unknown = sorted({int(match["laser"]) for match in absent if arrays[match[0]].size})
        if unknown:
            raise ValueError(f"{path}: frame {index} has lasers {unknown}, the record has {sorted(numbers)}")
        for match in absent:
            yield Comparison(name=match[0], difference=0.0, tolerance=0.0, note="empty, and the record has no such laser")
        if not frame.lasers:
            continue
        try:
            points = frame_points(frame)
        except LidarError as error:
            raise ValueError(f"{source}: compressed_frame_laser_data[{index}]: {error}") from error
        for number, place in sorted(numbers.items()):
            for echo in (1, 2):
                xyz, features = points[place][echo - 1]
                # What the golden file leaves out must be empty: a lost array is not an agreement.
                if (number, echo) in compared or xyz.size:
                    name = int(frame.lasers[place].name)
                    laser = (name, top_tolerance_m if name == TOP else SIDE_TOLERANCE_M)
                    yield from _compare_return(arrays, path, (index, number, echo), laser, xyz, features)


def _compare_return(
    arrays: Arrays, path: Path, key: tuple[int, int, int], laser: tuple[int, float], xyz: Float, features: Float
) -> Iterator[Comparison]:
    frame, number, echo = key
    laser_name, tolerance = laser
    names = {kind: f"f{frame}_l{number}_{kind}{echo}" for kind in ("xyz", "feat")}
    note = f"{LASER_NAMES.get(laser_name, laser_name)}, {len(xyz)} points"
    for kind, ours, limit in (("xyz", xyz, tolerance), ("feat", features, FEATURE_TOLERANCE)):
        golden = vectors(arrays, names[kind], path)
        if golden.shape != ours.shape:
            note = f"{len(golden)} points in the golden file, {len(ours)} here"
            yield Comparison(name=names[kind], difference=math.inf, tolerance=limit, note=note)
            continue
        difference = relative_difference(ours, golden) if kind == "feat" else abs(ours - golden)
        yield Comparison(name=names[kind], difference=float(difference.max(initial=0.0)), tolerance=limit, note=note)
