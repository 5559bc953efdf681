from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limtr.cli import main
from preprocessing import verify_features
from preprocessing.polyline_sets import PolylineSet, boundary_ties, match_polylines
from preprocessing.shards import decode_scene
from preprocessing.verify_features import VerifyFeaturesConfig, run
from preprocessing.womd.tfrecord import write_records
from tests.preprocessing.record_files import scenario
from tests.preprocessing.reference_features import reference_features

SAMPLE = os.environ.get("LIMTR_WOMD_SAMPLE")


def gappy_scenario(scenario_id: str = "features", *, num_lanes: int = 12) -> Any:
    """Turning headings, gaps, a late track, an early one, and lanes all around, far from the world's zero."""
    message = scenario(scenario_id, types=(1, 2, 3, 4, 1, 1), targets=(2, 0, 1))
    rng = np.random.default_rng(5)
    for track in message.tracks:
        for step in range(91):
            state = track.states[step]
            state.heading += 0.01 * step
            state.velocity_x += 0.02 * step
            if step != 10 and rng.random() < 0.2:
                state.valid = False
    for step in range(20):
        message.tracks[3].states[step].valid = False
    for step in range(4, 91):
        message.tracks[4].states[step].valid = False
    for lane in range(num_lanes):
        polyline = message.map_features.add(id=100 + lane)
        polyline.lane.type = lane % 4
        start, angle = rng.uniform(-150, 150, 2) + np.array([5000.0, 0.0]), rng.uniform(-3, 3)
        for point in range(int(rng.integers(1, 30 if num_lanes < 100 else 4))):
            polyline.lane.polyline.add(
                x=start[0] + point * 0.5 * np.cos(angle), y=start[1] + point * 0.5 * np.sin(angle), z=1.0
            )
    return message


def write(folder: Path, message: Any, golden: dict[str, np.ndarray]) -> tuple[Path, Path]:
    record, arrays = folder / "motion.tfrecord", folder / "golden.npz"
    write_records(record, [scenario("other").SerializeToString(), message.SerializeToString()])
    np.savez(arrays, **golden)
    return record, arrays


