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

_POINTS = PartReader(schema.MapPoint)


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
        kind, points = _kind_and_points(feature)
        if points:
            parts += points
            rows.append((len(points), kind, feature.id))
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return MapFeatures(points_m=_POINTS.read(parts), length=table[:, 0], type=table[:, 1], id=table[:, 2])


def _kind_and_points(feature: Any) -> tuple[int, Sequence[bytes]]:
    """MTR's type number and the serialized points of one feature; no points if it is of no known kind."""
    match feature.WhichOneof("feature_data"):
        case "lane":
            lane = feature.lane
            return LANE_TYPES[lane.type], schema.LaneParts.FromString(lane.SerializeToString()).polyline
        case "road_line":
            line = feature.road_line
            return ROAD_LINE_TYPES[line.type], schema.LineParts.FromString(line.SerializeToString()).polyline
        case "road_edge":
            edge = feature.road_edge
            return ROAD_EDGE_TYPES[edge.type], schema.LineParts.FromString(edge.SerializeToString()).polyline
        case "stop_sign":
            sign = feature.stop_sign
            return STOP_SIGN_TYPE, [sign.position.SerializeToString()] if sign.HasField("position") else []
        case "crosswalk":
            return CROSSWALK_TYPE, schema.OutlineParts.FromString(feature.crosswalk.SerializeToString()).polygon
        case "speed_bump":
            return SPEED_BUMP_TYPE, schema.OutlineParts.FromString(feature.speed_bump.SerializeToString()).polygon
        case "driveway":
            return DRIVEWAY_TYPE, schema.OutlineParts.FromString(feature.driveway.SerializeToString()).polygon
        case _:
            return UNKNOWN_TYPE, []
