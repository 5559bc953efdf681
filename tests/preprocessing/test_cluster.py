"""Three nodes, and whatever dies on the way: the dataset comes out as from one undisturbed process, bit for bit."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from preprocessing.output_lock import LOCK_NAME, STALE_S
from preprocessing.shard_metadata import sidecar_path
from tests.preprocessing.cluster_runs import (
    NUM_SHARDS,
    Driver,
    Gate,
    SmallCluster,
    content,
    eventually,
    is_running,
    motion_shard,
    small_disk,
    worker_of,
    write_raw,
)
from tests.preprocessing.pipeline_runs import preprocess

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[SmallCluster]:
    made = SmallCluster()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("cluster") / "raw")


@pytest.fixture(scope="module")
def undisturbed(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process makes of it."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert preprocess(raw, out) == 0
    found = content(out)
    assert len(found) == 2 * NUM_SHARDS + 2  # shards, sidecars, TFDS's two files
    return found


@pytest.fixture(autouse=True)
def no_driver_stays() -> Iterator[None]:
    yield
    for driver in Driver.started:
        if driver.process.poll() is None:
            driver.kill()
    Driver.started.clear()


def others_are_done(out: Path, gated: set[int]) -> bool:
    return all(sidecar_path(out, "train", index).exists() for index in set(range(NUM_SHARDS)) - gated)


def test_three_nodes_make_what_one_process_makes(
    cluster: SmallCluster, raw: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    out = tmp_path / "out"
    driver = Driver(raw, out, cluster.address)
    assert driver.wait() == 0, driver.said()
    assert content(out) == undisturbed
    assert f"preprocess: {NUM_SHARDS}/{NUM_SHARDS} shards" in driver.said()
    this_run = json.loads((out / "report.json").read_text())["results"]["this_run"]
    assert this_run["shards_made"] == NUM_SHARDS
    assert 0 < this_run["peak_worker_memory_bytes"] < 2**30, "what is set aside for a worker by default is enough"


def test_a_killed_worker_is_replaced(cluster: SmallCluster, raw: Path, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    out, gate = tmp_path / "out", Gate(motion_shard(raw, 2))
    try:
        driver = Driver(raw, out, cluster.address)
        worker = worker_of(out, 2)
    finally:
        gate.open()
    os.kill(worker, signal.SIGKILL)
    assert driver.wait() == 0, driver.said()
    assert content(out) == undisturbed


def test_a_node_that_goes_is_made_up_for_by_the_others(
    cluster: SmallCluster, raw: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    out, gate = tmp_path / "out", Gate(motion_shard(raw, 1))
    try:
        driver = Driver(raw, out, cluster.address)
        worker = worker_of(out, 1)
        node = cluster.node_of(worker)
    finally:
        gate.open()
    cluster.remove_node(node)
    cluster.nodes.remove(node)
    try:
        assert driver.wait() == 0, driver.said()
        assert not is_running(worker)
    finally:
        cluster.nodes.append(cluster.add_node())
    assert content(out) == undisturbed


def test_a_node_that_joins_gets_work(raw: Path, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    growing, out, gate = SmallCluster(num_nodes=1), tmp_path / "out", Gate(motion_shard(raw, 0))
    try:
        driver = Driver(raw, out, growing.address)
        worker = worker_of(out, 0)  # the only one
        gate.open()
        growing.add_node()
        eventually(lambda: others_are_done(out, {0}), "the new node's shards")
        os.kill(worker, signal.SIGKILL)
        assert driver.wait() == 0, driver.said()
        assert "2 workers on 2 nodes" in driver.said()
    finally:
        gate.open()
        growing.stop()
    assert content(out) == undisturbed


def test_a_run_goes_on_where_a_killed_driver_stood(
    cluster: SmallCluster, raw: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    out, gates = tmp_path / "out", [Gate(motion_shard(raw, index)) for index in (0, 3)]
    try:
        killed = Driver(raw, out, cluster.address)
        workers = [worker_of(out, index) for index in (0, 3)]
        eventually(lambda: others_are_done(out, {0, 3}), "the other shards")
    finally:
        for gate in gates:
            gate.open()
    killed.kill()
    again = Driver(raw, out, cluster.address)  # at once, whether the old workers are gone or not
    assert again.wait() == 0, again.said()
    assert f"process {killed.process.pid} on " in again.said()
    assert f"{NUM_SHARDS} motion shards, {NUM_SHARDS - 2} already done" in again.said()
    assert not any(map(is_running, workers))
    assert content(out) == undisturbed


def test_when_the_head_dies_the_run_ends_and_the_next_goes_on(
    raw: Path, tmp_path: Path, undisturbed: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    lost, out, gate = SmallCluster(), tmp_path / "out", Gate(motion_shard(raw, 4))
    try:
        # Ray waits a minute for its head by default.
        driver = Driver(raw, out, lost.address, RAY_gcs_rpc_server_reconnect_timeout_s="5")
        worker_of(out, 4)
        eventually(lambda: others_are_done(out, {4}), "the other shards")
        lost.kill_head()
        assert driver.wait() != 0
    finally:
        gate.open()
        lost.stop()
    assert preprocess(raw, out) == 0
    said = capsys.readouterr().out
    assert f"process {driver.process.pid} on " in said
    assert f"{NUM_SHARDS} motion shards, {NUM_SHARDS - 1} already done" in said
    assert content(out) == undisturbed


def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(
    cluster: SmallCluster, raw: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    with small_disk(tmp_path / "disk", "500k") as mount_again:
        out = tmp_path / "disk" / "out"
        driver = Driver(raw, out, cluster.address)
        assert driver.wait() == 1, driver.said()
        assert "No space left on device" in driver.said()
        assert "make room" in driver.said()
        assert "Traceback" not in driver.said()
        assert not [name for name in content(out) if ".tmp." in name]
        mount_again("size=20m")
        again = Driver(raw, out, cluster.address)
        assert again.wait() == 0, again.said()
        assert content(out) == undisturbed


def test_a_read_only_output_is_refused_and_stays_as_it_is(
    cluster: SmallCluster, raw: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    with small_disk(tmp_path / "disk", "20m") as mount_again:
        out = tmp_path / "disk" / "out"
        assert preprocess(raw, out) == 0
        sidecar_path(out, "train", 4).unlink()
        before = content(out)
        mount_again("ro")
        driver = Driver(raw, out, cluster.address)
        assert driver.wait() == 1
        assert "Read-only file system: the output folder must be writable" in driver.said()
        assert content(out) == before
        mount_again("rw")
        again = Driver(raw, out, cluster.address)
        assert again.wait() == 0, again.said()
        assert content(out) == undisturbed


def test_a_second_driver_is_refused_and_does_no_harm(
    cluster: SmallCluster, raw: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    out, gate = tmp_path / "out", Gate(motion_shard(raw, 5))
    try:
        first = Driver(raw, out, cluster.address)
        worker = worker_of(out, 5)
        second = Driver(raw, out, cluster.address, "--overwrite", "--points", "64")
        assert second.wait() == 1
        assert f"another `limtr preprocess` is writing there (process {first.process.pid} on " in second.said()
    finally:
        gate.open()
    os.kill(worker, signal.SIGKILL)
    assert first.wait() == 0, first.said()
    assert content(out) == undisturbed


def test_a_run_that_was_given_up_for_dead_writes_nothing_when_it_wakes(
    cluster: SmallCluster, raw: Path, tmp_path: Path, undisturbed: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine that froze: its run was replaced, and then it comes back, in the middle of a shard."""
    out, gate = tmp_path / "out", Gate(motion_shard(raw, 5))
    frozen = Driver(raw, out, cluster.address)
    try:
        worker = worker_of(out, 5)
        eventually(lambda: others_are_done(out, {5}), "the other shards")
    finally:
        gate.open()
    frozen.process.send_signal(signal.SIGSTOP)
    lock = json.loads((out / LOCK_NAME).read_text())
    (out / LOCK_NAME).write_text(json.dumps({**lock, "machine": "another", "host": "frozen"}))
    assert preprocess(raw, out) == 0  # not on the cluster, whose workers the frozen run still holds
    said = capsys.readouterr().out
    assert f"is locked by process {frozen.process.pid} on frozen" in said
    assert f"watching for {STALE_S:g} s" in said
    assert content(out) == undisturbed
    assert is_running(worker)
    gate.release()  # what this worker would now write is another shard: one without scenes
    frozen.process.send_signal(signal.SIGCONT)
    assert frozen.wait() == 1, frozen.said()
    assert "the run was thought dead and another one took the folder over" in frozen.said()
    assert content(out) == undisturbed


