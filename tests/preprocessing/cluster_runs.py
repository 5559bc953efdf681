"""A small Ray cluster on this machine, drivers in processes of their own, and shards that stop where a test wants them to."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.preprocessing.record_files import scenario, write_shard

ROOT = Path(__file__).parents[2]
NUM_SHARDS = 6
PATIENCE_S = 120.0


class SmallCluster:
    """A head without CPUs and nodes of one CPU each, as processes of this machine."""

    def __init__(self, num_nodes: int = 3) -> None:
        from ray.cluster_utils import Cluster

        self.folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a short path: sockets lie in it
        # Ray kills workers where the machine is short of memory, whoever uses it: that would be another test.
        system = {"memory_monitor_refresh_ms": 0}
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": self.folder, "_system_config": system}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add_node() for _ in range(num_nodes)]

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add_node(self, **options: Any) -> Any:
        return self._cluster.add_node(num_cpus=1, **options)

    def remove_node(self, node: Any) -> None:
        self._cluster.remove_node(node, allow_graceful=False)

    def node_of(self, pid: int) -> Any:
        """The node whose raylet is an ancestor of this worker."""
        raylets = {node.all_processes["raylet"][0].process.pid: node for node in self.nodes}
        while pid > 1:
            if pid in raylets:
                return raylets[pid]
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        raise AssertionError("no raylet started this process")

    def kill_head(self) -> None:
        self._cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)

    def stop(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)


class Driver:
    """`limtr preprocess` in a process of its own."""

    started: ClassVar[list[Driver]] = []

    def __init__(self, raw: Path, out: Path, address: str, *options: str, **environment: str) -> None:
        descriptor, self._output = tempfile.mkstemp(prefix="driver-", dir=raw.parent)
        whole = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment}
        words = ["preprocess", "--input", str(raw), "--out", str(out), "--ray-address", address, *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "limtr.cli", *words],
            env=whole, stdout=descriptor, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        os.close(descriptor)
        self.started.append(self)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def wait(self) -> int:
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise AssertionError(f"the driver did not end:\n{self.said()}") from error

    def said(self) -> str:
        return Path(self._output).read_text()


class Gate:
    """A motion shard that blocks whoever opens it; after `open`, it is the shard again for whoever comes then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shard = path.parents[2] / f"{path.name}.shard"
        self._blocking = path.parents[2] / f"{path.name}.blocking"
        os.replace(path, self._shard)
        os.mkfifo(path)

    def open(self) -> None:
        if self._shard.exists():
            os.replace(self._path, self._blocking)
            os.replace(self._shard, self._path)

    def release(self) -> None:
        """Let who was blocked go on: what it reads is an empty file."""
        os.close(os.open(self._blocking, os.O_WRONLY))


def eventually(found: Callable[[], Any], what: str) -> Any:
    """The first true value of `found()`."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


def worker_of(out: Path, index: int) -> int:
    """The process that is making a training shard, by the name of its temporary file; waits for it."""

    def pid() -> int:
        names = [path.name for path in out.glob(f".limtr-train.array_record-{index:05d}.tmp.*")]
        return int(names[0].split(".tmp.")[1].split(".")[0]) if names else 0

    return int(eventually(pid, f"a worker of shard {index}"))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def write_raw(root: Path, scenes: int = 12) -> Path:
    """Six training shards; the names of their scenes say where they belong."""
    for index in range(NUM_SHARDS):
        write_shard(root, "training", index, NUM_SHARDS, [scenario(f"s{index}-{row:02d}") for row in range(scenes)])
    return root


def motion_shard(raw: Path, index: int) -> Path:
    return raw / "scenario" / "training" / f"training.tfrecord-{index:05d}-of-{NUM_SHARDS:05d}"


def content(out: Path) -> dict[str, str]:
    """Hash of every file of a dataset, hidden ones too, but the report, which tells of its run."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path != out / "report.json"]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A file system of its own on `folder`; yields a function that mounts it anew with other options. Needs root."""

    def mount(*words: str) -> None:
        subprocess.run(["mount", *words, str(folder)], check=True, capture_output=True)

    folder.mkdir()
    try:
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root")
    try:
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
