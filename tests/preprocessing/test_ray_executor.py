"""Shards as Ray tasks: bounded in number and in what travels, on machines that fit."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preprocessing import node_check, ray_executor
from preprocessing.executors import measured
from preprocessing.node_check import look_from_here, require_same
from preprocessing.node_stamp import CODE, differences, node_stamp
from preprocessing.output_lock import only_run
from preprocessing.pipeline import PreprocessConfig, run
from preprocessing.preprocess_task import ShardFailure, ShardResult, ShardSettings, ShardTask
from preprocessing.ray_executor import Cluster, run_on_ray
from preprocessing.run_view import RunView
from tests.preprocessing.cluster_runs import Gate, content, motion_shard, worker_of, write_raw
from tests.preprocessing.pipeline_runs import preprocess
from tests.preprocessing.record_files import scenario, write_shard


def tasks_of(raw: Path, out: Path, number: int = 6, **options: Any) -> list[ShardTask]:
    out.mkdir(exist_ok=True)
    return [
        ShardTask(source=motion_shard(raw, i), split="train", index=i, out=out, lidar=None, settings=ShardSettings(), **options)
        for i in range(number)
    ]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "raw", scenes=2)


def test_a_killed_worker_leaves_no_trace_in_the_dataset(
    raw: Path, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The short one of `test_cluster.py`: a cluster of one node, named by its address."""
    import ray

    monkeypatch.setattr(ray_executor, "TICK_S", 0.05)
    assert preprocess(raw, tmp_path / "undisturbed") == 0
    out, gate = tmp_path / "out", Gate(motion_shard(raw, 3))

    def kill() -> None:
        worker = worker_of(out, 3)
        gate.open()
        os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    address = ray.get_runtime_context().gcs_address
    assert run(PreprocessConfig(input=raw, out=out, executor="ray", ray_address=address)) == 0
    killer.join()
    assert content(out) == content(tmp_path / "undisturbed")
    said = capsys.readouterr()
    assert "preprocess: 6/6 shards" in said.err
    assert "12 scenes" in said.err
    assert "0 quarantined; 2 workers on 1 nodes" in said.err


class PoisonPath(type(Path())):  # type: ignore[misc]
    """A motion shard that kills every worker that looks at it."""

    def stat(self, **options: Any) -> os.stat_result:
        os._exit(9)


def test_a_shard_that_kills_every_worker_is_given_up_and_named(raw: Path, tmp_path: Path, ray_cluster: None) -> None:
    good, other = tasks_of(raw, tmp_path / "out", 2)
    poison = replace(other, source=PoisonPath(other.source))
    outcomes = list(run_on_ray([poison, good], address=None, workers=None))
    (failure,) = [outcome for outcome in outcomes if isinstance(outcome, ShardFailure)]
    assert failure.task == poison
    assert "its worker died 4 times" in failure.error
    assert [outcome.rows for outcome in outcomes if isinstance(outcome, ShardResult)] == [2]


def test_so_many_shards_are_in_flight_and_no_more(
    raw: Path, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "TICK_S", 0.0)
    seen: list[Cluster] = []
    outcomes = list(run_on_ray(tasks_of(raw, tmp_path / "out"), address=None, workers=None, look=seen.append))
    assert len(outcomes) == 6
    assert {cluster.slots for cluster in seen} == {2}
    assert max(cluster.in_flight for cluster in seen) <= 4


def test_memory_bounds_the_workers_of_a_machine_and_too_little_is_told(raw: Path, tmp_path: Path, ray_cluster: None) -> None:
    with pytest.raises(ConnectionError, match=r"room for a worker of 1 CPU and 65536 GiB.*2 CPUs.*--memory-gib"):
        list(run_on_ray(tasks_of(raw, tmp_path / "out"), address=None, workers=None, memory_bytes=2**46))


