"""`limtr verify crops --scenario FILE.tfrecord FILE.npz`: do our crops hold the points that they should?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from limtr.conformance import Comparison, print_comparisons
from limtr.scene import NUM_HISTORY_STEPS
from preprocessing.verify_files import Arrays, Float, read_arrays, read_one_scenario, relative_difference, vectors
from preprocessing.womd import schema
from preprocessing.womd.crops import CropConfig, crop_lidar

POINT_TOLERANCE_M = 2e-3
"""Waymo's decoder has up to 1.1 mm of float32 error on the TOP laser; we store float32 box coordinates."""
FEATURE_TOLERANCE = 1e-4
"""Of the feature (of 1 where it is smaller)."""
REFERENCE_CAP = 2048
"""LiMTR's cap: a golden crop of exactly this size may be a random choice out of more points."""

_ARRAY = re.compile(r"agent(?P<agent>\d+)_(?:track_index|frame(?P<frame>\d+)_(?:xyz|feat|near_face))")
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class VerifyCropsConfig:
    """Compare the LiDAR crops of predicted tracks with golden ones, as sets of points."""

    scenario: Path
    """TFRecord with one Scenario, its laser frames in it."""
    golden: Positional[Path]
    """Golden file (.npz): agent{k}_track_index, agent{k}_frame{t}_xyz in metres in the box frame, ..._feat, ..._near_face."""
    margin_m: float = 0.15
    """How far the boxes of the golden crops are grown on every side, in metres."""


def run(config: VerifyCropsConfig) -> int:
    """Print every compared quantity; 0 only if all agree."""
    return print_comparisons(list(compare(config)))


def compare(config: VerifyCropsConfig) -> Iterator[Comparison]:
    """Points, features and number of points of every agent and frame in the golden file.

    Raises:
        ValueError: an array is missing or misshapen, or a track or frame is not in the record.
    """
    path = config.golden
    arrays = read_arrays(path, _ARRAY, "agent0_frame0_xyz")
    scenario = read_one_scenario(config.scenario)
    found = [match for match in map(_ARRAY.fullmatch, arrays) if match]
    agents = sorted({int(match["agent"]) for match in found})
    frames = sorted({int(match["frame"]) for match in found if match["frame"] is not None})
    if frames and frames[-1] >= NUM_HISTORY_STEPS:
        raise ValueError(f"{path}: has frame {frames[-1]}, expected 0 to {NUM_HISTORY_STEPS - 1}")
    rows = [_integer(arrays, f"agent{agent}_track_index", path) for agent in agents]
    outside = [row for row in rows if not 0 <= row < len(scenario.tracks)]
    if outside:
        raise ValueError(f"{path}: names tracks {outside}, but {config.scenario} has {len(scenario.tracks)} tracks")
    # The crops of the golden file's tracks in its order, whichever tracks the record asks to predict.
    asked = schema.Scenario.FromString(scenario.SerializeToString())
    del asked.tracks_to_predict[:]
    for row in rows:
        asked.tracks_to_predict.add(track_index=row)
    crops = crop_lidar(asked, CropConfig(max_points=np.iinfo(np.int64).max, margin_m=config.margin_m))
    for position, agent in enumerate(agents):
        for frame in frames:
            name = f"agent{agent}_frame{frame}"
            xyz, features = (array.astype(np.float64) for array in crops.frame(position, frame))
            # What the golden file leaves out must be empty: a lost array is not an agreement.
            if any(key.startswith(f"{name}_") for key in arrays) or xyz.size:
                yield from _compare_crop(arrays, path, name, xyz, features)


def _compare_crop(arrays: Arrays, path: Path, name: str, xyz: Float, features: Float) -> Iterator[Comparison]:
    golden_xyz, golden_features = vectors(arrays, f"{name}_xyz", path), vectors(arrays, f"{name}_feat", path)
    if golden_xyz.shape != golden_features.shape:
        raise ValueError(f"{path}: {name}_xyz has {len(golden_xyz)} points, {name}_feat has {len(golden_features)}")
    near_face = _integer(arrays, f"{name}_near_face", path)
    capped = len(golden_xyz) == REFERENCE_CAP < len(xyz)
    distance, feature_difference = _matches(golden_xyz, golden_features, xyz, features)
    back = np.zeros(0) if capped else _matches(xyz, features, golden_xyz, golden_features)[0]
    # Points within rounding of a face may fall either way: so many may have no partner. (NaN has none either.)
    alone, alone_here = (int((~(part <= POINT_TOLERANCE_M)).sum()) for part in (distance, back))
    difference = max(alone, alone_here, 0 if capped else abs(len(xyz) - len(golden_xyz)))
    note = f"{len(golden_xyz)} golden, {len(xyz)} here" + (", the golden ones capped" if capped else "")
    yield Comparison(name=f"{name} points without partner", difference=difference, tolerance=near_face, note=note)
    matched = distance <= POINT_TOLERANCE_M
    if matched.any():
        largest = float(distance[matched].max())
        yield Comparison(name=f"{name}_xyz", difference=largest, tolerance=POINT_TOLERANCE_M)
        yield Comparison(
            name=f"{name}_feat", difference=float(feature_difference[matched].max()), tolerance=FEATURE_TOLERANCE
        )  # fmt: skip


def _matches(points: Float, features: Float, others: Float, other_features: Float) -> tuple[Float, Float]:
    """For each point: the distance to the nearest other one, and the feature difference to the most alike one within tolerance.

    Returns:
        Distances (N,) in metres, infinite where there are no others; feature differences (N,), infinite without a partner.
    """
    distance, difference = np.full(len(points), math.inf), np.full(len(points), math.inf)
    if not len(others):
        return distance, difference
    for start in range(0, len(points), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        squared: Float = np.zeros((len(points[rows]), len(others)))
        for axis in range(3):
            squared += np.square(points[rows, None, axis] - others[:, axis])
        distance[rows] = np.sqrt(squared.min(axis=1))
        here, there = np.nonzero(squared <= POINT_TOLERANCE_M**2)
        alike = relative_difference(other_features[there], features[start + here]).max(axis=1)
        np.minimum.at(difference, start + here, alike)
    return distance, difference


def _integer(arrays: Arrays, name: str, path: Path) -> int:
    """The one whole number in an array."""
    array: Any = arrays.get(name)
    if array is None or array.size != 1 or array.dtype.kind not in "iu":
        has = "is missing" if array is None else f"is {array.dtype} of shape {array.shape}"
        raise ValueError(f"{path}: array {name!r} {has}; expected one whole number")
    return int(array.reshape(()))
