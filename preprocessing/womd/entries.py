"""From the non-zero entries of a delta-coded image and its run lengths to the image, each in the way that is fastest for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from preprocessing.womd.varint import decode_signed

Entries = npt.NDArray[np.int64] | npt.NDArray[np.int32]
Runs = npt.NDArray[np.int64]
Shape = tuple[int, int, int]

_LONG_RUN = 256
"""Entries; runs that are so long on average are copied faster one by one than entry by entry."""
_SPARSE = 32
_MORE = 1 << 7


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedImage:
    """An image of C channels, H rows and W columns as its non-zero entries; only the rows that are asked for are laid out."""

    shape: Shape
    """(C, H, W)"""
    precision: npt.NDArray[np.float64]
    """(C,) unit of each channel."""
    entries: Entries
    """(E,) non-zero multiples of the unit, channel after channel, row after row."""
    runs: Runs
    """(R,) lengths of filled and empty runs in turn, the first of filled ones; their sum is C * H * W."""

    @cached_property
    def is_sparse(self) -> bool:
        """Whether so little is filled that looking up entry by entry is cheaper than laying out rows."""
        return self.entries.size * _SPARSE < math.prod(self.shape)

    @cached_property
    def places(self) -> Runs:
        """(E,) where each entry is in the flat image."""
        length = self.runs[0::2]
        first = self._stops[0::2] - length
        return np.arange(self.entries.size) + np.repeat(first - self._entries_before[0::2], length)

    @cached_property
    def values(self) -> Entries:
        """(C, H, W) the whole image."""
        channels, height, width = self.shape
        return self._between(0, channels * height * width).reshape(self.shape)

    def image(self) -> npt.NDArray[np.float64]:
        """(H, W, C) the whole image in its units."""
        scaled: npt.NDArray[np.float64] = self.values.transpose(1, 2, 0) * self.precision
        return scaled

    def rows(self, channel: int, top: int, bottom: int) -> Entries:
        """(bottom - top, W) some rows of a channel; not to be written to. The last ones of each channel are kept."""
        _, height, width = self.shape
        before, there = self._laid_out.get(channel, (0, None))
        if there is None or not before <= top <= bottom <= before + len(there):
            first = channel * height
            before, there = top, self._between((first + top) * width, (first + bottom) * width).reshape(bottom - top, width)
            self._laid_out[channel] = before, there
        return there[top - before : bottom - before]

    def pixels(self, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], num_channels: int) -> npt.NDArray[np.float64]:
        """(N, num_channels) the first channels of N pixels."""
        picked = np.empty((num_channels, len(rows)))
        if self.is_sparse:
            _, height, width = self.shape
            place = np.arange(num_channels)[:, None] * (height * width) + (rows * width + columns)
            number = np.minimum(np.searchsorted(self.places, place), max(self.entries.size - 1, 0))
            there = self.places[number] == place if self.entries.size else np.zeros(place.shape, dtype=np.bool_)
            picked[:] = 0.0
            picked[there] = self.entries[number[there]]
            picked *= self.precision[:num_channels, None]
        elif len(rows):
            top, bottom = int(rows.min()), int(rows.max()) + 1
            place = (rows - top) * self.shape[2] + columns
            for channel in range(num_channels):
                np.multiply(self.rows(channel, top, bottom).take(place), self.precision[channel], out=picked[channel])
        columns_first: npt.NDArray[np.float64] = picked.T
        return columns_first

    def has_entries(self, columns: list[slice]) -> list[bool]:
        """Whether the first channel has anything in these columns (K), in any row."""
        upto = self._filled_before_column
        return [upto[run.stop] > upto[run.start] for run in columns]

    @cached_property
    def _laid_out(self) -> dict[int, tuple[int, Entries]]:
        """Channel -> the rows of it that were laid out last, and the first one's number."""
        return {}

    @cached_property
    def _filled_before_column(self) -> list[int]:
        """How many columns before each one, and in all, have entries in the first channel."""
        _, height, width = self.shape
        last = int(np.searchsorted(self._stops, height * width)) + 1
        length, stop = self.runs[:last:2], self._stops[:last:2]
        length, stop = length[length > 0], stop[length > 0]
        if not length.size:
            return [0] * (width + 1)
        # Runs end in a later row than they begin in where they go over the last column.
        first, after = (stop - length) % width, (stop - 1) % width + 1
        count = np.bincount(first, minlength=width + 1) - np.bincount(after, minlength=width + 1)
        count[0] += int((after <= first).sum())
        filled = np.cumsum(count)[:width] > 0
        filled |= bool((length >= width).any())
        return [0, *np.cumsum(filled).tolist()]

    @cached_property
    def _stops(self) -> Runs:
        return np.cumsum(self.runs)

    @cached_property
    def _entries_before(self) -> Runs:
        """Before each run."""
        filled = self.runs.copy()
        filled[1::2] = 0
        return np.cumsum(filled) - filled

    def _between(self, start: int, stop: int) -> Entries:
        """The flat image from one place to another."""
        flat = np.zeros(stop - start, dtype=self.entries.dtype)
        if start == stop:
            return flat
        first, last = int(np.searchsorted(self._stops, start, side="right")), int(np.searchsorted(self._stops, stop))
        runs = self.runs[first : last + 1].copy()
        number = int(self._entries_before[first])
        skipped = start - int(self._stops[first] - runs[0])
        runs[-1] -= self._stops[last] - stop
        runs[0] -= skipped
        is_filled = np.zeros(runs.size, dtype=np.bool_)
        is_filled[first % 2 :: 2] = True
        number += skipped if is_filled[0] else 0
        if runs.size * _LONG_RUN < flat.size:
            place = 0
            for length, filled in zip(runs.tolist(), is_filled.tolist(), strict=True):
                if filled:
                    flat[place : place + length] = self.entries[number : number + length]
                    number += length
                place += length
        else:
            flat[np.repeat(is_filled, runs)] = self.entries[number : number + int(runs[first % 2 :: 2].sum())]
        return flat


