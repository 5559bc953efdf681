"""Errors by what the objects are like: distance, speed, trajectory bucket, LiDAR points; means with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.buckets import Bucket
from evaluation.group_scores import DISTANCES
from evaluation.report.object_table import ObjectTable
from limtr.scene import PREDICTED_TYPES, ObjectType

Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

DISTANCE_EDGES_M = (0.0, 10.0, 20.0, 30.0, 50.0, 80.0)
SPEED_EDGES_MPS = (0.0, 0.5, 2.0, 5.0, 10.0, 15.0)
POINT_EDGES = (0.0, 1.0, 5.0, 20.0, 100.0, 500.0)
BY_BUCKET = "trajectory bucket"
SHOWN_METRICS = ("minADE", "miss_rate")
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Mean:
    """A mean over objects with half of its 95 % interval (normal, objects taken as independent); None: nothing measured."""

    num_objects: int
    value: float | None
    half_width: float | None
    """None for fewer than two objects."""


@dataclass(frozen=True)
class Breakdown:
    """One metric by class and bin."""

    title: str
    """What the bins are about, with its unit."""
    metric: str
    labels: tuple[str, ...]
    """Of the bins."""
    means: dict[ObjectType, tuple[Mean, ...]]
    """Per class that occurs, one mean per bin."""
    num_unknown: int
    """Objects that belong to no bin, because what the bins are about is not known of them."""
    ordered: bool = True
    """Whether neighbouring bins are neighbours in what they are about."""

    @property
    def is_measured(self) -> bool:
        """Whether any bin of any class has a mean: not where nothing is known, such as the LiDAR points of scenes without."""
        return any(mean.value is not None for means in self.means.values() for mean in means)


def bin_of(values: Float, edges: Sequence[float]) -> Index:
    """Bin of each value: bin i reaches from edge i to below edge i + 1, the last one has no end; -1 for NaN and below the
    first.

    Args:
        values: (n,)
        edges: rising lower edges of the bins.
    """
    found = np.searchsorted(np.asarray(edges), values, side="right") - 1
    return np.asarray(np.where(np.isnan(values), -1, found), dtype=np.int64)


def bin_labels(edges: Sequence[float], *, whole: bool = False) -> tuple[str, ...]:
    """Labels such as `0-10` and `80+`; for counts (`whole`) `1-4`, and `0` alone where a bin holds one number only."""
    ends = [stop - 1 if whole else stop for stop in edges[1:]]
    texts = [f"{start:g}" if whole and start == end else f"{start:g}–{end:g}" for start, end in zip(edges, ends, strict=False)]
    return (*texts, f"{edges[-1]:g}+")


def mean_of(values: Float) -> Mean:
    """Mean over the values that are not NaN."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return Mean(0, None, None)
    value = math.fsum(known.tolist()) / len(known)
    half = _NORMAL_95 * float(np.std(known, ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else None
    return Mean(len(known), value, half)


def break_down(
    table: ObjectTable, bins: Index, labels: Sequence[str], *, title: str, metric: str, horizon: int, ordered: bool = True
) -> Breakdown:
    """Means of a metric per class and bin.

    Args:
        table: the objects.
        bins: (n,) bin of each, -1 for none.
        labels: of the bins.
        title: what the bins are about.
        metric: one of `group_scores.DISTANCES`.
        horizon: index of the horizon.
        ordered: whether neighbouring bins are neighbours.
    """
    values = table.distances[:, horizon, DISTANCES.index(metric)]
    means = {
        kind: tuple(mean_of(values[(table.kind == kind) & (bins == index)]) for index in range(len(labels)))
        for kind in PREDICTED_TYPES
        if (table.kind == kind).any()
    }
    return Breakdown(title, metric, tuple(labels), means, int((bins < 0).sum()), ordered)


BUCKETS_IN_ORDER = (
    Bucket.STATIONARY, Bucket.STRAIGHT, Bucket.STRAIGHT_LEFT, Bucket.STRAIGHT_RIGHT, Bucket.LEFT_TURN, Bucket.RIGHT_TURN,
    Bucket.LEFT_U_TURN, Bucket.RIGHT_U_TURN,
)  # fmt: skip


def bucket_label(bucket: Bucket) -> str:
    """Such as `left turn`; `no future` for objects without a bucket."""
    return "no future" if bucket is Bucket.NONE else bucket.name.lower().replace("_u_turn", " U-turn").replace("_", " ")


def all_breakdowns(table: ObjectTable, horizon: int) -> list[Breakdown]:
    """Every breakdown of the report, by each of `SHOWN_METRICS`; buckets that hold no object are left out."""
    present = [bucket for bucket in BUCKETS_IN_ORDER if (table.bucket == bucket).any()]
    position = {int(bucket): index for index, bucket in enumerate(present)}
    by_bucket = np.array([position.get(bucket, -1) for bucket in table.bucket.tolist()], dtype=np.int64)
    kinds = [
        (
            "distance from the recording vehicle now [m]",
            bin_of(table.distance_m, DISTANCE_EDGES_M),
            bin_labels(DISTANCE_EDGES_M),
        ),
        ("speed now [m/s]", bin_of(table.speed_mps, SPEED_EDGES_MPS), bin_labels(SPEED_EDGES_MPS)),
        (BY_BUCKET, by_bucket, tuple(bucket_label(bucket) for bucket in present)),
        ("LiDAR points in its box now", bin_of(table.lidar_points, POINT_EDGES), bin_labels(POINT_EDGES, whole=True)),
    ]
    return [
        break_down(table, bins, labels, title=title, metric=metric, horizon=horizon, ordered=title != BY_BUCKET)
        for title, bins, labels in kinds
        for metric in SHOWN_METRICS
    ]
