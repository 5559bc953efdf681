"""The delta codec of Waymo's compressed range images, both ways (arXiv 2206.01738, section 3).

An image (H, W, C) is quantised per channel and laid out channel after channel. What is stored are run lengths of zero
and non-zero entries (the first run counts non-zero ones) and the differences between consecutive non-zero entries,
as a `DeltaEncodedData` message under zlib.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from preprocessing.womd.entries import Entries, PackedImage, decode_equal_rows
from preprocessing.womd.schema import DeltaEncodedData, Metadata, PackedDeltaData
from preprocessing.womd.varint import VarintError, decode_signed, decode_varints, encode_varints, zigzag

MAX_DIMENSION = 2**16 - 1
MAX_ENTRIES = 2**24
"""Largest H*W*C that is read: sixteen times Waymo's largest image (64 x 2650 x 6)."""
MAX_DECOMPRESSED_BYTES = 2**26
"""Largest message that is unpacked: a few kilobytes of zlib can otherwise fill any memory."""
_MAX_QUANTISED = 2**53  # beyond it float64 has no integers of its own


class RangeImageError(ValueError):
    """Bytes that are no range image, or an image that cannot be encoded."""


class _MissingNumbersError(RangeImageError):
    """A mask or residuals that do not add up, as when a part of the numbers stands elsewhere in the message."""


@dataclass(frozen=True, kw_only=True)
class QuantisedImage:
    """A decoded range image before it is scaled: pixels can be picked without converting all of them."""

    values: Entries
    """(C, H, W) multiples of the channel's precision; 0 is "nothing there". Not to be written to."""
    precision: npt.NDArray[np.float64]
    """(C,) unit of each channel."""

    def channel(self, index: int) -> npt.NDArray[np.float64]:
        """(H, W) one channel in its unit."""
        channel: npt.NDArray[np.float64] = self.values[index] * self.precision[index]
        return channel

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        channels, height, width = self.values.shape
        return channels, height, width

    @property
    def has_equal_rows(self) -> bool:
        """Whether all rows are known to be the same one (which then is in memory only once)."""
        return self.values.strides[1] == 0

    def pixels(self, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], num_channels: int) -> npt.NDArray[np.float64]:
        """(N, num_channels) the first channels of N pixels."""
        if self.has_equal_rows:
            flat, place = self.values[:num_channels, 0], columns
        else:
            flat, place = self.values[:num_channels].reshape(num_channels, -1), rows * self.values.shape[2] + columns
        picked: npt.NDArray[np.float64] = flat.take(place, axis=1) * self.precision[:num_channels, None]
        columns_first: npt.NDArray[np.float64] = picked.T
        return columns_first

    def rows(self, channel: int, top: int, bottom: int) -> Entries:
        """(bottom - top, W) some rows of a channel."""
        return self.values[channel, top:bottom]

    def has_entries(self, columns: list[slice]) -> list[bool]:
        """Whether the first channel may have anything in these columns (K), in any row."""
        return [True] * len(columns)

    def image(self) -> npt.NDArray[np.float64]:
        """(H, W, C) the whole image."""
        scaled: npt.NDArray[np.float64] = self.values.transpose(1, 2, 0) * self.precision
        return scaled


RangeImage = QuantisedImage | PackedImage


