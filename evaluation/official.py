"""`limtr evaluate --official`: the same predictions and truth judged by Waymo's own op, number beside number."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from evaluation.accumulate import MotionMetrics
from evaluation.average_precision import Outcome
from evaluation.buckets import Bucket
from evaluation.joint import interactive_pair, joint_of_groups
from evaluation.metric_config import MotionMetricsConfig
from evaluation.op_input import BYTES_PER_TRACK, Arrays, bucket_cases, op_arrays, op_config, rounded
from evaluation.oracle import ask_oracle
from evaluation.scenario_predictions import ScenarioPredictions
from evaluation.verify_metrics import ABSENT, NAMES, TOLERANCE, difference_from_op
from limtr.files import read_json
from limtr.scene import PREDICTED_TYPES, ObjectType, Scene

OP_BUCKETING = "2024"
"""The rule of the op in the expected wheel."""
OP_NAMES = tuple(name for name in NAMES if name != "soft_mean_average_precision_ref")
MAX_BYTES = 6 * 2**30
"""Of padded truth: the op wants all scenes at once, and needs some times this in memory."""

OpValues = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class OfficialRow:
    """One number of both sides."""

    kind: str
    horizon: str
    metric: str
    ours: float | None
    official: float
    difference: float

    @property
    def agrees(self) -> bool:
        """Whether the two are equal up to the tolerance (NaN never is)."""
        return not math.isnan(self.difference) and self.difference <= TOLERANCE


class OfficialJudge:
    """Collects what is scored and has Waymo's op score it too, alone and as joint predictions of two agents."""

    def __init__(self, config: MotionMetricsConfig) -> None:
        self.config = config
        self.marginal: list[ScenarioPredictions] = []
        self.joint: list[ScenarioPredictions] = []
        self._most_tracks = 0

    def add(self, scene: Scene, scenario: ScenarioPredictions) -> None:
        """Take the predictions of one scene, in the order in which they are scored."""
        scenario = rounded(scenario)
        self.marginal.append(scenario)
        pairs = _pairs(scene, scenario)
        if pairs:
            self.joint.append(joint_of_groups(scenario, pairs))
        self._most_tracks = max(self._most_tracks, len(scenario.track_type))
        if len(self.marginal) * self._most_tracks * BYTES_PER_TRACK > MAX_BYTES:
            raise ValueError(
                f"--official: the truth of {len(self.marginal)} scenes is more than {MAX_BYTES / 2**30:.0f} GiB in the "
                "arrays of Waymo's op, which wants all at once; judge a dataset of fewer shards"
            )

    def verdict(self) -> dict[str, list[OfficialRow]]:
        """Both sides' numbers, under "marginal" and, where there are two agents to join, "joint".

        Raises:
            OracleError: the oracle environment cannot be used, or Waymo's code died.
            ValueError: the op does not take these predictions.
        """
        parts = {"marginal": self.marginal, "joint": self.joint}
        return compare_with_op({name: part for name, part in parts.items() if part}, self.config)


def _pairs(scene: Scene, scenario: ScenarioPredictions) -> list[tuple[int, int]]:
    """Groups to join: the scene's interactive pair, or its predicted objects two by two, to exercise the joint metrics."""
    ids = scene.track_id[scenario.group_rows[:, 0]].tolist()
    pair = interactive_pair(scene)
    if pair is not None and set(pair) <= set(ids):
        return [(ids.index(pair[0]), ids.index(pair[1]))]
    return [(row, row + 1) for row in range(0, len(ids) - 1, 2)]


def compare_with_op(
    parts: Mapping[str, Sequence[ScenarioPredictions]], config: MotionMetricsConfig
) -> dict[str, list[OfficialRow]]:
    """Our numbers and the op's for some sets of scenarios, which one process of the oracle environment judges.

    Args:
        parts: scenarios by name; numbers as the op gets them (see `rounded`).
        config: what is measured. Rules of buckets that the op does not know are judged bucket by bucket (`bucket_cases`).
    """
    cases: dict[str, Arrays] = {}
    for name, scenarios in parts.items():
        arrays = op_arrays(scenarios)
        cases[name] = arrays
        if config.bucketing != OP_BUCKETING:
            of_bucket = bucket_cases(arrays, config.bucketing)
            cases |= {f"{name}/{bucket}": case for bucket, case in of_bucket.items()}
    values = run_op(cases, config)
    result = {}
    for name, scenarios in parts.items():
        metrics = MotionMetrics(config)
        for scenario in scenarios:
            metrics.add(scenario)
        official: dict[str, dict[str, float]] = {key: dict(columns) for key, columns in values[name].items()}
        if config.bucketing != OP_BUCKETING:
            buckets = {int(key.rpartition("/")[2]): item for key, item in values.items() if key.startswith(f"{name}/")}
            _put_mean_of_buckets(official, buckets, metrics)
        result[name] = official_rows(metrics, official)
    return result


