from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limtr.cli import main
from preprocessing import verify_crops
from preprocessing.verify_crops import VerifyCropsConfig, compare, run
from preprocessing.womd import schema
from preprocessing.womd.crops import CropConfig, crop_lidar
from preprocessing.womd.tfrecord import write_records
from tests.preprocessing.womd.laser_records import LaserWorld, laser_scenario

GOLDEN = Path(__file__).parents[1] / "golden" / "lidar"


def test_our_crops_are_the_golden_ones(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(GOLDEN / "crops_golden.tfrecord"), str(GOLDEN / "crops_golden.npz")]
    assert main(["verify", "crops", "--scenario", *files]) == 0
    assert "FAIL" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crops") / "record.tfrecord"
    write_records(path, [laser_scenario(LaserWorld(seed=3, num_frames=3)).SerializeToString()])
    return path


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """A golden file's content for the record, its agents in another order than the tracks to predict, without row 1."""
    scenario = laser_scenario(LaserWorld(seed=3, num_frames=3))
    crops = crop_lidar(scenario, CropConfig(max_points=10**6, seed=9))
    content = {}
    for agent, row in enumerate((2, 0)):
        content[f"agent{agent}_track_index"] = np.int64(row)
        for step in range(3):
            xyz, features = crops.frame(row, step)
            content[f"agent{agent}_frame{step}_xyz"], content[f"agent{agent}_frame{step}_feat"] = xyz, features
            content[f"agent{agent}_frame{step}_near_face"] = np.int64(0)
    assert content["agent1_frame1_xyz"].shape[0] > 30
    return {name: np.array(array) for name, array in content.items()}


def status(record: Path, arrays: dict[str, np.ndarray]) -> int:
    path = record.with_name("golden.npz")
    np.savez(path, **arrays)
    return run(VerifyCropsConfig(scenario=record, golden=path))


def test_points_are_compared_as_sets_in_any_order_of_agents(record: Path, arrays: dict[str, np.ndarray]) -> None:
    order = np.random.default_rng(0).permutation(len(arrays["agent1_frame1_xyz"]))
    for kind in ("xyz", "feat"):
        arrays[f"agent1_frame1_{kind}"] = arrays[f"agent1_frame1_{kind}"][order]
    assert status(record, arrays) == 0


@pytest.mark.parametrize(
    ("kind", "column", "shift"), [("xyz", 0, 0.02), ("xyz", 2, np.nan), ("feat", 1, 0.01), ("feat", 0, 0.05)]
)
def test_a_point_that_is_elsewhere_or_looks_different_fails(
    record: Path, arrays: dict[str, np.ndarray], kind: str, column: int, shift: float
) -> None:
    arrays[f"agent1_frame1_{kind}"][4, column] += shift
    assert status(record, arrays) == 1


def test_a_point_too_many_or_too_few_needs_a_near_face(record: Path, arrays: dict[str, np.ndarray]) -> None:
    for kind in ("xyz", "feat"):
        arrays[f"agent1_frame1_{kind}"] = arrays[f"agent1_frame1_{kind}"][1:]
    assert status(record, arrays) == 1
    arrays["agent1_frame1_near_face"] = np.int64(1)
    assert status(record, arrays) == 0


def test_a_capped_golden_crop_is_some_of_our_points(
    record: Path, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("xyz", "feat"):
        arrays[f"agent1_frame1_{kind}"] = arrays[f"agent1_frame1_{kind}"][5:25]
    assert status(record, arrays) == 1
    monkeypatch.setattr(verify_crops, "REFERENCE_CAP", 20)
    assert status(record, arrays) == 0
    arrays["agent1_frame1_xyz"][7, 2] += 0.02
    assert status(record, arrays) == 1


def test_another_track_fails(record: Path, arrays: dict[str, np.ndarray]) -> None:
    arrays["agent0_track_index"] = np.int64(1)
    assert status(record, arrays) == 1


def test_crops_of_another_margin_fail(record: Path, arrays: dict[str, np.ndarray]) -> None:
    path = record.with_name("golden.npz")
    np.savez(path, **arrays)
    found = list(compare(VerifyCropsConfig(scenario=record, golden=path, margin_m=0.5)))
    assert not all(item.agrees for item in found)


@pytest.mark.parametrize("name", ["agent1_track_index", "agent1_frame1_xyz", "agent0_frame0_feat", "agent1_frame1_near_face"])
def test_a_missing_array_is_named(record: Path, arrays: dict[str, np.ndarray], name: str) -> None:
    del arrays[name]
    with pytest.raises(ValueError, match=name):
        status(record, arrays)


def test_a_frame_that_is_left_out_must_be_empty(record: Path, arrays: dict[str, np.ndarray]) -> None:
    for kind in ("xyz", "feat", "near_face"):
        del arrays[f"agent1_frame1_{kind}"]
    with pytest.raises(ValueError, match="agent1_frame1_xyz"):
        status(record, arrays)


def test_what_does_not_fit_the_record_is_named(record: Path, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"tracks \[9\].*3 tracks"):
        status(record, {**arrays, "agent0_track_index": np.int64(9)})
    with pytest.raises(ValueError, match="frame 11, expected 0 to 10"):
        status(record, {**arrays, "agent0_frame11_xyz": np.zeros((0, 3))})
    with pytest.raises(ValueError, match=r"track_index.*one whole number"):
        status(record, {**arrays, "agent0_track_index": np.array([0.5])})
    with pytest.raises(ValueError, match="agent1_frame1_feat has 2"):
        status(record, {**arrays, "agent1_frame1_feat": np.zeros((2, 3))})


def test_a_record_without_lasers_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    path = tmp_path / "plain.tfrecord"
    write_records(path, [schema.Scenario(scenario_id="plain").SerializeToString()])
    with pytest.raises(ValueError, match="'plain' has no compressed_frame_laser_data"):
        status(path, arrays)
    write_records(path, [b"", b""])
    with pytest.raises(ValueError, match="one record, has 2"):
        status(path, arrays)
