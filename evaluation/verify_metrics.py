"""`limtr verify metrics`: our metrics against values of Waymo's official op."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tyro.conf import Positional

from evaluation.accumulate import MotionMetrics
from evaluation.metric_config import Bucketing, MotionMetricsConfig
from evaluation.scenario_predictions import ScenarioPredictions
from limtr.conformance import Comparison, print_comparisons
from limtr.files import read_json
from limtr.scene import PREDICTED_TYPES
from preprocessing.verify_files import read_arrays

TOLERANCE = 1e-4
NAMES = {
    "min_ade": "minADE",
    "min_fde": "minFDE",
    "miss_rate": "miss_rate",
    "overlap_rate": "overlap_rate",
    "mean_average_precision": "mAP",
    "soft_mean_average_precision_ref": "soft_mAP",
}
"""Names in the golden file -> ours."""
ARRAYS = ("pred", "score", "gt", "gt_valid", "idx", "idx_mask", "otype", "oid", "sid")
ABSENT = -1.0


@dataclass(frozen=True, kw_only=True)
class VerifyMetricsConfig:
    """Options of `limtr verify metrics`."""

    golden: Positional[Path]
    """Inputs of the cases (.npz)."""
    expected: Positional[Path]
    """Values of the official op for the same cases (.json)."""
    bucketing: Bucketing = "2024"
    """Rule of the trajectory buckets that the expected values follow."""


def case_scenarios(arrays: Mapping[str, npt.NDArray[Any]], case: str) -> Iterator[ScenarioPredictions]:
    """The scenarios of one case.

    Raises:
        ValueError: an array is missing or has a shape that does not fit.
    """
    missing = [f"{case}_{name}" for name in ARRAYS if f"{case}_{name}" not in arrays]
    if missing:
        raise ValueError(f"golden file has no arrays {missing}; it must have {case}_{{{', '.join(ARRAYS)}}}")
    of = {name: arrays[f"{case}_{name}"] for name in ARRAYS}
    rows = np.where(of["idx_mask"], of["idx"], -1)
    for scenario in range(len(of["sid"])):
        # The index stands for the row; the official op reads object ids as rows too.
        yield ScenarioPredictions(
            scenario_id=f"{case} scenario {scenario} ({of['sid'][scenario]})",
            track_type=of["otype"][scenario],
            track_states=of["gt"][scenario].astype(np.float64),
            track_valid=of["gt_valid"][scenario].astype(np.bool_),
            group_rows=rows[scenario].astype(np.int64),
            # (M, K, N, 16, 2) as it is.
            xy_m=of["pred"][scenario].astype(np.float64),
            scores=of["score"][scenario].astype(np.float64),
        )


def compare_case(case: str, metrics: MotionMetrics, expected: Mapping[str, Mapping[str, float]]) -> Iterator[Comparison]:
    """Every value of one case, and whether anything is expected or computed that the other side lacks."""
    result = metrics.compute()
    known = {f"TYPE_{kind.name}_{horizon.step}" for kind in PREDICTED_TYPES for horizon in metrics.config.horizons}
    for key in sorted(known | set(expected)):
        if key not in known:
            raise ValueError(f"{case}: expected values name {key!r}, known are {sorted(known)}")
        kind, step = key.removeprefix("TYPE_").rsplit("_", 1)
        horizon = next(item.name for item in metrics.config.horizons if item.step == int(step))
        values = result.get(kind, {}).get(horizon, {})
        wanted = expected.get(key, {})
        for name in wanted if wanted else ["min_ade"]:
            if name not in NAMES:
                raise ValueError(f"{case}: expected values of {key} name {name!r}, known are {sorted(NAMES)}")
            difference, note = difference_from_op(values, name, wanted.get(name, ABSENT))
            yield Comparison(
                name=f"{case} {kind} {horizon} {NAMES[name]}", difference=difference, tolerance=TOLERANCE, note=note
            )


def difference_from_op(values: Mapping[str, float | None], name: str, want: float) -> tuple[float, str]:
    """How far a value of a type and horizon (empty if there is no object of the type) is from the expected one, and a note."""
    if not values:
        return (0.0, "absent") if want == ABSENT else (math.nan, f"no object of the type, expected {want:.6f}")
    value = values[NAMES[name]]
    if value is None:
        # Where objects are there but nothing of them can be measured, the op says 0; we say that there is no value.
        return (0.0 if want == ABSENT else abs(want)), "nothing to measure"
    return (math.inf, "expected no value") if want == ABSENT else (abs(value - want), "")


def run(config: VerifyMetricsConfig) -> int:
    """Compare all cases; 0 only if every value agrees."""
    content = read_json(config.expected)
    expected = content.get("expected") if isinstance(content, dict) else None
    if not isinstance(expected, dict):
        raise ValueError(f"{config.expected}: no entry 'expected' with the values of each case; give the .npz, then its .json")
    arrays = read_arrays(config.golden, re.compile(rf"case\d+_({'|'.join(ARRAYS)})"), "case0_pred")
    comparisons: list[Comparison] = []
    cases = sorted({name.split("_")[0] for name in arrays} | set(expected))
    for case in cases:
        if case not in expected:
            comparisons.append(Comparison(name=case, difference=math.nan, tolerance=TOLERANCE, note="no expected values"))
            continue
        metrics = MotionMetrics(MotionMetricsConfig(bucketing=config.bucketing))
        for scenario in case_scenarios(arrays, case):
            metrics.add(scenario)
        comparisons += compare_case(case, metrics, expected[case])
    return print_comparisons(comparisons)
