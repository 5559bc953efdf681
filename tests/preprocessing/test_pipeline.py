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
from preprocessing.womd.tfrecord import record_frame
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


def bad_crc(data: bytes) -> bytes:
    frame = bytearray(record_frame(data))
    frame[len(frame) // 2] ^= 0xFF
    return bytes(frame)


def nan_state() -> bytes:
    message = scenario("nan")
    message.tracks[0].states[20].center_x = float("nan")
    return bytes(message.SerializeToString())


@pytest.mark.parametrize(
    ("content", "kept", "bad_record", "said"),
    [
        pytest.param(
            lambda: record_frame(scenario("a").SerializeToString()) + record_frame(scenario("b").SerializeToString())[:-9],
            ("a",), 1, "truncated|ends", id="truncated record",
        ),
        pytest.param(
            lambda: bad_crc(scenario("a").SerializeToString()) + record_frame(scenario("b").SerializeToString()),
            ("b",), 0, "CRC", id="wrong CRC",
        ),
        pytest.param(lambda: b"this is no record file at all, but a text", (), 0, "TFRecord", id="not a TFRecord"),
        pytest.param(
            lambda: record_frame(b"\xff\xfe no message") + record_frame(scenario("b").SerializeToString()),
            ("b",), 0, "Scenario", id="garbage in a sound record",
        ),
        pytest.param(
            lambda: record_frame(nan_state()) + record_frame(scenario("b").SerializeToString()),
            ("b",), 0, "finite|NaN|nan", id="NaN in a state",
        ),
        pytest.param(
            lambda: record_frame(scenario("b").SerializeToString()) * 2, ("b",), 1, "already", id="the same scenario twice"
        ),
    ],
)  # fmt: skip
def test_bad_records_are_listed_and_their_neighbours_kept(
    tmp_path: Path, content: Any, kept: tuple[str, ...], bad_record: int, said: str
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_shard(raw, "training", 1, 2, [scenario("good")])
    bad_file = raw / "scenario" / "training" / "training.tfrecord-00000-of-00002"
    bad_file.write_bytes(content())
    for _ in range(2):  # a second run does not forget
        assert preprocess(raw, out) == 1
        assert SceneSource(out, "train").scenario_ids() == (*kept, "good")
        (entry,) = quarantine(out)
        assert entry["file"] == str(bad_file)
        assert entry["kind"] == "record"
        assert entry["record"] == bad_record
        assert any(word in entry["error"] for word in said.split("|")), entry["error"]
    write_shard(raw, "training", 0, 2, [scenario("a"), scenario("b")])
    assert preprocess(raw, out) == 0
    assert quarantine(out) == []
    assert SceneSource(out, "train").scenario_ids() == ("a", "b", "good")


def test_the_same_scenario_in_two_shards_is_reported(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_shard(raw, "training", 0, 2, [scenario("a")])
    write_shard(raw, "training", 1, 2, [scenario("a")])
    assert preprocess(raw, out) == 1
    (entry,) = quarantine(out)
    assert (entry["kind"], entry["scenario_id"]) == ("duplicate", "a")


def test_odd_scenes_are_kept_and_counted(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    no_map, no_targets, gone = scenario("m"), scenario("t", targets=()), scenario("g")
    no_map.ClearField("map_features")
    gone.tracks[1].states[10].valid = False
    write_shard(raw, "training", 0, 1, [no_map, no_targets, gone])
    assert preprocess(raw, out) == 0
    scenes = list(SceneSource(out, "train"))
    assert len(scenes[0].map_points_m) == 0
    assert scenes[2].predictable().tolist() == [0, 2]
    train = json.loads((out / "report.json").read_text())["results"]["splits"]["train"]
    assert (train["scenes"], train["scenes_without_targets"], train["targets_invalid_now"]) == (3, 1, 1)


def test_records_of_another_length_than_their_splits_are_bad_records(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_shard(raw, "training", 0, 1, [scenario("a"), scenario("b", num_steps=50), scenario("c", num_steps=199)])
    write_shard(raw, "validation", 0, 1, [scenario("d"), scenario("e", num_steps=11)])
    write_shard(raw, "testing", 0, 1, [scenario("f", num_steps=11), scenario("g"), scenario("h", num_steps=12)])
    assert preprocess(raw, out) == 1
    kept = {split: SceneSource(out, split).scenario_ids() for split in ("train", "validation", "test")}
    assert kept == {"train": ("a",), "validation": ("d",), "test": ("f", "g")}
    assert {entry["scenario_id"]: entry["kind"] for entry in quarantine(out)} == dict.fromkeys("bceh", "record")
    assert any("split train must have 91 steps, has 50" in entry["error"] for entry in quarantine(out))


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
