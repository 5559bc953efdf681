"""Which predicted objects the gallery shows: the best, the median and the worst of every class and trajectory bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.buckets import Bucket
from evaluation.group_scores import DISTANCES
from evaluation.report.breakdowns import BUCKETS_IN_ORDER
from evaluation.report.object_table import ObjectTable
from limtr.scene import PREDICTED_TYPES, ObjectType

Rank = Literal["best", "median", "worst"]
RANKS: tuple[Rank, ...] = ("best", "median", "worst")
MOST_OF_A_KIND = 3


@dataclass(frozen=True)
class Choice:
    """One object to show."""

    row: int
    """In the table."""
    kind: ObjectType
    bucket: Bucket
    rank: Rank
    """Among the objects of its class and bucket."""
    num_alike: int
    """How many those are."""


def choose(table: ObjectTable, horizon: int, most: int) -> list[Choice]:
    """At most `most` objects: class by class, bucket by bucket, the best before the median and the worst.

    Every class and bucket that occurs gets the same number (up to three) of each rank; if there is no room for one of each, the
    rarest combinations go. Ties are broken by ids, so that the order of the data does not matter.

    Args:
        table: the objects; those without a minADE at the horizon are not shown.
        horizon: index of the horizon whose minADE ranks them.
        most: no more than so many.
    """
    error = table.distances[:, horizon, DISTANCES.index("minADE")]
    cells = []
    for kind in PREDICTED_TYPES:
        for bucket in BUCKETS_IN_ORDER:
            rows = np.flatnonzero((table.kind == kind) & (table.bucket == bucket) & ~np.isnan(error))
            if len(rows):
                cells.append((kind, bucket, sorted(rows.tolist(), key=lambda row: _key(table, error, row))))
    most_cells = max(most // len(RANKS), 0)
    common = sorted(range(len(cells)), key=lambda index: -len(cells[index][2]))[:most_cells]
    each = min(MOST_OF_A_KIND, most // (len(RANKS) * len(common))) if common else 0
    return [
        Choice(row, cells[index][0], cells[index][1], rank, len(cells[index][2]))
        for index in sorted(common)
        for rank, rows in _ranked(cells[index][2], each).items()
        for row in rows
    ]


def _key(table: ObjectTable, error: np.ndarray, row: int) -> tuple[float, str, int]:
    return float(error[row]), str(table.scenario_id[row]), int(table.object_id[row])


def _ranked(rows: list[int], each: int) -> dict[Rank, list[int]]:
    """Up to `each` rows of every rank out of rows sorted by error; none twice: a lone one is best, of two one is worst."""
    each = min(each, max(len(rows) // len(RANKS), 1))
    worst = rows[-each:] if len(rows) > 1 else []
    middle = rows[each : len(rows) - each]
    start = max((len(middle) - each) // 2, 0)
    return {"best": rows[:each], "median": middle[start : start + each], "worst": worst}
