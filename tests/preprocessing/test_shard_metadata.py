"""Shards of another version are told from ours, with the remedy; what is not whole is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limtr.files import atomic_path
from preprocessing.plan import MOST_NAMED, missing_motion_shards
from preprocessing.shard_metadata import FORMAT_VERSION, read_sidecars, shard_name, sidecar_path
from preprocessing.shards import SceneSource, data_fingerprint
from tests.preprocessing.pipeline_runs import preprocess
from tests.preprocessing.record_files import scenario, write_shard


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for index in range(2):
        write_shard(tmp_path / "raw", "training", index, 2, [scenario(f"s{index}")])
    return tmp_path / "raw"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_output_of_another_version_is_neither_read_nor_mixed_with(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert preprocess(raw, out) == 0
    edit(out / "dataset_info.json", version="7.0.0")
    written = rf"written by another version of limtr \(shard format 7, this version has {FORMAT_VERSION}\)"
    said = f"dataset_info.json: {written}.*--overwrite"
    with pytest.raises(ValueError, match=said):
        SceneSource(out, "train")
    sidecar = sidecar_path(out, "train", 1)
    edit(sidecar, settings=json.loads(sidecar.read_text())["settings"] | {"format_version": 7}, new_field=1)
    said = f"{sidecar.name}: {written}.*new --out, or with --overwrite"
    for reads in (lambda: preprocess(raw, out), lambda: read_sidecars(out), lambda: data_fingerprint(out)):
        with pytest.raises(ValueError, match=said):
            reads()
    assert preprocess(raw, out, overwrite=True) == 0
    assert len(SceneSource(out, "train")) == 2


def test_a_shard_that_lost_its_end_is_made_again(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert preprocess(raw, out) == 0
    fingerprint, shard = data_fingerprint(out), out / shard_name("train", 1)
    size = shard.stat().st_size
    with shard.open("r+b") as file:
        file.truncate(size // 2)
    assert preprocess(raw, out) == 0
    assert (
        f"{shard.name} is made again: its file has {size // 2} bytes, not the {size} that were written"
        in capsys.readouterr().out
    )
    assert data_fingerprint(out) == fingerprint
    assert len(SceneSource(out, "train")) == 2


def test_reading_a_shard_that_is_gone_says_what_to_do(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert preprocess(raw, out) == 0
    (out / shard_name("train", 1)).unlink()
    with pytest.raises(ValueError, match=r"scene 1 of split 'train' cannot be read .*run `limtr preprocess` again"):
        SceneSource(out, "train")[1]


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (["t.tfrecord-00000-of-00003", "t.tfrecord-00002-of-00003"], "1 of its 3 motion shards are not there (00001)"),
        (["t.tfrecord-00000-of-01000"], "999 of its 1000 motion shards are not there (00001, 00002, 00003, 00004, 00005, ...)"),
        (["t.tfrecord-00000-of-00001"], ""),
        (["a.tfrecord"], ""),
        (["t.tfrecord-00000-of-00002", "u.tfrecord-00000-of-00003"], ""),
    ],
    ids=["one", "many", "whole", "without a number", "of two releases"],
)
def test_motion_shards_that_are_missing_by_the_names_of_the_others_are_noted(there: list[str], said: str) -> None:
    notes = missing_motion_shards(Path("training"), [Path(name) for name in there])
    assert [said in note for note in notes] == [True] * bool(said)
    assert MOST_NAMED == 5


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as one, atomic_path(tmp_path / "a") as another:
        assert one != another
        one.write_text("first")
        another.write_text("second")
    assert (tmp_path / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