def run_op(cases: Mapping[str, Arrays], config: MotionMetricsConfig) -> dict[str, dict[str, dict[str, float]]]:
    """The op's values of every case, as `values[case]["TYPE_VEHICLE_5"]["min_ade"]`; -1 for types that are absent."""
    with tempfile.TemporaryDirectory(prefix="limtr-official-") as folder:
        source, target = Path(folder) / "cases.npz", Path(folder) / "values.json"
        arrays: dict[str, Any] = {f"{case}/{name}": value for case, part in cases.items() for name, value in part.items()}
        np.savez(source, config=np.array(json.dumps(op_config(config))), **arrays)
        ask_oracle("motion_metrics.py", source, target)
        content: dict[str, dict[str, dict[str, float]]] = read_json(target)["values"]
    return content


def _put_mean_of_buckets(
    official: dict[str, dict[str, float]], buckets: Mapping[int, OpValues], metrics: MotionMetrics
) -> None:
    """Replace the op's mean average precision by the mean over cases of one bucket each, where objects can be measured."""
    state = metrics.state()
    of_row = np.where(state["bucket"] == Bucket.RIGHT_U_TURN, int(Bucket.RIGHT_TURN), state["bucket"])
    for kind in PREDICTED_TYPES:
        for column, horizon in enumerate(metrics.config.horizons):
            measured = (state["outcomes"][:, column] != Outcome.UNKNOWN).any(axis=1) & (state["object_type"] == kind)
            key = _key(kind, horizon.step)
            found = [
                item[key]["mean_average_precision"] for bucket, item in buckets.items() if measured[of_row == bucket].any()
            ]
            if official[key]["mean_average_precision"] != ABSENT:
                official[key]["mean_average_precision"] = math.fsum(found) / len(found) if found else 0.0


def _key(kind: ObjectType, step: int) -> str:
    return f"TYPE_{kind.name}_{step}"


def official_rows(metrics: MotionMetrics, official: OpValues) -> list[OfficialRow]:
    """Our numbers beside the op's; classes of which both sides say that they are absent are left out."""
    values = metrics.compute()
    rows = []
    for kind in PREDICTED_TYPES:
        for horizon in metrics.config.horizons:
            ours, theirs = values.get(kind.name, {}).get(horizon.name, {}), official[_key(kind, horizon.step)]
            if not ours and theirs[OP_NAMES[0]] == ABSENT:
                continue  # both sides say that there is no such object
            for name in OP_NAMES:
                difference, _ = difference_from_op(ours, name, theirs[name])
                rows.append(
                    OfficialRow(
                        kind=kind.name, horizon=horizon.name, metric=NAMES[name], ours=ours.get(NAMES[name]),
                        official=theirs[name], difference=difference,
                    )
                )  # fmt: skip
    return rows


def print_verdict(verdict: Mapping[str, Sequence[OfficialRow]], counts: Mapping[str, int], bucketing: str) -> bool:
    """Print both columns and whether all numbers agree; returns that (False if there is no number at all).

    Args:
        verdict: as `OfficialJudge.verdict` gives it.
        counts: scenarios in each part.
        bucketing: the rule of mAP.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    whole = bool(verdict)
    for name, rows in verdict.items():
        table = Table(title=f"{name} predictions of {counts[name]} scenes: ours / Waymo's op ({bucketing} buckets)",
                      title_justify="left", title_style="bold", header_style="bold")  # fmt: skip
        metrics = list(dict.fromkeys(row.metric for row in rows))
        for title in ("class", "horizon", *metrics):
            table.add_column(title, justify="left" if title in ("class", "horizon") else "right")
        for start in range(0, len(rows), len(metrics) or 1):
            line = rows[start : start + len(metrics)]
            table.add_row(line[0].kind.lower(), line[0].horizon, *map(_cell, line))
        console.print(table)
        wrong = [row for row in rows if not row.agrees]
        for row in wrong:
            print(f"FAIL {name} {row.kind} {row.horizon} {row.metric}: ours {row.ours}, Waymo's op {row.official:.6f}")
        largest = max((row.difference for row in rows if row.agrees), default=0.0)
        print(
            f"{name}: {len(rows) - len(wrong)} of {len(rows)} numbers agree with Waymo's op within {TOLERANCE:g} "
            f"(largest difference of these {largest:.1e})"
        )
        whole = whole and bool(rows) and not wrong
    if bucketing != OP_BUCKETING:
        print(f"The op knows the {OP_BUCKETING} rule only: mAP was asked of it bucket by bucket, the buckets are ours.")
    return whole


def _cell(row: OfficialRow) -> str:
    ours = "-" if row.ours is None else f"{row.ours:.5f}"
    text = f"{ours} / {'-' if row.official == ABSENT else f'{row.official:.5f}'}"
    return text if row.agrees else f"[bold red]{text} !"
