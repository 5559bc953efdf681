"""limtr synthesize: the official layout, equal bytes whatever the workers, going on after a stop, refusing to mix."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limtr.cli import main
from preprocessing.synthetic import output_folder, scene_job, writer
from preprocessing.synthetic.output_folder import OutputFolder, ScenePlace, plan_shards
from preprocessing.synthetic.scene_job import SceneJob, scenario_id
from preprocessing.synthetic.synthesis_report import TargetStats, overlapping_vehicle_frames
from preprocessing.synthetic.targets import TRAJECTORY_CLASSES
from preprocessing.synthetic.writer import SynthesizeConfig, run
from preprocessing.womd import schema
from preprocessing.womd.lidar import frame_points, merge_lidar
from preprocessing.womd.tfrecord import iter_records
from tests.preprocessing.synthetic.worlds import small_world


def small(out: Path, **options: Any) -> SynthesizeConfig:
    """The fewest beams that still make five range images."""
    defaults = {"scenes": 3, "top_columns": 64, "side_shape": (8, 16), "workers": 1}
    return SynthesizeConfig(out=out, **{**defaults, **options})


@pytest.fixture
def quick_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand-made worlds instead of simulated ones, where only the files matter (one process only)."""
    monkeypatch.setattr(scene_job, "simulate", lambda seed, index, config: small_world(config.num_steps, seed=seed + index))


def files(root: Path) -> dict[str, bytes]:
    """Everything that readers of the dataset see."""
    paths = [path for path in root.rglob("*") if path.is_file() and ".synthesize" not in path.parts]
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(paths) if path.name != "report.json"}


def scenarios(path: Path) -> list[Any]:
    return [schema.Scenario.FromString(data) for _, data in iter_records(path)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthesize") / "raw"
    assert run(small(out, test_scenes=1, seed=5)) == 0
    return out


def test_layout_is_waymos(dataset: Path) -> None:
    ids = [scenario_id(5, index) for index in range(4)]
    assert set(files(dataset)) == {
        "scenario/training/training.tfrecord-00000-of-00001",
        "scenario/validation/validation.tfrecord-00000-of-00001",
        "scenario/testing/testing.tfrecord-00000-of-00001",
        *(f"lidar/training/{name}.tfrecord" for name in ids[:2]),
        f"lidar/validation/{ids[2]}.tfrecord",
        f"lidar/testing/{ids[3]}.tfrecord",
    }
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in ids)
    assert not list(dataset.rglob("*.motion"))


def test_records_are_what_womd_has(dataset: Path) -> None:
    for path in sorted(dataset.glob("scenario/*/*")):
        for scenario in scenarios(path):
            num_steps = 11 if path.parent.name == "testing" else 91
            assert len(scenario.timestamps_seconds) == len(scenario.dynamic_map_states) == num_steps
            assert scenario.current_time_index == 10
            assert not scenario.compressed_frame_laser_data
            assert 1 <= len(scenario.tracks_to_predict) <= 8
            for required in scenario.tracks_to_predict:
                assert scenario.tracks[required.track_index].states[10].valid
            assert len({track.id for track in scenario.tracks}) == len(scenario.tracks)
            assert scenario.sdc_track_index == len(scenario.tracks) - 1
            assert all(state.valid for state in scenario.tracks[scenario.sdc_track_index].states)
            for track in scenario.tracks:
                assert len(track.states) == num_steps
                assert any(state.valid for state in track.states)
                for state in track.states:
                    fields = {field.name for field, _ in state.ListFields()}
                    assert fields == (set(state.DESCRIPTOR.fields_by_name) if state.valid else {"center_z", "valid"})
            lidar = scenarios(dataset / "lidar" / path.parent.name / f"{scenario.scenario_id}.tfrecord")
            assert len(lidar) == 1
            assert {field.name for field, _ in lidar[0].ListFields()} == {"scenario_id", "compressed_frame_laser_data"}
            assert len(lidar[0].compressed_frame_laser_data) == 11
            merge_lidar(scenario, lidar[0])
            assert sum(len(first[0]) for first, _ in frame_points(scenario.compressed_frame_laser_data[10])) > 100


