import os
from pathlib import Path

import pytest

from limtr.files import atomic_path, path_inside, read_json, write_bytes, write_json


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "value.json"
    write_json(target, {"a": 1})

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left.*value\.json"):
        fail()
    assert read_json(target) == {"a": 1}
    assert os.listdir(tmp_path) == ["value.json"]


def test_writing_creates_folders(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b", b"x")
    assert (tmp_path / "a" / "b").read_bytes() == b"x"


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", float("nan"))
    assert not (tmp_path / "x.json").exists()


def test_a_broken_json_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "", ".", "a/../../b", "a\0b"])
def test_names_from_data_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="may not leave"):
        path_inside(tmp_path, name)


def test_plain_names_stay_inside(tmp_path: Path) -> None:
    assert path_inside(tmp_path, "637f20cafde22ff8.tfrecord").parent == tmp_path.resolve()
