"""TFRecord files without TensorFlow: a memory-mapped reader that checks both CRCs, and an atomic writer.

A record is a little-endian u64 length, its masked CRC32C (u32), the data, and the masked CRC32C of the data (u32).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from crc32c import crc32c

from limtr.files import atomic_path

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_LENGTH_BYTES = 8
_MASK_DELTA = 0xA282EAD8
_COMPRESSED_STARTS = {b"\x1f\x8b": "gzip", b"\x78\x01": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}

_FETCH_AGAIN = "fetch the file again (compare its size with the source)"


class RecordError(ValueError):
    """A record that cannot be read: which file, which record, where it starts, what is wrong, what to do."""

    def __init__(self, path: Path, index: int, offset: int, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: record {index} at byte {offset}: {reason}; {remedy}")
        self.path = path
        self.index = index
        self.offset = offset
        self.reason = reason
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[RecordError], tuple[Path, int, int, str, str]]:
        # An exception is rebuilt from its one-argument message by default; this one must cross worker processes whole.
        return type(self), (self.path, self.index, self.offset, self.reason, self.remedy)


def masked_crc(data: bytes | memoryview) -> int:
    """The CRC32C of `data`, rotated and shifted as TFRecord stores it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def record_frame(data: bytes) -> bytes:
    """`data` as one TFRecord record: the file format is nothing but such frames one after another."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _FOOTER.pack(masked_crc(length)), data, _FOOTER.pack(masked_crc(data))))


def write_records(path: Path, records: Iterable[bytes]) -> int:
    """Write `records` to `path` in one step (a reader sees all or nothing); return how many there were.

    Raises:
        OSError: as the file system says it; `path` is then as it was before.
    """
    count = 0
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        for data in records:
            handle.write(record_frame(data))
            count += 1
    return count


def iter_records(path: Path, on_error: Callable[[RecordError], None] | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield (index, data) of every sound record; `data` is an owned `bytes` copy made after its CRC was checked.

    Args:
        path: an uncompressed TFRecord file.
        on_error: gets every error; after a wrong data CRC reading goes on with the next record (whose place is known),
            any other error ends the file. Without it the first error is raised.

    Raises:
        RecordError: without `on_error`: a truncated record, a wrong CRC, an empty file, or no TFRecord at all.
        OSError: the file cannot be opened.
    """

    def report(index: int, offset: int, reason: str, remedy: str) -> None:
        error = RecordError(path, index, offset, reason, remedy)
        if on_error is None:
            raise error
        on_error(error)

    with path.open("rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        if size == 0:
            report(0, 0, "the file is empty (0 bytes), expected at least one record", f"delete it or {_FETCH_AGAIN}")
            return
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
            index = offset = 0
            while offset < size:
                problem = _header_problem(view, index, offset)
                if problem is not None:
                    report(index, offset, *problem)
                    return
                (length,) = struct.unpack_from("<Q", view, offset)
                start = offset + _HEADER.size
                stop = start + length
                (expected,) = _FOOTER.unpack_from(view, stop)
                with view[start:stop] as data:
                    actual = masked_crc(data)
                    payload = bytes(data) if actual == expected else None
                if payload is None:
                    reason = f"wrong CRC of its {length} data bytes (stored {expected:#010x}, computed {actual:#010x})"
                    report(index, offset, reason, _FETCH_AGAIN)
                else:
                    yield index, payload
                offset = stop + _FOOTER.size
                index += 1


def _header_problem(view: memoryview, index: int, offset: int) -> tuple[str, str] | None:
    """Reason and remedy if no whole record with a sound length starts at `offset`, else None."""
    remaining = len(view) - offset
    if index == 0:
        compression = _COMPRESSED_STARTS.get(bytes(view[:2]))
        if compression is not None and not _length_is_sound(view, 0):
            return f"not a plain TFRecord: the file looks {compression}-compressed", "decompress it first"
    if remaining < _HEADER.size + _FOOTER.size:
        if index == 0:
            return f"not a TFRecord: {remaining} bytes are too short for one record", "check the path"
        return f"truncated: {remaining} bytes are left, a record has at least {_HEADER.size + _FOOTER.size}", _FETCH_AGAIN
    if not _length_is_sound(view, offset):
        if index == 0:
            return "not a TFRecord: the first 12 bytes are no length with its CRC", "check the path"
        return "wrong CRC of the record's length, so the next record cannot be found", _FETCH_AGAIN
    (length,) = struct.unpack_from("<Q", view, offset)
    needed = _HEADER.size + length + _FOOTER.size
    if needed > remaining:
        return f"truncated: the record has {needed} bytes, the file holds {remaining} more", _FETCH_AGAIN
    return None


def _length_is_sound(view: memoryview, offset: int) -> bool:
    """Whether a length with a matching CRC stands at `offset`."""
    if len(view) - offset < _HEADER.size:
        return False
    _, stored = _HEADER.unpack_from(view, offset)
    with view[offset : offset + _LENGTH_BYTES] as length:
        return masked_crc(length) == int(stored)