def test_frame_pose_is_where_the_ego_track_is(dataset: Path) -> None:
    scenario = scenarios(dataset / "scenario/training/training.tfrecord-00000-of-00001")[0]
    lidar = scenarios(dataset / "lidar/training" / f"{scenario.scenario_id}.tfrecord")[0]
    ego = scenario.tracks[scenario.sdc_track_index]
    for state, frame in zip(ego.states, lidar.compressed_frame_laser_data, strict=False):
        pose = np.array(frame.pose.transform).reshape(4, 4)
        center = np.linalg.inv(pose) @ [state.center_x, state.center_y, state.center_z, 1.0]
        assert center[:3] == pytest.approx([0.3 * state.length, 0.0, state.height / 2], abs=1e-3)
        assert np.arctan2(pose[1, 0], pose[0, 0]) == pytest.approx(state.heading, abs=1e-5)


def test_report_tells_what_was_made(dataset: Path) -> None:
    report = json.loads((dataset / "report.json").read_text())
    assert report["verb"] == "synthesize"
    assert report["seed"] == 5
    results = report["results"]
    assert results["scenes"] == {"training": 2, "validation": 1, "testing": 1}
    assert sum(results["layouts"].values()) == 4
    assert set(TRAJECTORY_CLASSES) <= set(results["trajectory_classes"])
    assert sum(row["all"] for row in results["trajectory_classes"].values()) == sum(results["targets"].values())
    assert set(results["cpu_s_per_scene"]) == {"simulate", "visibility", "cast", "encode", "write", "total"}
    assert 0 <= results["overlapping_vehicle_frame_share"] <= 1


def test_number_of_workers_changes_no_byte(dataset: Path, tmp_path: Path) -> None:
    assert run(small(tmp_path / "raw", test_scenes=1, seed=5, workers=2)) == 0
    assert files(tmp_path / "raw") == files(dataset)


@pytest.mark.usefixtures("quick_worlds")
def test_second_run_makes_only_what_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "raw"
    config = small(out, scenes=2)
    run(config)
    before = files(out)
    lost = next(out.glob("lidar/training/*"))
    lost.unlink()
    made: list[str] = []
    original = OutputFolder.write_scene

    def counted(self: OutputFolder, place: ScenePlace, **records: bytes) -> None:
        made.append(place.scenario_id)
        original(self, place, **records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OutputFolder, "write_scene", counted)
        assert run(config) == 0
        assert made == [lost.stem]
        assert files(out) == before
        next(out.glob("scenario/validation/*")).unlink()
        assert run(config) == 0
    assert made == [lost.stem, scenario_id(0, 1)]
    assert files(out) == before


@pytest.mark.usefixtures("quick_worlds")
def test_full_disk_loses_nothing_that_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(tmp_path / "raw", scenes=2)
    original = output_folder.write_records
    calls = 0

    def fails_once(path: Path, records: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, "No space left on device", str(path))
        return original(path, records)

    monkeypatch.setattr(output_folder, "write_records", fails_once)
    with pytest.raises(OSError, match="No space left"):
        run(config)
    assert not (tmp_path / "raw" / "scenario").exists()
    assert run(config) == 0
    report = json.loads((tmp_path / "raw" / "report.json").read_text())
    assert report["results"]["scenes_made_in_this_run"] == 1


def test_scene_depends_on_seed_and_index_alone(dataset: Path, tmp_path: Path) -> None:
    run(small(tmp_path / "raw", scenes=2, seed=5))
    first = f"lidar/training/{scenario_id(5, 0)}.tfrecord"
    assert files(tmp_path / "raw")[first] == files(dataset)[first]


@pytest.mark.parametrize("change", [{"seed": 6}, {"cue_lead": 0.5}, {"top_columns": 65}, {"scenes": 4}])
def test_other_configuration_is_refused_with_both_values(dataset: Path, change: dict[str, Any]) -> None:
    name, value = next(iter(change.items()))
    before = files(dataset)
    with pytest.raises(ValueError, match=rf"{name}: .* there, {value} asked for.*choose another --out"):
        run(small(dataset, **{"test_scenes": 1, "seed": 5, **change}))
    assert files(dataset) == before


def test_other_peoples_records_are_not_touched(tmp_path: Path) -> None:
    real = tmp_path / "scenario" / "training" / "training.tfrecord-00000-of-01000"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"precious")
    with pytest.raises(ValueError, match="did not write it"):
        run(small(tmp_path))
    assert real.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == ["scenario"]


