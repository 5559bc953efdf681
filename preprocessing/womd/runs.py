"""Runs: where the same kind of small message stands in a record many times in a row, found without walking there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preprocessing.womd.layouts import Bytes, Layout, Places

_PIECE = 2**20
_HEADER = 2
"""Bytes before a part that is a repeated field: its tag and its length."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """All places in a region where a part could stand, and how they follow one another.

    A place proves nothing by itself: numbers can look like a part. But if a field begins at a place, it is that part, and so
    are all the places of the run from there on. The parts of a run have one tag: another field can be written like them.
    """

    num_places: int
    """N, places in all, rising."""
    parts: tuple[tuple[Places, Places], ...]
    """For each layout: which of the N places have a part of it, and where the parts begin behind tag and length."""
    by_start: dict[int, tuple[int, int, int]]
    """Place of a run's first part -> its first row, the row after its last one, and the place after the run."""


def find_runs(data: Bytes, region: tuple[int, int], tags: Sequence[int], layouts: Sequence[Layout]) -> Runs:
    """The parts of some layouts within a region of a record.

    Args:
        data: the record.
        region: its first byte and the one after its last.
        tags: the tag bytes that such a part can have in the message around it.
        layouts: of different sizes, each below 128 bytes.
    """
    place = _headers(data, region, tags, [layout.size for layout in layouts])
    length = data[place + 1]
    after = place + (_HEADER + length.astype(np.int64))
    known = np.zeros(len(place), dtype=bool)
    rows_of = []
    for layout in layouts:
        rows = np.flatnonzero((length == layout.size) & (after <= region[1]))
        rows = rows[layout.fits(data, place[rows] + _HEADER)]
        known[rows] = True
        rows_of.append(rows)
    parts = [(rows, place[rows] + _HEADER) for rows in rows_of]
    if not known.all():
        number = np.cumsum(known) - 1
        parts = [(number[rows], start) for rows, start in parts]
        place, after = place[known], after[known]
    return Runs(num_places=len(place), parts=tuple(parts), by_start=_chain(place, after, data[place]))


def _headers(data: Bytes, region: tuple[int, int], tags: Sequence[int], sizes: Sequence[int]) -> Places:
    """Where one of the tags is followed by one of the lengths."""
    found = [np.zeros(0, dtype=np.int64)]
    # Piece by piece, so that a record of any size needs little memory beside it.
    for start in range(region[0], region[1] - 1, _PIECE):
        stop = min(start + _PIECE, region[1] - 1)
        length = data[start + 1 : stop + 1]
        wanted = length == sizes[0]
        for size in sizes[1:]:
            wanted |= length == size
        found.append(np.flatnonzero(wanted) + start)
    place = np.concatenate(found)
    tag = data[place]
    wanted = tag == tags[0]
    for other in tags[1:]:
        wanted |= tag == other
    chosen: Places = place[wanted]
    return chosen


def _chain(place: Places, after: Places, tag: Bytes) -> dict[int, tuple[int, int, int]]:
    """Runs of places that have the tag of the one before and begin where it ends."""
    if not len(place):
        return {}
    is_first = np.ones(len(place), dtype=np.bool_)
    np.not_equal(place[1:], after[:-1], out=is_first[1:])
    is_first[1:] |= tag[1:] != tag[:-1]
    first = np.flatnonzero(is_first)
    stop = np.append(first[1:], len(place))
    values = zip(first.tolist(), stop.tolist(), after[stop - 1].tolist(), strict=True)
    return dict(zip(place[first].tolist(), values, strict=True))
