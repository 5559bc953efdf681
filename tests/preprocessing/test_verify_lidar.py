from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limtr.cli import main
from preprocessing.verify_lidar import VerifyLidarConfig, compare, run
from preprocessing.womd import schema
from preprocessing.womd.tfrecord import iter_records, write_records

GOLDEN = Path(__file__).parents[1] / "golden" / "lidar"
RECORD = GOLDEN / "synthetic_womd_lidar.tfrecord"
POINTS = GOLDEN / "synthetic_womd_lidar_points_golden.npz"


def changed(tmp_path: Path, **arrays: np.ndarray | None) -> VerifyLidarConfig:
    """The golden file with some arrays replaced, added or (None) removed."""
    with np.load(POINTS, allow_pickle=False) as archive:
        content = {**{name: archive[name] for name in archive.files}, **arrays}
    path = tmp_path / "changed.npz"
    np.savez(path, **{name: array for name, array in content.items() if array is not None})
    return VerifyLidarConfig(scenario=RECORD, golden=path)


def golden(name: str) -> np.ndarray:
    with np.load(POINTS, allow_pickle=False) as archive:
        return archive[name]


def test_our_points_are_those_of_waymos_decoder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "lidar", "--scenario", str(RECORD), str(POINTS)]) == 0
    assert "40 of 40 quantities agree" in capsys.readouterr().out


def test_lasers_may_be_numbered_by_their_place(tmp_path: Path) -> None:
    with np.load(POINTS, allow_pickle=False) as archive:
        content = {name.replace(f"_l{name[4]}_", f"_l{int(name[4]) - 1}_"): archive[name] for name in archive.files}
    path = tmp_path / "placed.npz"
    np.savez(path, **content)
    assert run(VerifyLidarConfig(scenario=RECORD, golden=path)) == 0


def test_one_frame_is_enough(tmp_path: Path) -> None:
    with np.load(POINTS, allow_pickle=False) as archive:
        content = {name: archive[name] for name in archive.files if name.startswith("f1_")}
    path = tmp_path / "one.npz"
    np.savez(path, **content)
    assert len(list(compare(VerifyLidarConfig(scenario=RECORD, golden=path)))) == 20


@pytest.mark.parametrize(
    ("name", "shift"), [("f0_l1_xyz1", 3e-3), ("f1_l4_xyz2", 4e-5), ("f1_l4_feat1", 1e-3), ("f1_l4_feat1", np.nan)]
)
def test_differences_beyond_the_tolerance_fail(tmp_path: Path, name: str, shift: float) -> None:
    array = golden(name)
    array[7, 1] += shift
    assert run(changed(tmp_path, **{name: array})) == 1


def test_another_number_or_order_of_points_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    xyz, features = golden("f0_l2_xyz1"), golden("f0_l2_feat1")
    assert run(changed(tmp_path, f0_l2_xyz1=xyz[:-1], f0_l2_feat1=features[:-1])) == 1
    assert f"{len(xyz) - 1} points in the golden file, {len(xyz)} here" in capsys.readouterr().out
    assert run(changed(tmp_path, f0_l2_xyz1=xyz[::-1], f0_l2_feat1=features[::-1])) == 1


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'f0_l2_feat1' is missing"):
        run(changed(tmp_path, f0_l2_feat1=None))
    with pytest.raises(ValueError, match="'f1_l3_xyz2' is missing"):
        run(changed(tmp_path, f1_l3_feat2=None, f1_l3_xyz2=None))


def test_empty_arrays_of_lasers_and_frames_that_the_record_lacks_agree(tmp_path: Path) -> None:
    (_, data), *_ = iter_records(RECORD)
    scenario = schema.Scenario.FromString(data)
    name = scenario.compressed_frame_laser_data[0].lasers[2].name
    for frame in scenario.compressed_frame_laser_data:
        del frame.lasers[2]
    record = tmp_path / "four_lasers.tfrecord"
    write_records(record, [scenario.SerializeToString()])
    none = np.zeros((0, 3))
    nothing = {f"f{frame}_l{name}_{kind}{echo}": none for frame in (0, 1) for kind in ("xyz", "feat") for echo in (1, 2)}
    later = {f"f2_l1_{kind}{echo}": none for kind in ("xyz", "feat") for echo in (1, 2)}
    golden_file = changed(tmp_path, **nothing, **later).golden
    assert run(VerifyLidarConfig(scenario=record, golden=golden_file)) == 0
    assert len(list(compare(VerifyLidarConfig(scenario=record, golden=golden_file)))) == 44
    with pytest.raises(ValueError, match=rf"lasers \[{name}\]"):
        run(VerifyLidarConfig(scenario=record, golden=POINTS))


def test_what_does_not_fit_the_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"frame 7, .* has 2 laser frames"):
        run(changed(tmp_path, f7_l1_xyz1=np.zeros((1, 3)), f7_l1_feat1=np.zeros((1, 3))))
    with pytest.raises(ValueError, match=r"lasers \[6\]"):
        run(changed(tmp_path, f0_l6_xyz1=np.zeros((1, 3)), f0_l6_feat1=np.zeros((1, 3))))
    with pytest.raises(ValueError, match=r"f0_l1_xyz1.*shape \(n, 3\)"):
        run(changed(tmp_path, f0_l1_xyz1=np.zeros((5, 4))))


def test_unknown_arrays_are_named_in_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="extra"):
        assert run(changed(tmp_path, extra=np.zeros(3))) == 0


def test_files_that_are_not_golden_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.npz"
    text.write_text("no archive")
    other = GOLDEN / "crops_golden.npz"
    for path, says in ((text, "not a readable .npz"), (other, "f0_l1_xyz1"), (tmp_path / "absent.npz", "absent.npz")):
        assert main(["verify", "lidar", "--scenario", str(RECORD), str(path)]) == 1
        assert says in capsys.readouterr().err
