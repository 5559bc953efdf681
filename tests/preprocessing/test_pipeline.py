"""The pipeline: what is done is done once, bad input costs only itself, and the exit status tells the truth."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from limtr.cli import main
from preprocessing import preprocess_task
from preprocessing.executors import run_in_process
from preprocessing.output_lock import only_run
from preprocessing.pipeline import PreprocessConfig, run
from preprocessing.plan import make_plan, shard_indices
from preprocessing.preprocess_task import ShardFailure, ShardResult, ShardSettings, ShardTask
from preprocessing.ray_executor import run_on_ray
from preprocessing.shard_metadata import read_sidecars, shard_name, sidecar_path
from preprocessing.shards import SceneSource, ShardWriter, data_fingerprint
from tests.preprocessing.pipeline_runs import preprocess, quarantine, shard_files
from tests.preprocessing.record_files import scenario, write_shard


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two training shards of two scenes, one validation shard, one test shard of 11 steps."""
    root = tmp_path / "raw"
    write_shard(root, "training", 0, 2, [scenario("a0"), scenario("a1")])
    write_shard(root, "training", 1, 2, [scenario("b0"), scenario("b1", types=(1, 1), targets=())])
    write_shard(root, "validation", 0, 1, [scenario("c0")])
    write_shard(root, "testing", 0, 1, [scenario("d0", num_steps=11)])
    return root