def test_a_run_without_machines_ends_after_the_stated_time(
    raw: Path, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    looks = [node_check.live_nodes(ray)]  # at the start, and none later
    monkeypatch.setattr(ray_executor, "live_nodes", lambda ray: looks.pop() if looks else [])
    monkeypatch.setattr(ray_executor, "TICK_S", 0.1)
    gates = [Gate(motion_shard(raw, index)) for index in range(2)]
    with pytest.raises(ConnectionError, match=r"for 0.3 s, no machine of the Ray cluster .*none is alive.*ray start"):
        list(run_on_ray(tasks_of(raw, tmp_path / "out", 2), address=None, workers=None, no_node_limit_s=0.3))
    for gate in gates:
        gate.open()


def test_scenes_never_travel_through_ray(tmp_path: Path) -> None:
    sizes = []
    for index, scenes in enumerate((1, 30)):
        source = write_shard(tmp_path / "raw", "training", index, 2, [scenario(f"s{row}") for row in range(scenes)])
        out = tmp_path / "out"
        task = ShardTask(source=source, split="train", index=index, out=out, lidar=None, settings=ShardSettings())
        outcome = measured(task)
        assert isinstance(outcome, ShardResult)
        assert outcome.rows == scenes
        sizes.append((len(pickle.dumps(task)), len(pickle.dumps(outcome))))
    assert max(map(max, sizes)) < 1500
    assert abs(sizes[0][1] - sizes[1][1]) < 16


# --- machines that do not fit


def test_the_stamp_names_versions_and_code() -> None:
    here = node_stamp()
    assert {"python", "limtr", "ray", CODE} <= here.keys()
    assert "not installed" not in here.values()
    assert differences(here, here) == ""
    assert differences({**here, "limtr": "0.0.9"}, here) == f"limtr 0.0.9 there, {here['limtr']} here"
    assert differences({}, here).count("unknown there") == len(here)
    with pytest.raises(ValueError, match=r"numpy .* there, 1\.0 here.*same versions"):
        require_same({**here, "numpy": "1.0"})


def test_a_machine_that_joins_with_other_code_ends_the_run(raw: Path, tmp_path: Path, ray_cluster: None,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(ray_executor, "node_stamp", lambda: {**node_stamp(), CODE: "0123"})
    with pytest.raises(ConnectionError, match=r"cannot make shards: .* other versions .*limtr's code .* there, 0123 here"):
        list(run_on_ray(tasks_of(raw, tmp_path / "out"), address=None, workers=None))
    assert content(tmp_path / "out") == {}


def test_a_machine_without_the_folders_is_told(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with only_run(out) as lock:
        (task,) = tasks_of(raw, out, 1, lock=lock)
        assert look_from_here(task, node_stamp()) == ""
        assert [path.name for path in out.iterdir()] == [".lock"]
        assert "does not see the input folder" in look_from_here(replace(task, source=Path("/a/b/c")), node_stamp())
        assert "does not see the LiDAR folder /a" in look_from_here(replace(task, lidar=Path("/a")), node_stamp())
        assert "does not see the output folder" in look_from_here(replace(task, out=tmp_path / "else"), node_stamp())
        assert "other versions" in look_from_here(task, {**node_stamp(), "python": "2.7"})


# --- the view


def test_the_view_counts_scenes_quarantine_and_failures(tmp_path: Path) -> None:
    task = ShardTask(source=tmp_path, split="train", index=0, out=tmp_path, lidar=None, settings=ShardSettings())
    view = RunView(cluster="3 workers on 2 nodes")
    for node, memory in (("a", 10), ("b", 30), ("a", 20)):
        view.results.append(ShardResult(task=task, rows=5, bad=1, seconds=2.0, node=node, peak_memory_bytes=memory))
    view.failures.append(ShardFailure(task=task, error="no"))
    view.start -= 10.0
    assert view.note() == "15 scenes, 1.5 scenes/s, 3 quarantined, 1 shards failed; 3 workers on 2 nodes"
    summary = view.summary()
    assert summary["shards_by_machine"] == {"a": 2, "b": 1}
    assert (summary["scenes"], summary["worker_seconds"], summary["peak_worker_memory_bytes"]) == (15, 6.0, 30)
    assert summary["shards_failed"][0]["error"] == "no"
