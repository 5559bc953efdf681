"""`limtr verify --official`: our files read by Waymo's own decoders and protos."""

from pathlib import Path

import pytest

from evaluation.oracle import ORACLE_VARIABLE, OracleError
from evaluation.verify_official import VerifyOfficialConfig, run
from preprocessing.womd import schema
from preprocessing.womd.lidar import frame_points
from preprocessing.womd.tfrecord import iter_records, write_records
from tests.evaluation.examples import needs_oracle

LIDAR = Path(__file__).parents[1] / "golden" / "lidar" / "synthetic_womd_lidar.tfrecord"


def changed_lidar(tmp_path, change):
    ((_, data),) = iter_records(LIDAR)
    scenario = schema.Scenario.FromString(data)
    del scenario.compressed_frame_laser_data[1:]
    change(scenario.compressed_frame_laser_data[0])
    write_records(tmp_path / "changed.tfrecord", [scenario.SerializeToString()])
    return tmp_path / "changed.tfrecord"


@needs_oracle
def test_range_images_points_and_protos_agree(capsys):
    assert run(VerifyOfficialConfig(files=(LIDAR,))) == 0
    printed = capsys.readouterr().out
    assert "64 of 64 quantities agree" in printed
    assert "f1_l5_image2" in printed
    assert "ours read by Waymo's protos" in printed


@needs_oracle
def test_points_that_are_millimetres_off_fail(tmp_path, monkeypatch, capsys):
    def shifted(frame):
        return [tuple((xyz + 4e-3, features) for xyz, features in returns) for returns in frame_points(frame)]

    monkeypatch.setattr("preprocessing.verify_lidar.frame_points", shifted)
    assert run(VerifyOfficialConfig(files=(changed_lidar(tmp_path, lambda frame: None),))) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert failed
    assert all("_xyz" in line for line in failed)
    assert any("f0_l1_xyz1" in line for line in failed)


@needs_oracle
def test_holes_of_the_official_decoder_are_filled(tmp_path, capsys):
    def change(frame):
        for laser in frame.lasers:
            laser.ClearField("ri_return2")
        for calibration in frame.laser_calibrations:
            values = list(calibration.beam_inclinations) or [-0.3, 0.3]
            calibration.ClearField("beam_inclinations")
            calibration.beam_inclination_min, calibration.beam_inclination_max = values[0], values[-1]

    assert run(VerifyOfficialConfig(files=(changed_lidar(tmp_path, change),))) == 0
    assert "f0_l1_xyz1" in capsys.readouterr().out


@needs_oracle
def test_fields_that_waymo_does_not_know_are_found(tmp_path, capsys):
    write_records(tmp_path / "a.tfrecord", [schema.Scenario(scenario_id="s").SerializeToString() + b"\xfa\x01\x03abc"])
    assert run(VerifyOfficialConfig(files=(tmp_path / "a.tfrecord",))) == 1
    assert "FAIL a.tfrecord Scenario 0: bytes unknown to Waymo's protos" in capsys.readouterr().out


def test_an_environment_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv(ORACLE_VARIABLE, str(tmp_path))
    with pytest.raises(OracleError, match="make oracle"):
        run(VerifyOfficialConfig(files=(LIDAR,)))


def test_a_broken_archive_is_no_comparison(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"no gzipped tar.*limtr submit --check"):
        run(VerifyOfficialConfig(files=(tmp_path / "a.tar.gz",)))


def test_at_least_one_file_is_needed():
    with pytest.raises(ValueError, match="at least one file"):
        VerifyOfficialConfig(files=())
