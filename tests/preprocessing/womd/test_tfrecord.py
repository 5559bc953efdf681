"""TFRecord framing: what is written is read, and every kind of damage is told."""

import gzip
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.womd.tfrecord import RecordError, iter_records, masked_crc, record_frame, write_records

GOLDEN = Path(__file__).parents[2] / "golden" / "lidar" / "synthetic_womd_lidar.tfrecord"
RECORDS = [b"first record", b"second", b"third one"]
FIRST_SIZE = len(record_frame(RECORDS[0]))


def damaged(tmp_path: Path, *, flip: int | None = None, keep: int | None = None) -> Path:
    """Three records with one byte flipped, or cut off after `keep` bytes."""
    data = bytearray(b"".join(map(record_frame, RECORDS)))
    if flip is not None:
        data[flip] ^= 0x40
    path = tmp_path / "damaged.tfrecord"
    path.write_bytes(bytes(data[:keep]))
    return path


def read_all(path: Path) -> tuple[list[tuple[int, bytes]], list[RecordError]]:
    errors: list[RecordError] = []
    return list(iter_records(path, errors.append)), errors


@settings(max_examples=25, deadline=None)
@given(records=st.lists(st.binary(max_size=300), min_size=1, max_size=6))
def test_written_records_are_read_back(tmp_path_factory: pytest.TempPathFactory, records: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("records") / "file.tfrecord"
    assert write_records(path, records) == len(records)
    assert list(iter_records(path)) == list(enumerate(records))


def test_frame_is_byte_for_byte_what_tensorflow_wrote() -> None:
    data = b"".join(record_frame(record) for _, record in iter_records(GOLDEN))
    assert data == GOLDEN.read_bytes()


def test_masked_crc_of_a_known_string() -> None:
    # CRC32C("123456789") is 0xe3069283, the check value of the Castagnoli polynomial; rotated by 15, plus the constant.
    rotated = ((0xE3069283 >> 15) | (0xE3069283 << 17)) & 0xFFFFFFFF
    assert masked_crc(b"123456789") == (rotated + 0xA282EAD8) % 2**32


def test_a_wrong_data_crc_costs_one_record(tmp_path: Path) -> None:
    path = damaged(tmp_path, flip=FIRST_SIZE + 12)
    records, errors = read_all(path)
    assert records == [(0, RECORDS[0]), (2, RECORDS[2])]
    assert [(error.index, error.offset) for error in errors] == [(1, FIRST_SIZE)]
    assert "wrong CRC of its 6 data bytes" in errors[0].reason


@pytest.mark.parametrize(
    ("flip", "keep", "reason"),
    [
        (FIRST_SIZE, None, "wrong CRC of the record's length"),
        (FIRST_SIZE + 8, None, "wrong CRC of the record's length"),
        (None, FIRST_SIZE + 3, "truncated: 3 bytes are left"),
        (None, FIRST_SIZE + 12, "truncated: 12 bytes are left"),
        (None, FIRST_SIZE + 21, "truncated: the record has 22 bytes, the file holds 21 more"),
    ],
    ids=["length", "crc-of-length", "header", "no-data", "footer"],
)
def test_damage_that_hides_the_next_record_ends_the_file(tmp_path: Path, flip: int, keep: int, reason: str) -> None:
    records, errors = read_all(damaged(tmp_path, flip=flip, keep=keep))
    assert records == [(0, RECORDS[0])]
    assert [(error.index, error.offset) for error in errors] == [(1, FIRST_SIZE)]
    assert reason in errors[0].reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"short", "not a TFRecord: 5 bytes"),
        (b"# a text file that somebody put into the folder\n", "not a TFRecord: the first 12 bytes"),
        (gzip.compress(record_frame(b"record")), "looks gzip-compressed"),
        (record_frame(b"record")[:18], "truncated: the record has 22 bytes, the file holds 18 more"),
    ],
    ids=["empty", "tiny", "text", "gzip", "truncated"],
)
def test_what_is_no_tfrecord_is_called_so(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "file.tfrecord"
    path.write_bytes(content)
    records, errors = read_all(path)
    assert records == []
    assert len(errors) == 1
    assert reason in errors[0].reason


def test_a_plain_file_that_begins_like_a_gzip_one_is_read(tmp_path: Path) -> None:
    record = bytes(0x8B1F)  # so long that its length begins with gzip's two bytes
    path = tmp_path / "file.tfrecord"
    write_records(path, [record])
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert list(iter_records(path)) == [(0, record)]


def test_without_a_handler_the_error_is_raised_after_the_good_records(tmp_path: Path) -> None:
    path = damaged(tmp_path, flip=FIRST_SIZE + 12)
    reader = iter_records(path)
    assert next(reader) == (0, RECORDS[0])
    with pytest.raises(RecordError, match=r"damaged.tfrecord: record 1 at byte 28: .*; fetch the file again"):
        next(reader)


def test_an_error_crosses_processes_whole() -> None:
    error = RecordError(Path("a.tfrecord"), 3, 40, "truncated", "fetch it again")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert (copy.path, copy.index, copy.offset, copy.reason) == (error.path, 3, 40, "truncated")


def test_a_failing_source_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "file.tfrecord"
    path.write_bytes(b"before")

    def records() -> list[bytes]:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        write_records(path, (record for _ in range(1) for record in records()))
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.tfrecord"]