def test_two_runs_in_one_folder_are_kept_apart(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "raw").alone(), pytest.raises(ValueError, match="another limtr synthesize"):
        run(small(tmp_path / "raw", scenes=2))
    assert not (tmp_path / "raw" / "lidar").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"scenes": 1}, "at least 2"), ({"seed": -1}, "--seed"), ({"scenes_per_shard": 0}, "--scenes-per-shard")],
)
def test_impossible_options_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small(tmp_path, **options)


def test_no_columns_are_not_the_default_number_of_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="top_columns"):
        run(small(tmp_path / "raw", top_columns=0))
    assert not (tmp_path / "raw").exists()


@pytest.mark.usefixtures("quick_worlds")
def test_command_line_writes_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "raw"
    words = [
        "synthesize",
        "--scenes",
        "2",
        "--out",
        str(out),
        "--top-columns",
        "32",
        "--side-shape",
        "4",
        "8",
        "--workers",
        "1",
    ]
    assert main(words) == 0
    assert "CPU seconds per scene" in capsys.readouterr().out
    assert main([*words, "--cue-lead", "0"]) == 1
    assert "cue_lead" in capsys.readouterr().err


def test_splits_and_shards_are_even() -> None:
    assert SynthesizeConfig(out=Path("x"), scenes=200).split_sizes == {"training": 160, "validation": 40, "testing": 0}
    assert SynthesizeConfig(out=Path("x"), scenes=2).split_sizes == {"training": 1, "validation": 1, "testing": 0}
    shards = plan_shards("training", [f"{number:016x}" for number in range(45)], 20)
    assert [shard.name for shard in shards] == [f"training.tfrecord-{number:05d}-of-00003" for number in range(3)]
    assert [len(shard.scenes) for shard in shards] == [15, 15, 15]
    assert [place.scenario_id for shard in shards for place in shard.scenes] == [f"{number:016x}" for number in range(45)]
    assert plan_shards("testing", [], 20) == []


def test_size_womd_has_waymos_beams_unless_told_otherwise() -> None:
    config = SynthesizeConfig(out=Path("x"), size="womd")
    assert config.scene_config.sensor.top_columns == 2650
    assert replace(config, top_columns=1325).scene_config.sensor.top_columns == 1325
    assert config.scene_config.simulation.size == "womd"


def test_stopped_workers_are_told_apart_from_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class DyingPool(ThreadPoolExecutor):
        def __init__(self, workers: int, **_: Any) -> None:
            super().__init__(workers)

        def submit(self, *_: Any, **__: Any) -> Any:
            raise BrokenProcessPool("gone")

    monkeypatch.setattr(writer.concurrent.futures, "ProcessPoolExecutor", DyingPool)
    with pytest.raises(OSError, match="fewer --workers"):
        run(small(tmp_path / "raw", workers=2, scenes=2))


def test_stopped_run_begins_no_further_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def interrupted(job: SceneJob, folder: OutputFolder) -> None:
        made.append(job.index)
        if len(made) == 2:
            raise KeyboardInterrupt
        time.sleep(0.01)  # as scenes do, longer than it takes the parent to hear of it

    class Pool(ThreadPoolExecutor):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__(1)

    monkeypatch.setattr(writer.concurrent.futures, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(writer, "make_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(small(tmp_path / "raw", workers=2, scenes=500))
    assert len(made) < 100
    assert not (tmp_path / "raw" / "report.json").exists()


def test_report_counts_vehicle_frames_that_overlap_another_vehicle() -> None:
    world = small_world(20)
    frames, overlapping = overlapping_vehicle_frames(world)
    assert (frames, overlapping) == (4 * 20, 0)
    position = world.position_m.copy()
    position[2, 5:8] = position[1, 5:8]
    position[4] = position[0]  # a pedestrian's overlaps are another matter
    assert overlapping_vehicle_frames(replace(world, position_m=position)) == (4 * 20, 6)


@pytest.mark.parametrize(("step", "within"), [(-1, False), (10, False), (11, True), (30, True), (31, False)])
def test_manoeuvre_counts_within_the_lead_after_the_current_step(step: int, within: bool) -> None:
    target = TargetStats(object_type=2, trajectory_class="straight", maneuver_step=step)
    assert target.begins_within(2.0) is within