def test_official_layout_becomes_a_dataset_of_three_splits(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (raw / "scenario" / "training_20s").mkdir()
    assert preprocess(raw, out) == 0
    assert SceneSource(out, "train").scenario_ids() == ("a0", "a1", "b0", "b1")
    assert SceneSource(out, "validation").scenario_ids() == ("c0",)
    assert not SceneSource(out, "test")[0].has_future
    scene = SceneSource(out, "train")[0]
    assert scene.lidar is None
    assert scene.origin_m[0] > 4000
    printed = capsys.readouterr().out
    assert "skipped" in printed
    assert "training_20s" in printed
    report = json.loads((out / "report.json").read_text())
    train = report["results"]["splits"]["train"]
    assert (train["scenes"], train["scenes_without_lidar"], train["scenes_without_targets"]) == (4, 4, 1)
    assert train["targets"] == {"VEHICLE": 3, "PEDESTRIAN": 3, "CYCLIST": 3}
    assert report["config"]["points"] == 2048
    assert report["results"]["this_run"]["shards_made"] == 4


def test_a_second_run_does_only_what_is_missing(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert preprocess(raw, out) == 0
    before = shard_files(out)
    fingerprint = data_fingerprint(out)
    sidecar_path(out, "train", 1).unlink()
    capsys.readouterr()
    assert preprocess(raw, out) == 0
    assert "4 motion shards, 3 already done" in capsys.readouterr().out
    after = shard_files(out)
    assert {name for name in after if after[name] != before[name]} == {shard_name("train", 1)}
    assert {name: content for name, (content, _) in after.items()} == {name: content for name, (content, _) in before.items()}
    assert data_fingerprint(out) == fingerprint


def test_a_partial_download_grows_without_renaming(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_shard(raw, "training", 1, 3, [scenario("b0")])
    assert preprocess(raw, out) == 0
    first = shard_files(out)
    assert list(first) == ["limtr-train.array_record-00001"]
    write_shard(raw, "training", 0, 3, [scenario("a0")])
    write_shard(raw, "training", 2, 3, [scenario("c0")])
    assert preprocess(raw, out) == 0
    grown = shard_files(out)
    assert grown["limtr-train.array_record-00001"] == first["limtr-train.array_record-00001"]
    assert list(grown) == [shard_name("train", index) for index in range(3)]
    assert SceneSource(out, "train").scenario_ids() == ("a0", "b0", "c0")


def test_splits_made_at_different_times_merge(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert preprocess(raw, out, splits=("validation",)) == 0
    with pytest.raises(FileNotFoundError, match="no split 'train'"):
        SceneSource(out, "train")
    assert preprocess(raw, out, splits=("train",)) == 0
    assert len(SceneSource(out, "validation")) == 1
    assert len(SceneSource(out, "train")) == 4


@pytest.mark.parametrize("changed", [{"points": 512}, {"seed": 1}, {"margin_m": 0.3}])
def test_another_configuration_is_refused_until_overwritten(raw: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    out = tmp_path / "out"
    assert preprocess(raw, out, splits=("validation",)) == 0
    before = shard_files(out)
    for splits in (("validation",), ("train",)):
        with pytest.raises(ValueError, match=rf"another configuration.*{next(iter(changed.values()))} now.*--overwrite"):
            preprocess(raw, out, splits=splits, **changed)
    assert shard_files(out) == before
    (out / "notes.txt").write_text("mine")
    assert preprocess(raw, out, splits=("train",), overwrite=True, **changed) == 0
    assert list(shard_files(out)) == [shard_name("train", 0), shard_name("train", 1)]
    assert (out / "notes.txt").exists()


def test_overwrite_removes_nothing_where_the_input_is_wrong(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert preprocess(raw, out) == 0
    before = shard_files(out)
    with pytest.raises(FileNotFoundError, match="no folder `scenario`"):
        preprocess(tmp_path / "typo", out, overwrite=True, points=64)
    assert shard_files(out) == before
    assert len(SceneSource(out, "train")) == 4


def test_a_motion_shard_that_changed_is_made_again(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert preprocess(raw, out) == 0
    write_shard(raw, "training", 1, 2, [scenario("b0"), scenario("b1"), scenario("b2")])
    assert preprocess(raw, out) == 0
    assert "has changed" in capsys.readouterr().out
    assert SceneSource(out, "train").scenario_ids() == ("a0", "a1", "b0", "b1", "b2")


def test_a_deleted_shard_is_made_again(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert preprocess(raw, out) == 0
    fingerprint = data_fingerprint(out)
    (out / shard_name("train", 0)).unlink()
    assert preprocess(raw, out) == 0
    assert "its file is gone" in capsys.readouterr().out
    assert data_fingerprint(out) == fingerprint


def test_a_shard_that_is_made_again_is_not_declared_done_before_it_is(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert preprocess(raw, out) == 0
    write_shard(raw, "training", 1, 2, [scenario("b0"), scenario("b1"), scenario("b2")])

    def stopped(folder: Path, sidecar: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))

    monkeypatch.setattr(preprocess_task, "write_sidecar", stopped)
    assert preprocess(raw, out) == 1
    assert SceneSource(out, "train").scenario_ids() == ("a0", "a1")
    monkeypatch.undo()
    assert preprocess(raw, out) == 0
    assert SceneSource(out, "train").scenario_ids() == ("a0", "a1", "b0", "b1", "b2")


def test_what_an_interrupted_run_left_is_swept(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert preprocess(raw, out) == 0
    half = out / ".limtr-train.array_record-00009.tmp.123"
    half_sidecar = out / "sidecars" / ".limtr-train-00009.json.tmp.123"
    metadata = out / ".metadata.tmp.abc" / "features.json"
    metadata.parent.mkdir()
    without_sidecar = out / shard_name("train", 9)
    for path in (half, half_sidecar, metadata):
        path.write_bytes(b"half")
    without_sidecar.write_bytes(b"whole, but never declared done")
    assert preprocess(raw, out) == 0
    assert not any(path.exists() for path in (half, half_sidecar, metadata.parent, without_sidecar))


# --- bad input


def test_empty_and_wrong_folders_say_what_to_do(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    with pytest.raises(FileNotFoundError, match=r"no folder `scenario`.*--input"):
        preprocess(raw, tmp_path / "out")
    (raw / "scenario" / "training").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no motion shard"):
        preprocess(raw, tmp_path / "out")
    write_shard(raw, "training", 0, 1, [scenario("a")])
    with pytest.raises(FileNotFoundError, match="--lidar"):
        preprocess(raw, tmp_path / "out", lidar=tmp_path / "nowhere")


def test_a_full_disk_leaves_neither_shard_nor_sidecar(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    out = tmp_path / "out"
    assert preprocess(raw, out, splits=("validation",)) == 0

    def no_room(writer: ShardWriter, scene: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(writer.path))

    monkeypatch.setattr(preprocess_task.ShardWriter, "write", no_room)
    assert preprocess(raw, out) == 1
    assert "No space left on device" in (printed := capsys.readouterr().out)
    assert "make room" in printed
    assert "NOT WHOLE" in printed
    assert list(shard_files(out)) == [shard_name("validation", 0)]
    assert [sidecar.name for sidecar in read_sidecars(out)] == [shard_name("validation", 0)]
    assert not list(out.glob(".*tmp*"))
    monkeypatch.undo()
    assert preprocess(raw, out) == 0
    assert len(SceneSource(out, "train")) == 4


@pytest.mark.parametrize(("code", "attempts"), [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EIO, 4)])
def test_a_full_disk_ends_the_run_and_another_error_costs_its_shard(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, attempts: int
) -> None:
    tried: set[str] = set()

    def fail(writer: ShardWriter, scene: Any) -> None:
        tried.add(str(writer.path))
        raise OSError(code, os.strerror(code), str(writer.path))

    monkeypatch.setattr(ShardWriter, "write", fail)
    assert preprocess(raw, tmp_path / "out") == 1
    assert len(tried) == attempts


def test_a_shard_that_fails_lets_the_others_go_on(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = preprocess_task.process_shard

    def fail_on_second(task: ShardTask) -> ShardResult:
        if task.index == 1:
            raise PermissionError(errno.EACCES, "Permission denied", str(task.source))
        return make(task)

    monkeypatch.setattr(preprocess_task, "process_shard", fail_on_second)
    assert preprocess(raw, tmp_path / "out") == 1
    assert SceneSource(tmp_path / "out", "train").scenario_ids() == ("a0", "a1")
    failed = json.loads((tmp_path / "out" / "report.json").read_text())["results"]["this_run"]["shards_failed"]
    assert ["Permission denied" in item["error"] for item in failed] == [True]


def test_want_of_memory_is_no_fault_of_the_record(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = preprocess_task.record_to_scene

    def too_large(data: bytes, *, source: str) -> Any:
        if b"b1" in data:
            raise MemoryError
        return make(data, source=source)

    monkeypatch.setattr(preprocess_task, "record_to_scene", too_large)
    assert preprocess(raw, tmp_path / "out") == 1
    assert quarantine(tmp_path / "out") == []
    assert SceneSource(tmp_path / "out", "train").scenario_ids() == ("a0", "a1")
    monkeypatch.undo()
    assert preprocess(raw, tmp_path / "out") == 0


def test_a_link_to_a_motion_shard_that_is_gone_is_a_missing_shard(raw: Path, tmp_path: Path) -> None:
    link = raw / "scenario" / "training" / "training.tfrecord-00002-of-00003"
    link.symlink_to(tmp_path / "not here")
    assert preprocess(raw, tmp_path / "out") == 1
    assert len(SceneSource(tmp_path / "out", "train")) == 4
    failed = json.loads((tmp_path / "out" / "report.json").read_text())["results"]["this_run"]["shards_failed"]
    assert [item["source"] for item in failed] == [str(link)]


def test_only_one_run_at_a_time_in_a_folder(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    out.mkdir()
    with only_run(out), pytest.raises(ValueError, match="another `limtr preprocess`"):
        preprocess(raw, out)
    assert preprocess(raw, out) == 0


def test_ctrl_c_keeps_the_finished_shards(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    make = preprocess_task.process_shard
    # A shell's background jobs ignore Ctrl-C, and so do the tests that they run.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted(task: ShardTask) -> ShardResult:
        if task.index == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return make(task)

    monkeypatch.setattr(preprocess_task, "process_shard", interrupted)
    try:
        assert main(["preprocess", "--input", str(raw), "--out", str(out), "--executor", "local"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert SceneSource(out, "train").scenario_ids() == ("a0", "a1")
    monkeypatch.undo()
    assert preprocess(raw, out) == 0
    assert len(SceneSource(out, "train")) == 4


# --- Ray


def test_ray_makes_the_same_bytes(raw: Path, tmp_path: Path, ray_cluster: None) -> None:
    assert preprocess(raw, tmp_path / "local") == 0
    assert run(PreprocessConfig(input=raw, out=tmp_path / "ray", executor="ray")) == 0
    local, on_ray = shard_files(tmp_path / "local"), shard_files(tmp_path / "ray")
    assert {name: content for name, (content, _) in local.items()} == {name: content for name, (content, _) in on_ray.items()}
    assert data_fingerprint(tmp_path / "local") == data_fingerprint(tmp_path / "ray")


def test_ray_lists_a_shard_that_cannot_be_made(raw: Path, tmp_path: Path, ray_cluster: None) -> None:
    good = make_plan(source=raw, out=tmp_path, lidar=None, splits=("train",), settings=ShardSettings()).todo
    gone = ShardTask(source=raw / "gone", split="train", index=7, out=tmp_path, lidar=None, settings=ShardSettings())
    outcomes = list(run_on_ray([gone, *good], address=None, workers=None))
    assert len(outcomes) == 3
    (failure,) = [outcome for outcome in outcomes if isinstance(outcome, ShardFailure)]
    assert failure.task == gone
    assert "No such file" in failure.error


class LethalPath(type(Path())):  # type: ignore[misc]
    """A motion shard that kills its worker until a file named after it with `.spared` exists."""

    def stat(self, **options: Any) -> os.stat_result:
        marker = Path(f"{self}.spared")
        if not marker.exists():
            marker.touch()
            os._exit(9)
        return os.stat(str(self), **options)


def test_ray_tries_again_when_a_worker_dies(raw: Path, tmp_path: Path, ray_cluster: None) -> None:
    source = LethalPath(raw / "scenario" / "training" / "training.tfrecord-00000-of-00002")
    task = ShardTask(source=source, split="train", index=0, out=tmp_path / "out", lidar=None, settings=ShardSettings())
    (outcome,) = run_on_ray([task], address=None, workers=None)
    assert isinstance(outcome, ShardResult)
    assert outcome.rows == 2
    assert Path(f"{source}.spared").exists(), "the first worker did die"


def test_pipeline_modules_load_without_ray_and_tfds() -> None:
    program = (
        "import sys, preprocessing.pipeline, preprocessing.shards, preprocessing.intentions; "
        "assert not {'ray', 'tensorflow_datasets', 'array_record', 'open3d', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- numbers of shards


def test_numbers_of_shards_never_change() -> None:
    def numbers(names: list[str], known: dict[str, int]) -> list[int]:
        return list(shard_indices([Path(name) for name in names], known).values())

    assert numbers(["t.tfrecord-00004-of-00010", "t.tfrecord-00007-of-00010"], {}) == [4, 7]
    assert numbers(["a.tfrecord", "b.tfrecord"], {}) == [0, 1]
    assert numbers(["a.tfrecord", "aa.tfrecord", "b.tfrecord"], {"a.tfrecord": 0, "b.tfrecord": 1}) == [0, 2, 1]
    assert numbers(["t.tfrecord-00000-of-00002"], {"a.tfrecord": 0}) == [1]
    assert numbers(["t.tfrecord-00001-of-00002", "u.tfrecord-00001-of-00002"], {}) == [1, 2]


def test_unfinished_downloads_are_named_not_read(tmp_path: Path) -> None:
    write_shard(tmp_path, "training", 0, 2, [scenario("a")])
    (tmp_path / "scenario" / "training" / "training.tfrecord-00001-of-00002_.gstmp").write_bytes(b"half")
    plan = make_plan(source=tmp_path, out=tmp_path / "out", lidar=None, splits=("train",), settings=ShardSettings())
    assert [task.index for task in plan.tasks] == [0]
    assert any("gstmp" in note for note in plan.notes)
    assert [outcome.rows for outcome in run_in_process(plan.todo) if isinstance(outcome, ShardResult)] == [1]


@pytest.mark.parametrize("wrong", [{"points": 0}, {"margin_m": -0.1}, {"splits": ()}, {"workers": 0}])
def test_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        PreprocessConfig(input=Path(), out=Path(), **wrong)


def test_ignored_options_are_warned_about(raw: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="ignored"):
        preprocess(raw, tmp_path / "out", workers=2)


@pytest.mark.skipif("LIMTR_WOMD_SAMPLE" not in os.environ, reason="needs LIMTR_WOMD_SAMPLE, a folder with the public sample")
def test_the_real_scenario_fits_its_size(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "scenario" / "validation"
    folder.mkdir(parents=True)
    sample = Path(os.environ["LIMTR_WOMD_SAMPLE"]) / "motion_data_one_scenario.tfrecord"
    (folder / "validation.tfrecord-00000-of-00150").symlink_to(sample)
    assert preprocess(tmp_path / "raw", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())["results"]["splits"]["validation"]
    assert report["bytes_per_scene"] <= 450_000
    assert SceneSource(tmp_path / "out", "validation")[0].num_tracks == 83