def decode_equal_rows(residual: bytes, runs: Runs, shape: Shape) -> Entries | None:
    """The image (C, H, W), of one row in memory, if all rows are equal and their bytes show it; None otherwise.

    So are images of the poses of a vehicle at each column's moment: then the bytes are compared, and two rows decoded.

    Args:
        residual: varints of the differences between non-zero entries.
        runs: as `PackedImage.runs`.
        shape: (C, H, W)

    Raises:
        VarintError: bytes that are no varints.
    """
    channels, height, width = shape
    area = height * width
    if height < 3 or runs.size > 2 * channels + 1 or (runs % area).any() or not residual:
        return None  # only channels that are filled or empty as a whole
    raw = np.frombuffer(residual, dtype=np.uint8)
    longer = np.flatnonzero(raw >= _MORE)
    entry = longer - np.arange(longer.size)  # which one each byte with a successor belongs to
    num_filled = int(runs[0::2].sum()) // area
    if raw.size - longer.size != num_filled * area:
        return None
    edges = np.arange(num_filled)[:, None] * area + [0, width, 2 * width, area]
    places = (edges + np.searchsorted(entry, edges)).tolist()
    for _, second, third, stop in places:
        length = third - second
        if stop - second != (height - 1) * length or residual[second : stop - length] != residual[third:stop]:
            return None
    differences = decode_signed(b"".join(residual[first:third] for first, _, third, _ in places))
    rows = np.cumsum(differences, out=differences).reshape(num_filled, 2, width)
    if not np.array_equal(rows[:, 0], rows[:, 1]):
        return None
    is_filled = np.repeat(np.arange(runs.size) % 2 == 0, runs // area)
    row = np.zeros((channels, 1, width), dtype=rows.dtype)
    row[is_filled, 0] = rows[:, 0]
    return np.broadcast_to(row, (channels, height, width))
