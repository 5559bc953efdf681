"""`limtr verify shards`: only a whole dataset passes, and what is wrong is named."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from preprocessing.shard_metadata import read_sidecars, shard_name, sidecar_path, write_dataset_metadata, write_sidecar
from preprocessing.shard_statistics import ShardStatistics
from preprocessing.verify_shards import VerifyShardsConfig, run
from tests.builders import tiny_scene
from tests.preprocessing.pipeline_runs import preprocess
from tests.preprocessing.record_files import scenario, with_lidar_apart, write_lidar, write_shard


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    raw, out = tmp_path / "raw", tmp_path / "out"
    motion, lidar = with_lidar_apart()
    write_shard(raw, "training", 0, 2, [motion, scenario("a0")])
    write_shard(raw, "training", 1, 2, [scenario("b0"), scenario("b1")])
    write_shard(raw, "validation", 0, 1, [scenario("c0")])
    write_lidar(raw, "training", lidar)
    assert preprocess(raw, out) == 0
    return out


def verify(data: Path) -> tuple[int, list[str]]:
    status = run(VerifyShardsConfig(data=data))
    return status, json.loads((data / "verify" / "report.json").read_text())["results"]["problems"]


def test_a_whole_dataset_passes_with_its_statistics_and_a_plot(dataset: Path) -> None:
    assert verify(dataset) == (0, [])
    statistics = json.loads((dataset / "verify" / "report.json").read_text())["results"]["statistics"]
    assert (statistics["train"]["scenes"], statistics["train"]["scenes_with_lidar"]) == (4, 1)
    assert statistics["validation"]["agents"] == {"smallest": 4, "median": 4, "mean": 4, "largest": 4}
    assert statistics["validation"]["targets"] == {"VEHICLE": 1, "PEDESTRIAN": 1, "CYCLIST": 1}
    assert (dataset / "verify" / "shards.png").read_bytes().startswith(b"\x89PNG")
    assert preprocess(dataset.parent / "raw", dataset) == 0  # the report does not disturb a later run
    assert verify(dataset) == (0, [])


def test_a_truncated_shard_is_named(dataset: Path) -> None:
    path = dataset / shard_name("train", 1)
    os.truncate(path, path.stat().st_size // 2)
    status, problems = verify(dataset)
    assert status == 1
    assert any(f"{path}: has" in problem and "bytes, its sidecar says" in problem for problem in problems)
    assert all(str(path) in problem for problem in problems)


def test_a_changed_byte_is_found(dataset: Path) -> None:
    path = dataset / shard_name("train", 0)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # in what fills up the last block: every scene can still be read
    path.write_bytes(data)
    status, problems = verify(dataset)
    assert (status, len(problems)) == (1, 1)
    assert f"{path}: wrong checksum" in problems[0]


def test_a_missing_shard_is_named(dataset: Path) -> None:
    (dataset / shard_name("train", 1)).unlink()
    status, problems = verify(dataset)
    assert status == 1
    assert [problem.split(":")[0] for problem in problems] == [str(dataset / shard_name("train", 1))]
    assert problems[0].endswith("delete the sidecar and run `limtr preprocess` again")
    sidecar_path(dataset, "train", 1).unlink()
    status, problems = verify(dataset)
    assert status == 1
    assert ["the manifest says 2 scenes, it has no sidecar" in problem for problem in problems] == [True]


def test_a_wrong_count_is_named_wherever_it_stands(dataset: Path) -> None:
    (sidecar,) = read_sidecars(dataset, "validation")
    write_sidecar(dataset, dataclasses.replace(sidecar, rows=2, scenes=sidecar.scenes * 2))
    status, problems = verify(dataset)
    assert status == 1
    assert any("the manifest says 1 scenes, its sidecar 2" in problem for problem in problems)
    assert any("holds 1 scenes, its sidecar says 2" in problem for problem in problems)
    write_sidecar(dataset, sidecar)
    write_dataset_metadata(dataset, read_sidecars(dataset, "train"))
    status, problems = verify(dataset)
    assert status == 1
    assert ["the manifest says 0 scenes, its sidecar 1" in problem for problem in problems] == [True]


def test_an_index_that_does_not_fit_the_scenes_is_found(dataset: Path) -> None:
    (sidecar,) = read_sidecars(dataset, "validation")
    wrong = dataclasses.replace(sidecar.scenes[0], target_types=(2, 2, 2))
    write_sidecar(dataset, dataclasses.replace(sidecar, scenes=(wrong,)))
    status, problems = verify(dataset)
    assert status == 1
    assert ["scene 0 (c0): is not as its sidecar lists it" in problem for problem in problems] == [True]


def test_broken_and_unfinished_shards_are_named(dataset: Path) -> None:
    sidecar_path(dataset, "train", 0).write_text("{}")
    (dataset / shard_name("test", 3)).write_bytes(b"half of a shard")
    status, problems = verify(dataset)
    assert status == 1
    assert any("not a sidecar" in problem for problem in problems)
    unfinished = {problem.split(":")[0] for problem in problems if "counts as unfinished" in problem}
    assert unfinished == {str(dataset / shard_name("train", 0)), str(dataset / shard_name("test", 3))}


def test_a_folder_without_a_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no dataset there"):
        run(VerifyShardsConfig(data=tmp_path))


def test_points_are_counted_by_class_and_distance() -> None:
    scene = tiny_scene(3, num_tracks=6, num_targets=3)
    assert scene.lidar is not None
    statistics = ShardStatistics()
    statistics.add(scene)
    expected = np.zeros(statistics.frames.shape, dtype=np.int64)
    points = np.zeros_like(expected)
    edges = (10.0, 20.0, 30.0, 50.0, 75.0)
    for target, row in enumerate(scene.tracks_to_predict.tolist()):
        for step in range(11):
            if scene.track_valid[row, step] and scene.track_valid[scene.sdc_track, step]:
                x, y = scene.track_states[row, step, :2] - scene.track_states[scene.sdc_track, step, :2]
                place = sum(float(np.hypot(x, y)) >= edge for edge in edges)
                expected[scene.track_type[row] - 1, place] += 1
                points[scene.track_type[row] - 1, place] += scene.lidar.count_in_box[target, step]
    assert expected.sum() > 11
    np.testing.assert_array_equal(statistics.frames, expected)
    np.testing.assert_array_equal(statistics.points_in_box, points)
