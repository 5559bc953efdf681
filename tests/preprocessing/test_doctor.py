from pathlib import Path

import pytest

from preprocessing import doctor
from preprocessing.doctor import DoctorConfig, check_import, check_open3d, check_space, run


def test_what_imports_is_found_with_its_version() -> None:
    assert check_import("numpy").problem == ""
    assert check_import("numpy").seen[0].isdigit()


def test_a_missing_package_is_named_with_its_remedy_and_fails_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = check_import("no_such_package")
    assert "no_such_package" in missing.problem
    assert "pip install" in missing.remedy
    monkeypatch.setattr(doctor, "findings", lambda config: [missing])
    assert run(DoctorConfig(data=tmp_path)) == 1
    printed = capsys.readouterr().out
    assert "FAIL no_such_package" in printed
    assert "remedy: " in printed


def test_nothing_missing_is_status_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "findings", lambda config: [check_import("numpy")])
    assert run(DoctorConfig(data=tmp_path)) == 0


def test_a_system_library_that_open3d_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> object:
        raise OSError("libusb-1.0.so.0: cannot open shared object file")

    monkeypatch.setattr(doctor, "load_open3d", fail)
    finding = check_open3d()
    assert "libusb" in finding.problem
    assert "libegl1" in finding.remedy


def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(tmp_path.resolve()) in check_space(tmp_path).seen
    monkeypatch.setattr(doctor, "MIN_FREE_GIB", 1e9)
    assert "less than" in check_space(tmp_path).problem


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        run(DoctorConfig(data=tmp_path / "nowhere"))