def encode(image: npt.NDArray[np.floating], precision: Sequence[float], *, level: int = -1) -> bytes:
    """Compress a range image; the message inside is the one that Waymo's encoder writes.

    Args:
        image: (H, W, C) finite numbers; left as it is. A broadcast view (a pose image with equal rows) is fine.
        precision: (C,) positive unit of each channel; the decoded image is within half of it.
        level: zlib's, 0..9; -1 is zlib's default, which Waymo uses. Level 1 is faster and a little larger.

    Raises:
        RangeImageError: wrong shape, precision that is not positive, or entries that are not finite.
    """
    if image.ndim != 3 or not image.size or max(image.shape) > MAX_DIMENSION:
        raise RangeImageError(f"a range image has shape (H, W, C) with 1..{MAX_DIMENSION} in each, this one has {image.shape}")
    units = [float(unit) for unit in precision]
    if len(units) != image.shape[2] or not all(unit > 0 and math.isfinite(unit) for unit in units):
        raise RangeImageError(f"precision must be {image.shape[2]} positive numbers (one per channel), is {units}")
    metadata = Metadata(shape=image.shape, quant_precision=units)
    height = image.shape[0]
    # A pose image often repeats one row: that one is enough to know all the bytes.
    repeats = height if height > 1 and _has_equal_rows(image) else 1
    quantised = _quantise(image[: height // repeats], units)
    flat = (np.repeat(quantised, repeats, axis=1) if repeats > 1 else quantised).ravel()
    message = PackedDeltaData(
        residual=_repeated_residuals(quantised[:, 0], repeats) if repeats > 1 else _residuals(flat),
        mask=encode_varints(_run_lengths(np.flatnonzero(flat), flat.size)),
        metadata=metadata,
    )
    return zlib.compress(message.SerializeToString(deterministic=True), level)


def decode(data: bytes) -> npt.NDArray[np.float64]:
    """The range image (H, W, C) behind `encode`.

    Raises:
        RangeImageError: see `decode_quantised`.
    """
    return decode_quantised(data).image()


def decode_quantised(data: bytes) -> QuantisedImage:
    """The range image behind `encode`, not scaled yet.

    Raises:
        RangeImageError: see `open_image`.
    """
    image = open_image(data)
    return QuantisedImage(values=image.values, precision=image.precision)


def open_image(data: bytes) -> RangeImage:
    """The range image behind `encode`, laid out only where that costs nothing.

    Raises:
        RangeImageError: no zlib stream, one that unpacks to too much, no message, or fields that contradict each other.
    """
    raw = _decompress(data)
    try:
        return _from_message(raw)
    except _MissingNumbersError:
        # The same message can be written in other ways (numbers not packed, or packed in parts); none of Waymo's are.
        usual = _usual_form(raw)
        if usual == raw:
            raise
        return _from_message(usual)


def _usual_form(raw: bytes) -> bytes:
    """The bytes of a DeltaEncodedData message as protobuf writes it itself, each list of numbers packed in one piece."""
    try:
        message = DeltaEncodedData.FromString(raw)
    except DecodeError:
        return raw
    message.DiscardUnknownFields()
    return bytes(message.SerializeToString(deterministic=True))


def _from_message(raw: bytes) -> RangeImage:
    """The image in the bytes of a message whose lists of numbers are packed in one piece.

    Raises:
        RangeImageError: as `open_image`.
    """
    message = PackedDeltaData()
    try:
        message.ParseFromString(raw)
        shape, precision = _metadata(message.metadata)
        runs = _runs(decode_varints(message.mask), shape)
        values = decode_equal_rows(message.residual, runs, shape)
        if values is not None:
            return QuantisedImage(values=values, precision=precision)
        residual = decode_signed(message.residual)  # of 32 bits wherever no sum of them can need more
    except (DecodeError, VarintError) as error:
        raise RangeImageError(f"no DeltaEncodedData message under the zlib stream ({error})") from error
    num_filled = int(runs[0::2].sum())
    if residual.size != num_filled:
        raise _MissingNumbersError(f"the mask marks {num_filled} entries, but there are {residual.size} residuals")
    return PackedImage(shape=shape, precision=precision, entries=np.cumsum(residual, out=residual), runs=runs)


def _metadata(metadata: Any) -> tuple[tuple[int, int, int], npt.NDArray[np.float64]]:
    """Shape (C, H, W) and precision (C,) of an image.

    Raises:
        RangeImageError: numbers that no image can have.
    """
    shape, units = tuple(metadata.shape), tuple(metadata.quant_precision)
    if len(shape) != 3 or not all(1 <= size <= MAX_DIMENSION for size in shape) or math.prod(shape) > MAX_ENTRIES:
        raise RangeImageError(f"metadata.shape must be (H, W, C) with at most {MAX_ENTRIES} entries in all, is {shape}")
    height, width, channels = shape
    if len(units) != channels or not all(unit > 0 and math.isfinite(unit) for unit in units):
        raise RangeImageError(f"metadata.quant_precision must be {channels} positive numbers, is {list(units)}")
    precision = np.array(units, dtype=np.float64)
    return (channels, height, width), precision


def _runs(runs: npt.NDArray[np.uint64], shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """The checked run lengths.

    Raises:
        RangeImageError: they are not those of an image of this shape.
    """
    total = math.prod(shape)
    # Each run is checked before the sum, so that runs of 2**63 do not wrap around to a plausible total.
    too_long = bool(runs.size) and int(runs.max()) > total
    if too_long or int(runs.sum()) != total:
        error_class = RangeImageError if too_long else _MissingNumbersError
        raise error_class(f"the mask's runs must add up to {total} entries of shape (C, H, W) = {shape}; they do not")
    return runs.view(np.int64)


def _quantise(image: npt.NDArray[np.floating], units: Sequence[float]) -> npt.NDArray[np.int64]:
    """(C, H, W) nearest multiples of each channel's unit, divided in the image's own precision as Waymo's encoder does."""
    quantised = np.empty((image.shape[2], *image.shape[:2]), dtype=np.int64)
    for channel, unit in enumerate(units):
        multiples = image[..., channel] / unit
        np.rint(multiples, out=multiples)
        # min and max are NaN or infinite if any entry is, so two reductions check everything.
        low, high = float(multiples.min()), float(multiples.max())
        if not (low > -_MAX_QUANTISED and high < _MAX_QUANTISED):
            raise RangeImageError(
                f"channel {channel} must hold finite numbers below 2**53 units of {unit}, spans {low} to {high}"
            )
        quantised[channel] = multiples
    return quantised


def _has_equal_rows(image: npt.NDArray[np.floating]) -> bool:
    """Whether every row of the image is the same; the two outermost tell most images apart."""
    return image.strides[0] == 0 or (np.array_equal(image[0], image[-1]) and bool((image[1:-1] == image[0]).all()))


def _residuals(entries: npt.NDArray[np.int64]) -> bytes | None:
    """The residual field of a flat quantised image: the first non-zero entry, then the differences; None without any."""
    filled = entries[entries != 0]
    return encode_varints(zigzag(np.diff(filled, prepend=0))) or None


def _repeated_residuals(rows: npt.NDArray[np.int64], repeats: int) -> bytes | None:
    """`_residuals` of an image whose channels (C, W) repeat their one row `repeats` times."""
    parts: list[bytes] = []
    previous = 0
    for row in rows:
        filled = row[row != 0]
        if filled.size:
            # The first row follows the previous channel's last entry, every other one follows itself.
            parts.append(encode_varints(zigzag(np.diff(filled, prepend=previous))))
            previous = int(filled[-1])
            parts.append(encode_varints(zigzag(np.diff(filled, prepend=previous))) * (repeats - 1))
    return b"".join(parts) or None


def _run_lengths(filled: npt.NDArray[np.intp], total: int) -> npt.NDArray[np.uint64]:
    """Alternating run lengths of filled and empty entries, given the filled ones' places; the first counts filled ones."""
    breaks = np.flatnonzero(np.diff(filled) != 1)
    starts = filled[np.concatenate([[0], breaks + 1])] if filled.size else np.zeros(0, dtype=np.intp)
    stops = filled[np.concatenate([breaks, [-1]])] + 1 if filled.size else np.zeros(0, dtype=np.intp)
    edges = np.stack([starts, stops], axis=1).ravel()
    runs = np.diff(edges, prepend=0, append=total)
    # `runs` begins with the empty run before the first filled one; the format begins with a filled run.
    begun = runs[1:] if runs[0] == 0 else np.concatenate([[0], runs])
    return begun[: begun.size - (begun[-1] == 0)].astype(np.uint64)


def _decompress(data: bytes) -> bytes:
    """The bytes under zlib, up to the limit.

    Raises:
        RangeImageError: not zlib, cut off, or too much.
    """
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(data, MAX_DECOMPRESSED_BYTES)
    except zlib.error as error:
        raise RangeImageError(f"{len(data)} bytes are no zlib stream ({error})") from error
    if stream.unconsumed_tail:
        raise RangeImageError(f"{len(data)} bytes unpack to more than {MAX_DECOMPRESSED_BYTES}: no range image is that large")
    if not stream.eof:
        raise RangeImageError(f"the zlib stream of {len(data)} bytes is cut off")
    return raw
