"""What a shard's writer leaves where it cannot finish: nothing."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from preprocessing.shards import ShardWriter, scene_entry
from tests.builders import tiny_scene


def write_and_fail(path: Path) -> None:
    with ShardWriter(path) as writer:
        writer.write(tiny_scene())
        raise KeyError("in the block")


def test_a_failing_block_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="in the block"):
        write_and_fail(tmp_path / "shard")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_of_the_file_system_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk:
        def __init__(self, path: str, options: str) -> None:
            Path(path).touch()

        def write(self, data: bytes) -> None:
            raise RuntimeError("write() failed: No space left on device; writing shard")

        def close(self) -> None:
            return None

    monkeypatch.setattr("array_record.python.array_record_module.ArrayRecordWriter", FullDisk)
    with pytest.raises(OSError, match="shard") as caught, ShardWriter(tmp_path / "shard") as writer:
        writer.write(tiny_scene())
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def write_but_lose_one(path: Path) -> None:
    with ShardWriter(path) as writer:
        writer.write(tiny_scene())
        writer.entries.append(scene_entry(tiny_scene(1), 1))


def test_a_shard_that_cannot_be_read_back_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="1 of 2 scenes can be read back"):
        write_but_lose_one(tmp_path / "shard")
    assert list(tmp_path.iterdir()) == []
