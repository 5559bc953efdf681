"""Map features of a Scenario as arrays, with MTR's type numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from limtr.scene import IntArray
from preprocessing.womd import schema
from preprocessing.womd.wire import PartReader

UNKNOWN_TYPE = -1
LANE_TYPES = {0: UNKNOWN_TYPE, 1: 1, 2: 2, 3: 3}
"""Undefined, freeway, surface street, bike lane."""
ROAD_LINE_TYPES = {0: UNKNOWN_TYPE, 1: 6, 2: 7, 3: 8, 4: 9, 5: 10, 6: 11, 7: 12, 8: 13}
"""Unknown; white broken, solid, solid double; yellow broken, broken double, solid, solid double, passing double."""
ROAD_EDGE_TYPES = {0: UNKNOWN_TYPE, 1: 15, 2: 16}
"""Unknown, boundary, median."""
STOP_SIGN_TYPE, CROSSWALK_TYPE, SPEED_BUMP_TYPE = 17, 18, 19
DRIVEWAY_TYPE = 20
"""MTR knows no driveways (they came with WOMD 1.2 and make it fail); this is the next free number."""

_TYPES = {"lane": LANE_TYPES, "road_line": ROAD_LINE_TYPES, "road_edge": ROAD_EDGE_TYPES}
_SINGLE_TYPES = {
    "stop_sign": STOP_SIGN_TYPE, "crosswalk": CROSSWALK_TYPE, "speed_bump": SPEED_BUMP_TYPE, "driveway": DRIVEWAY_TYPE,
}  # fmt: skip

POINT_READER = PartReader(schema.MapPoint)


@dataclass(frozen=True, kw_only=True)
class MapFeatures:
    """E map features with M points in all, in the record's order and world coordinates."""

    points_m: npt.NDArray[np.float64]
    """(M, 3) feature after feature."""
    length: IntArray
    """(E,) points of each feature, at least 1."""
    type: IntArray
    """(E,) MTR's type numbers, 20 for driveways."""
    id: IntArray
    """(E,) ids of the record."""


def read_map(map_features: Sequence[Any]) -> MapFeatures:
    """The features that have points; numbers are not checked for being finite.

    Crosswalks, speed bumps and driveways are the corners of closed outlines (the first is not repeated), a stop sign is its
    position.
    """
    parts: list[bytes] = []
    rows: list[tuple[int, int, int]] = []
    for feature in map_features:
        points = feature_points(feature)
        if points:
            parts += points
            rows.append((len(points), feature_type(feature), feature.id))
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return MapFeatures(points_m=POINT_READER.read(parts), length=table[:, 0], type=table[:, 1], id=table[:, 2])


def feature_type(feature: Any) -> int:
    """MTR's type number of one `schema.MapFeature`."""
    name = feature.WhichOneof("feature_data")
    types = _TYPES.get(name)
    if types is not None:
        return types[getattr(feature, name).type]
    return UNKNOWN_TYPE if name is None else _SINGLE_TYPES[name]


def has_points(feature: Any) -> bool:
    """Whether one `schema.MapFeature` has any."""
    name = feature.WhichOneof("feature_data")
    if name is None:
        return False
    kind = getattr(feature, name)
    if name == "stop_sign":
        return bool(kind.HasField("position"))
    return bool(kind.polyline if name in _TYPES else kind.polygon)


def feature_points(feature: Any) -> Sequence[bytes]:
    """The serialized points of one feature; none if it is of no known kind."""
    match feature.WhichOneof("feature_data"):
        case "lane":
            points: Sequence[bytes] = schema.LaneParts.FromString(feature.lane.SerializeToString()).polyline
            return points
        case "road_line" | "road_edge" as name:
            points = schema.LineParts.FromString(getattr(feature, name).SerializeToString()).polyline
            return points
        case "stop_sign":
            sign = feature.stop_sign
            return [sign.position.SerializeToString()] if sign.HasField("position") else []
        case "crosswalk" | "speed_bump" | "driveway" as name:
            points = schema.OutlineParts.FromString(getattr(feature, name).SerializeToString()).polygon
            return points
        case _:
            return []
