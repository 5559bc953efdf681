"""Bad and odd records in the pipeline: each is listed with its place, and its neighbours are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from preprocessing.shards import SceneSource
from preprocessing.womd.tfrecord import record_frame
from tests.preprocessing.pipeline_runs import preprocess, quarantine
from tests.preprocessing.record_files import scenario, write_shard


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