@pytest.mark.parametrize("num_lanes", [12, 900], ids=["all polylines", "nearest 768 polylines"])
def test_a_scenario_agrees_with_the_restated_reference(
    tmp_path: Path, num_lanes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    message = gappy_scenario(num_lanes=num_lanes)
    golden = reference_features(message)
    assert golden["map_polylines"].shape[1] == 768 or num_lanes == 12
    record, arrays = write(tmp_path, message, golden)
    assert main(["verify", "features", "--scenario", str(record), str(arrays)]) == 0
    printed = capsys.readouterr().out
    assert "not compared" not in printed
    assert all(f"ok   {name} " in printed for name in golden)


def test_the_scene_goes_through_a_shard_record_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = gappy_scenario()
    record, arrays = write(tmp_path, message, reference_features(message))
    monkeypatch.setattr(verify_features, "decode_scene", lambda data: decode_scene(data).keep_targets(np.array([0, 1])))
    assert run(VerifyFeaturesConfig(golden=arrays, scenario=record)) == 1


def test_far_from_the_worlds_zero_float32_of_the_reference_is_no_fault(tmp_path: Path) -> None:
    message = gappy_scenario()
    for track in message.tracks:
        for state in track.states:
            state.center_x += 50_000.3
    for feature in message.map_features:
        for point in feature.lane.polyline:
            point.x += 50_000.3
    golden = reference_features(message)
    record, arrays = write(tmp_path, message, golden)
    assert run(VerifyFeaturesConfig(golden=arrays, scenario=record)) == 0
    golden["obj_trajs"][0, 0, 10, 0] += 0.01
    record, arrays = write(tmp_path, message, golden)
    assert run(VerifyFeaturesConfig(golden=arrays, scenario=record)) == 1


@pytest.mark.parametrize("flag", ["reference_pedestrian_channel", "reference_gap_acceleration"])
def test_each_quirk_can_be_switched_off_and_is_then_seen(tmp_path: Path, flag: str) -> None:
    message = gappy_scenario()
    record, arrays = write(tmp_path, message, reference_features(message))
    assert run(VerifyFeaturesConfig(golden=arrays, scenario=record, **{flag: False})) == 1


def _move(name: str, index: tuple[int, ...], by: float) -> Callable[[dict[str, np.ndarray]], None]:
    def change(golden: dict[str, np.ndarray]) -> None:
        golden[name] = golden[name].copy()
        golden[name][index] += by

    return change


def _flip(name: str, index: tuple[int, ...]) -> Callable[[dict[str, np.ndarray]], None]:
    def change(golden: dict[str, np.ndarray]) -> None:
        golden[name] = golden[name].copy()
        golden[name][index] = not golden[name][index]

    return change


def _without_last_polyline(golden: dict[str, np.ndarray]) -> None:
    for name in ("map_polylines", "map_polylines_mask", "map_polylines_center"):
        golden[name] = golden[name][:, :-1]


def _renamed_type(golden: dict[str, np.ndarray]) -> None:
    golden["obj_types"] = golden["obj_types"].copy()
    golden["obj_types"][0] = "TYPE_OTHER"


@pytest.mark.parametrize(
    ("change", "quantity"),
    [
        (_move("obj_trajs", (0, 0, 10, 0), 3e-3), "obj_trajs position"),
        (_move("obj_trajs", (0, 0, 10, 24), 3e-3), "obj_trajs heading"),
        (_move("obj_trajs", (0, 0, 10, 0), float("nan")), "obj_trajs position"),
        (_flip("obj_trajs_mask", (0, 0, 10)), "obj_trajs_mask"),
        (_move("obj_trajs_last_pos", (1, 2, 1), 3e-3), "obj_trajs_last_pos"),
        (_move("obj_trajs_future_state", (1, 0, 79, 3), 3e-3), "obj_trajs_future_state"),
        (_move("center_gt_final_valid_idx", (0,), 1), "center_gt_final_valid_idx"),
        (_move("world_trajs", (0, 10, 1), 3e-3), "world_trajs"),
        (_move("track_index_to_predict", (0,), 1), "track_index_to_predict"),
        (_move("all_polylines", (3, 6), 1), "all_polylines"),
        (_move("map_polylines", (0, 0, 0, 6), 1), "map_polylines"),
        (_move("map_polylines", (0, 0, 0, 8), float("nan")), "map_polylines"),
        (_move("map_polylines_center", (0, 0, 2), 1), "map_polylines_mask"),
        (_without_last_polyline, "map_polylines_mask"),
        (_renamed_type, "obj_types"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_difference_is_found(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray]], None], quantity: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = gappy_scenario()
    golden = reference_features(message)
    change(golden)
    record, arrays = write(tmp_path, message, golden)
    assert run(VerifyFeaturesConfig(golden=arrays, scenario=record)) == 1
    assert f"FAIL {quantity} " in capsys.readouterr().out


def test_the_order_of_polylines_and_padding_rows_do_not_matter(tmp_path: Path) -> None:
    message = gappy_scenario()
    golden = reference_features(message)
    for name in ("map_polylines", "map_polylines_mask", "map_polylines_center"):
        turned = golden[name][:, ::-1]
        golden[name] = np.concatenate((np.zeros_like(turned[:, :2]), turned), axis=1)
    record, arrays = write(tmp_path, message, golden)
    assert run(VerifyFeaturesConfig(golden=arrays, scenario=record)) == 0


def test_driveways_that_the_golden_file_cannot_know_are_left_out_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = gappy_scenario()
    golden = reference_features(message)
    polygon = message.map_features.add(id=999).driveway.polygon
    for x, y in ((0.0, 0.0), (4.0, 0.0), (4.0, 9.0), (0.0, 9.0)):
        polygon.add(x=5000.0 + x, y=y, z=0.0)
    record, arrays = write(tmp_path, message, golden)
    assert run(VerifyFeaturesConfig(golden=arrays, scenario=record)) == 0
    assert "without the scenario's driveways" in capsys.readouterr().out


def test_wrong_files_are_named(tmp_path: Path) -> None:
    message = gappy_scenario()
    golden = reference_features(message)
    record, arrays = write(tmp_path, message, {**golden, "scenario_id": np.array(["absent"])})
    with pytest.raises(ValueError, match=r"motion\.tfrecord.*'absent'"):
        run(VerifyFeaturesConfig(golden=arrays, scenario=record))
    np.savez(arrays, other=np.zeros(3))
    with pytest.raises(ValueError, match=r"golden\.npz.*scenario_id"):
        run(VerifyFeaturesConfig(golden=arrays, scenario=record))
    arrays.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"golden\.npz.*npz"):
        run(VerifyFeaturesConfig(golden=arrays, scenario=record))


def row_of_points(distances: list[float]) -> PolylineSet:
    """One-point polylines on the x axis."""
    points = np.zeros((len(distances), 20, 9))
    points[:, 0, 0] = distances
    mask = np.zeros((len(distances), 20), np.bool_)
    mask[:, 0] = True
    return PolylineSet.of(points, mask, points[:, 0, :3])


@pytest.mark.parametrize(
    ("expected", "scene", "outcome"),
    [
        ([5.0, 1.0], [1.0, 2.0, 5.0], (0, 0)),
        ([1.0, -5.004], [1.0, 2.0, 5.0, -5.004], (2, 0)),
        ([1.0, -5.2], [1.0, 2.0, 5.0, -5.2], (0, 2)),
        ([2.0, 5.0], [1.0, 2.0, 5.0], (0, 2)),
        ([1.0, -5.004], [1.0, 2.0, 5.0], (0, 2)),
        ([1.0], [1.0, 2.0, 5.0], (0, 1)),
    ],
    ids=["same set", "tie", "not as far", "in the middle", "not in the scene", "fewer"],
)
def test_only_ties_at_the_boundary_are_excused(expected: list[float], scene: list[float], outcome: tuple[int, int]) -> None:
    chosen = row_of_points([1.0, 5.0])
    assert boundary_ties(chosen, row_of_points(expected), row_of_points(scene), (0.0, 0.0), 0.01) == outcome


def test_twins_at_one_place_find_each_their_own() -> None:
    one = row_of_points([3.0, 3.0])
    one.points[0, 0, 6] = 7.0
    other = PolylineSet(points=one.points[::-1], mask=one.mask[::-1], center=one.center[::-1])
    matching = match_polylines(one, other)
    assert matching.point_difference == 0.0
    assert len(matching.only_first) == len(matching.only_second) == 0


@pytest.mark.skipif(SAMPLE is None, reason="LIMTR_WOMD_SAMPLE names no folder with the real scenario")
def test_the_real_scenario_agrees_with_mtrs_own_pipeline() -> None:
    assert SAMPLE is not None
    (golden,) = Path(SAMPLE).glob("features_*.npz")
    assert run(VerifyFeaturesConfig(golden=golden, scenario=Path(SAMPLE) / "motion_data_one_scenario.tfrecord")) == 0
