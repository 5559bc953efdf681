"""Small tables of objects whose numbers can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.report.object_table import ObjectTable

HORIZONS, MODES = 3, 6


def object_table(num: int, **columns: Any) -> ObjectTable:
    """`num` vehicles that go straight, each with two modes of equal score and nothing measured, but for `columns`."""
    has_mode = np.zeros((num, MODES), bool)
    has_mode[:, :2] = True
    values: dict[str, Any] = {
        "scenario_id": np.array([f"s{row}" for row in range(num)], dtype=object),
        "object_id": np.arange(num),
        "kind": np.ones(num, np.int64),
        "bucket": np.ones(num, np.int64),
        "speed_mps": np.zeros(num),
        "distance_m": np.zeros(num),
        "lidar_points": np.zeros(num),
        "nearest_m": np.full((num, 16), np.nan, np.float32),
        "likeliest_m": np.full((num, 16), np.nan, np.float32),
        "nearest_mode": np.full(num, -1),
        "distances": np.full((num, HORIZONS, 4), np.nan),
        "scores": np.where(has_mode, 0.5, 0.0),
        "has_mode": has_mode,
        "outcomes": np.full((num, HORIZONS, MODES), -1, np.int8),
    }
    values.update({name: np.asarray(value) for name, value in columns.items()})
    return ObjectTable(**values)


def with_errors(min_ade_m: list[float], **columns: Any) -> ObjectTable:
    """As `object_table`, with a minADE at every horizon."""
    distances = np.full((len(min_ade_m), HORIZONS, 4), np.nan)
    distances[:, :, 0] = np.array(min_ade_m)[:, None]
    return object_table(len(min_ade_m), distances=distances, **columns)
