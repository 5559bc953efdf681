"""LiDAR on its way through the pipeline: merged, cropped as asked, counted where it is missing, listed where it is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocessing.shards import SceneSource
from preprocessing.womd import schema
from preprocessing.womd.crops import CropConfig, crop_lidar
from preprocessing.womd.tfrecord import write_records
from tests.preprocessing.pipeline_runs import preprocess, quarantine, shard_files
from tests.preprocessing.record_files import golden_record, scenario, with_lidar_apart, write_lidar, write_shard
from tests.preprocessing.womd.laser_records import LaserWorld, laser_scenario


def lidar_raw(root: Path) -> tuple[Path, Path]:
    """One scenario with its LiDAR file, and one without."""
    motion, lidar = with_lidar_apart()
    write_shard(root, "training", 0, 1, [motion, scenario("no-lidar")])
    return root, write_lidar(root, "training", lidar)


def test_lidar_files_are_merged_and_a_missing_one_is_counted(tmp_path: Path) -> None:
    raw, _ = lidar_raw(tmp_path / "raw")
    assert preprocess(raw, tmp_path / "out", points=64) == 0
    with_points, without = SceneSource(tmp_path / "out", "train")
    assert with_points.lidar is not None
    assert 0 < with_points.lidar.count.max() <= 64
    assert with_points.lidar.count_in_box.max() > 64
    assert without.lidar is None
    train = json.loads((tmp_path / "out" / "report.json").read_text())["results"]["splits"]["train"]
    assert (train["scenes_with_lidar"], train["scenes_without_lidar"]) == (1, 1)
    assert train["lidar_points"] == with_points.lidar.count.sum()

    write_shard(tmp_path / "inside", "training", 0, 1, [golden_record()])
    assert preprocess(tmp_path / "inside", tmp_path / "out2", points=64) == 0
    same = SceneSource(tmp_path / "out2", "train")[0].lidar
    assert same is not None
    np.testing.assert_array_equal(same.points_m, with_points.lidar.points_m)


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"points": 16}, CropConfig(max_points=16)),
        ({"points": 16, "seed": 5}, CropConfig(max_points=16, seed=5)),
        ({"margin_m": 0.6}, CropConfig(margin_m=0.6)),
    ],
    ids=["points", "seed", "margin"],
)
def test_crops_are_made_as_the_options_say(tmp_path: Path, options: dict[str, Any], config: CropConfig) -> None:
    write_shard(tmp_path / "raw", "training", 0, 1, [golden_record()])
    assert preprocess(tmp_path / "raw", tmp_path / "out", **options) == 0
    stored = SceneSource(tmp_path / "out", "train")[0].lidar
    expected = crop_lidar(schema.Scenario.FromString(golden_record()), config)
    assert stored is not None
    np.testing.assert_array_equal(stored.count_in_box, expected.count_in_box)
    np.testing.assert_allclose(stored.points_m, expected.points_m, atol=6e-4)


def test_the_report_names_scenes_whose_lidar_and_boxes_are_apart_in_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shifted = []
    for seed, delay in ((4, -7), (5, 0), (6, 7), (7, 2)):
        message = laser_scenario(LaserWorld(seed=seed, num_tracks=5, lidar_delay_steps=delay))
        message.scenario_id = f"[/shift{delay}]"  # what looks like markup is a name like any other
        shifted.append(message)
    write_shard(tmp_path / "raw", "training", 0, 1, [*shifted, scenario("no-lidar")])
    assert preprocess(tmp_path / "raw", tmp_path / "out") == 0
    assert "[/shift-7] (-7)" in capsys.readouterr().out
    train = json.loads((tmp_path / "out" / "report.json").read_text())["results"]["splits"]["train"]
    assert train["misaligned"] == {"[/shift-7]": -7, "[/shift7]": 7, "[/shift2]": 2}
    assert train["misaligned_by_more_than_5"] == ["[/shift-7]", "[/shift7]"]
    shares = [scene.lidar.empty_share for scene in SceneSource(tmp_path / "out", "train") if scene.lidar]
    assert train["empty_crop_share"] == pytest.approx(np.mean(shares))
    assert 0 < train["empty_crop_share"] < 1


def test_a_lidar_folder_without_the_splits_is_refused_and_a_split_without_lidar_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, lidar_file = lidar_raw(tmp_path / "raw")
    with pytest.raises(FileNotFoundError, match="no folder training or validation or testing in it"):
        preprocess(raw, tmp_path / "out", lidar=lidar_file.parent)
    write_shard(raw, "validation", 0, 1, [scenario("c0")])
    assert preprocess(raw, tmp_path / "out", points=64) == 0
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["results"]["this_run"]["notes"]
    assert notes == [f"no LiDAR for {raw / 'scenario' / 'validation'}: {raw / 'lidar' / 'validation'} has no files"]
    assert notes[0] in capsys.readouterr().out


def test_a_broken_lidar_file_costs_the_points_only(tmp_path: Path) -> None:
    raw, lidar_file = lidar_raw(tmp_path / "raw")
    whole = lidar_file.read_bytes()
    lidar_file.write_bytes(whole[: len(whole) // 2])
    made: list[dict[str, tuple[str, int]]] = []
    for _ in range(2):
        assert preprocess(raw, tmp_path / "out") == 1
        made.append(shard_files(tmp_path / "out"))
        (entry,) = quarantine(tmp_path / "out")
        assert entry["kind"] == "lidar"
        assert lidar_file.name in entry["error"]
        assert [scene.lidar for scene in SceneSource(tmp_path / "out", "train")] == [None, None]
    assert made[0] == made[1], "a file that is as broken as before is not read again"
    lidar_file.write_bytes(whole)
    assert preprocess(raw, tmp_path / "out") == 0
    assert SceneSource(tmp_path / "out", "train")[0].lidar is not None


def test_a_lidar_file_of_two_records_is_not_guessed_at(tmp_path: Path) -> None:
    raw, lidar_file = lidar_raw(tmp_path / "raw")
    _, lidar = with_lidar_apart()
    write_records(lidar_file, [lidar.SerializeToString()] * 2)
    assert preprocess(raw, tmp_path / "out") == 1
    (entry,) = quarantine(tmp_path / "out")
    assert (entry["kind"], "one record, has 2" in entry["error"]) == ("lidar", True)


def test_lidar_of_another_scenario_is_refused(tmp_path: Path) -> None:
    raw, lidar_file = lidar_raw(tmp_path / "raw")
    _, lidar = with_lidar_apart()
    lidar.scenario_id = "another"
    write_records(lidar_file, [lidar.SerializeToString()])
    assert preprocess(raw, tmp_path / "out") == 1
    assert "another" in quarantine(tmp_path / "out")[0]["error"]


def test_lidar_that_arrives_later_is_taken_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, lidar_file = lidar_raw(tmp_path / "raw")
    apart = tmp_path / "apart" / "training"
    apart.mkdir(parents=True)
    lidar_file = lidar_file.rename(apart / lidar_file.name)
    assert preprocess(raw, tmp_path / "out", points=64) == 0
    assert SceneSource(tmp_path / "out", "train")[0].lidar is None
    assert preprocess(raw, tmp_path / "out", points=64, lidar=apart.parent) == 0
    assert "has arrived" in capsys.readouterr().out
    assert SceneSource(tmp_path / "out", "train")[0].lidar is not None
    assert preprocess(raw, tmp_path / "out", points=64, lidar=apart.parent) == 0
    assert "1 motion shards, 1 already done" in capsys.readouterr().out


def test_a_scenario_id_that_would_leave_the_lidar_folder_is_a_bad_record(tmp_path: Path) -> None:
    raw, _ = lidar_raw(tmp_path / "raw")
    write_shard(raw, "training", 1, 2, [scenario("../../escape"), scenario("good")])
    assert preprocess(raw, tmp_path / "out") == 1
    assert [entry["scenario_id"] for entry in quarantine(tmp_path / "out")] == ["../../escape"]
    assert SceneSource(tmp_path / "out", "train").scenario_ids()[-1] == "good"


def test_shards_of_the_same_records_stay_the_same_files(tmp_path: Path) -> None:
    """The hash was taken when every field went through protobuf one by one."""
    motion, _ = with_lidar_apart()
    write_shard(tmp_path / "raw", "training", 0, 1, [motion, scenario("a0")])
    assert preprocess(tmp_path / "raw", tmp_path / "out") == 0
    ((sha256, _),) = shard_files(tmp_path / "out").values()
    assert sha256 == "f31ae9db4b4d09a11cfa55dec5a13a4d712e35fd3e8a8fc31a11f1ecf49f6d83"
