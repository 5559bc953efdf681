"""Both studies from the command line, on digits made by hand."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from sparse_core.family import mlp, pruning_criteria, set_mlp, study
from sparse_core.family.data import Digits, load
from tests.sparse_core.family.digit_files import csv_gz

Main = Callable[[Sequence[str]], int]
STUDIES: dict[str, tuple[Main, list[str], int]] = {
    "set_mlp": (set_mlp.main, ["--steps", "20"], 6),
    "pruning_criteria": (pruning_criteria.main, ["--steps", "20", "--every", "5", "--densities", "0.1"], 22),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_mlp, "SIZES", (784, 20, 10))
    monkeypatch.setattr(set_mlp, "BATCH", 5)
    monkeypatch.setattr(pruning_criteria, "SIZES", (784, 20, 10))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return csv_gz(tmp_path / "digits.csv.gz")


def command(name: str, data: Path, out: Path, *more: str) -> int:
    main, options, _ = STUDIES[name]
    return main(["--data", str(data), "--train-images", "20", "--seeds", "2", "--out", str(out), *options, *more])


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_every_method_with_every_seed_and_goes_on_where_it_was(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command(name, data, out) == 0
    runs = sorted((out / "runs").glob("*.json"))
    assert len(runs) == STUDIES[name][2]
    summary, table = (out / "summary.json").read_text(), (out / "table.md").read_text()
    assert "static" in table
    assert all(picture.read_bytes()[:4] == b"\x89PNG" for picture in out.glob("*.png"))
    assert len(list(out.glob("*.png"))) >= 1
    words = capsys.readouterr()
    assert "20 steps" in words.out
    assert "steps/s" in words.err

    gone, kept = runs[0], {run: run.stat().st_mtime_ns for run in runs[1:]}
    gone.unlink()
    assert command(name, data, out) == 0
    assert gone.exists()
    assert {run: run.stat().st_mtime_ns for run in kept} == kept  # only what was missing was done
    assert json.loads((out / "summary.json").read_text()) == json.loads(summary)  # and it came out the same


@pytest.mark.parametrize("name", STUDIES)
def test_other_settings_in_the_same_folder_are_refused_and_nothing_is_mixed(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command(name, data, out, "--seeds", "1") == 0
    before = {path: path.read_bytes() for path in out.rglob("*.json")}
    assert command(name, data, out, "--steps", "25") == 1
    assert "steps 20 (now 25)" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*.json")} == before


def test_a_damaged_result_names_its_file(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("set_mlp", data, tmp_path) == 0
    (tmp_path / "runs" / "SET_seed1.json").write_text("{")
    assert command("set_mlp", data, tmp_path) == 1
    assert "SET_seed1.json" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_finished(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, started = set_mlp.train, []

    def interrupted(settings: study.Settings, digits: Digits, advance: Callable[[int], None]) -> study.Result:
        started.append(settings["method"])
        if len(started) == 3:
            raise KeyboardInterrupt
        return plain(settings, digits, advance)

    monkeypatch.setattr(set_mlp, "train", interrupted)
    assert command("set_mlp", data, tmp_path) == 130
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2
    assert command("set_mlp", data, tmp_path) == 0
    assert len(started) == 3 + 4


def test_workers_give_the_results_of_one_process(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # other processes see the real sizes
    digits = load(data)
    run = set_mlp.runs_of(1, 8, 200, digits.digest)[2]
    small = study.Run("SET", {**run.settings, "sizes": [784, 20, 10], "train_images": 20, "batch": 5, "steps": 8})
    results = [
        study.complete("t", [small], set_mlp.train, digits, tmp_path / str(workers), workers)["SET"] for workers in (1, 2)
    ]
    assert results[0]["links_per_pixel"] == results[1]["links_per_pixel"]
    assert results[0]["curve"] == results[1]["curve"]


def overflowing(settings: study.Settings, digits: Digits, advance: Callable[[int], None]) -> study.Result:
    raise FloatingPointError("the loss is not finite at step 3")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_fails_is_named_and_leaves_no_process_behind(workers: int, data: Path, tmp_path: Path) -> None:
    runs = [study.Run(f"run{number}", {"steps": 5, "number": number}) for number in range(3)]
    with pytest.raises(study.StudyError, match=r"run\d: the loss is not finite at step 3"):
        study.complete("t", runs, overflowing, load(data), tmp_path, workers)
    assert not list((tmp_path / "runs").iterdir())
    assert not multiprocessing.active_children()


def test_static_and_set_begin_with_the_same_links_and_only_set_changes_them(data: Path) -> None:
    digits = load(data)
    runs = {run.settings["method"]: run.settings for run in set_mlp.runs_of(1, 20, 20, digits.digest)}
    found = {name: set_mlp.train(settings, digits, lambda steps: None) for name, settings in runs.items()}
    assert found["static"]["links"] == found["SET"]["links"] < found["dense"]["links"]
    assert found["SET"]["explored"] > found["static"]["explored"]
    first = {name: {**settings, "steps": 4} for name, settings in runs.items()}
    begun = [set_mlp.train(first[name], digits, lambda steps: None)["links_per_pixel"] for name in ("static", "SET")]
    assert begun[0] == begun[1]


def test_criteria_that_are_the_same_choose_alike_and_random_ones_do_not(data: Path, tmp_path: Path) -> None:
    assert command("pruning_criteria", data, tmp_path, "--seeds", "1") == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    matrix = torch.tensor(summary["overlap"]["0.1"]["first update"])
    names = summary["criteria"]
    at = {name: names.index(name) for name in names}
    assert torch.equal(matrix.diagonal(), torch.ones(len(names)))
    assert torch.equal(matrix, matrix.T)
    assert matrix[at["snip"], at["taylor"]] == 1  # squares keep the order
    assert matrix[at["magnitude"], at["random"]] < 0.6


def test_accuracy_counts_right_answers() -> None:
    model = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    images, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1, 1, 0])
    split = mlp.Split(images, labels, images, labels)
    assert mlp.accuracy(model, split) == 0.5


def test_too_few_steps_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("pruning_criteria", data, tmp_path, "--every", "15") == 1
    assert "two periods" in capsys.readouterr().err
    assert command("set_mlp", data, tmp_path, "--steps", "7") == 1
    assert "two epochs" in capsys.readouterr().err