OTHER_VERSION = """
from importlib import metadata
version = metadata.version
metadata.version = lambda name: "0.0.9" if name == "limtr" else version(name)
"""
NO_PACKAGE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "preprocessing":
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Missing())
"""


@pytest.mark.parametrize(
    ("python_start", "said"),
    [
        pytest.param(OTHER_VERSION, "limtr 0.0.9 there, 0.1.0 here", id="another version"),
        pytest.param(NO_PACKAGE, "cannot run limtr (ModuleNotFoundError: No module named 'preprocessing'", id="no package"),
    ],
)
def test_a_node_that_does_not_fit_is_named_before_anything_is_written(
    cluster: SmallCluster, raw: Path, tmp_path: Path, python_start: str, said: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(python_start)
    node, out = cluster.add_node(env_vars={"PYTHONPATH": str(tmp_path)}), tmp_path / "out"
    try:
        driver = Driver(raw, out, cluster.address)
        assert driver.wait() == 1, driver.said()
    finally:
        cluster.remove_node(node)
    assert re.search(r"1 of [45] machines cannot make these shards", driver.said()), driver.said()
    assert node.node_id[:8] in driver.said()
    assert said in driver.said()
    assert "same versions" in driver.said()
    assert content(out) == {}


def test_a_cluster_that_is_not_there_is_told_at_once(raw: Path, tmp_path: Path) -> None:
    driver = Driver(raw, tmp_path / "out", "127.0.0.1:9")
    assert driver.wait() == 1
    assert "limtr preprocess: --ray-address 127.0.0.1:9: Connection refused" in driver.said()
    assert content(tmp_path / "out") == {}
