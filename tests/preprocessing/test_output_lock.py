"""One run at a time in a folder, wherever it runs; a dead one is told from a living one, and a replaced one writes no more."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preprocessing import output_lock, pipeline
from preprocessing.output_lock import LOCK_NAME, LockLostError, holds, only_run, require_held
from preprocessing.preprocess_task import ShardSettings, ShardTask, attempt_shard, process_shard
from preprocessing.shard_metadata import shard_name
from preprocessing.shards import ShardWriter
from tests.preprocessing.pipeline_runs import preprocess
from tests.preprocessing.record_files import scenario, write_shard


def foreign_lock(folder: Path, beat: int = 0) -> None:
    """What a run on another machine would have written."""
    content = {"token": "foreign", "beat": beat, "host": "node7", "pid": 4711, "machine": "another", "beat_at": "yesterday"}
    (folder / LOCK_NAME).write_text(json.dumps(content))


@contextmanager
def beating(folder: Path) -> Iterator[None]:
    stopped = threading.Event()

    def beat() -> None:
        count = 0
        while not stopped.wait(0.1):
            count += 1
            foreign_lock(folder, count)

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    stopped.set()
    thread.join()


def test_the_folder_is_held_while_the_run_lasts_and_nothing_stays(tmp_path: Path) -> None:
    with only_run(tmp_path) as token:
        assert holds(tmp_path, token)
        assert not holds(tmp_path, "another")
        require_held(tmp_path, token)
    assert list(tmp_path.iterdir()) == []
    with only_run(tmp_path) as second:
        assert second != token
        with pytest.raises(LockLostError, match="another one took the folder over"):
            require_held(tmp_path, token)


def test_a_second_run_of_this_machine_is_refused_at_once_and_told_who_is_there(tmp_path: Path) -> None:
    with only_run(tmp_path) as token:
        with pytest.raises(ValueError, match=rf"another `limtr preprocess`.*process {os.getpid()} on "), only_run(tmp_path):
            pass
        assert holds(tmp_path, token)


def test_a_dead_run_of_this_machine_blocks_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "import os, sys; from pathlib import Path; from preprocessing.output_lock import only_run\n"
        "with only_run(Path(sys.argv[1])): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    assert (tmp_path / LOCK_NAME).exists()
    with only_run(tmp_path, stale_s=1000):
        pass
    assert "died; its finished shards are kept" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_dead_run_of_another_machine_is_waited_for_and_then_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_lock, "_SETTLE_S", 0.1)
    foreign_lock(tmp_path)
    with only_run(tmp_path, stale_s=0.5) as token:
        assert holds(tmp_path, token)
    printed = capsys.readouterr().out
    assert "locked by process 4711 on node7, last sign of life yesterday; watching for 0.5 s" in printed
    assert "the run before (process 4711 on node7, last sign of life yesterday) died" in printed


def test_a_living_run_of_another_machine_is_left_alone(tmp_path: Path) -> None:
    foreign_lock(tmp_path)
    refused = pytest.raises(ValueError, match=r"another `limtr preprocess`.*process 4711 on node7")
    with beating(tmp_path), refused, only_run(tmp_path, stale_s=60):
        pass
    assert holds(tmp_path, "foreign")


def test_a_file_lock_that_a_lost_machine_left_behind_is_replaced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_lock, "_SETTLE_S", 0.1)
    foreign_lock(tmp_path)
    with (tmp_path / LOCK_NAME).open() as held_by_the_server:
        fcntl.flock(held_by_the_server, fcntl.LOCK_EX)
        with only_run(tmp_path, stale_s=0.5) as token:
            assert holds(tmp_path, token)
            with pytest.raises(ValueError, match="another `limtr preprocess`"), only_run(tmp_path):
                pass
    assert list(tmp_path.iterdir()) == []


def test_signs_of_life_decide_where_the_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_lock, "_SETTLE_S", 0.1)
    monkeypatch.setattr(output_lock, "BEAT_S", 0.1)

    def no_locks(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    refused = pytest.raises(ValueError, match="another `limtr preprocess`")
    with only_run(tmp_path), refused, only_run(tmp_path, stale_s=60):
        pass
    foreign_lock(tmp_path)
    with only_run(tmp_path, stale_s=0.3):
        pass


def test_of_two_runs_that_replace_a_dead_one_the_one_that_wrote_first_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign_lock(tmp_path)
    sleep = time.sleep

    def another_comes(seconds: float) -> None:
        sleep(seconds / 10)
        if seconds == output_lock._SETTLE_S:
            foreign_lock(tmp_path, beat=1)

    monkeypatch.setattr(time, "sleep", another_comes)
    with pytest.raises(ValueError, match=r"has just begun .*node7"), only_run(tmp_path, stale_s=0.3):
        pass
    assert holds(tmp_path, "foreign")


def test_a_run_that_was_replaced_neither_writes_over_the_lock_nor_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_lock, "BEAT_S", 0.05)
    with only_run(tmp_path):
        foreign_lock(tmp_path)
        time.sleep(0.3)
        assert holds(tmp_path, "foreign")
    assert holds(tmp_path, "foreign")


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_shard_is_not_written_into_a_folder_that_is_no_longer_ours(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_shard(tmp_path / "raw", "training", 0, 1, [scenario("a")]), tmp_path / "out"
    out.mkdir()
    looks: list[bool] = [when == "while"]

    def held(folder: Path, token: str) -> bool:
        return looks.pop() if looks else False

    monkeypatch.setattr(output_lock, "holds", held)
    task = ShardTask(source=source, split="train", index=0, out=out, lidar=None, settings=ShardSettings(), lock="ours")
    with pytest.raises(LockLostError):
        process_shard(task)
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_a_shard_that_fails_because_the_folder_is_no_longer_ours_is_no_fault_of_the_shard(tmp_path: Path) -> None:
    source, out = write_shard(tmp_path / "raw", "training", 0, 1, [scenario("a")]), tmp_path / "out"
    out.mkdir()
    task = ShardTask(source=source, split="train", index=0, out=out, lidar=None, settings=ShardSettings())

    def swept(writer: ShardWriter, scene: Any) -> None:
        foreign_lock(out)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(writer.path))

    with pytest.MonkeyPatch.context() as patched, only_run(out) as token:
        patched.setattr(ShardWriter, "write", swept)
        with pytest.raises(LockLostError):
            attempt_shard(replace(task, lock=token))


def test_a_run_that_was_replaced_writes_neither_metadata_nor_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(tmp_path / "raw", "training", 0, 1, [scenario("a")])
    out, execute = tmp_path / "out", pipeline.execute

    def and_then_another_came(*arguments: Any) -> None:
        execute(*arguments)
        foreign_lock(out)

    monkeypatch.setattr(pipeline, "execute", and_then_another_came)
    with pytest.raises(LockLostError, match="another one took the folder over"):
        preprocess(tmp_path / "raw", out)
    assert {path.name for path in out.iterdir()} == {LOCK_NAME, "sidecars", shard_name("train", 0)}


@pytest.mark.parametrize(
    ("code", "said"), [(errno.EROFS, "Read-only file system: the output folder must be writable"), (errno.EACCES, "Permission")]
)
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str) -> None:
    def refuse(path: Any, *arguments: Any) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=said), only_run(tmp_path):
        pass
