"""Training curves out of a log that may be cut or damaged."""

import json

from evaluation.report.chart_sections import training_section
from evaluation.report.training_curves import find_log, read_curves, thinned


def write_log(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_values_are_sorted_by_kind_and_name(tmp_path):
    log = write_log(
        tmp_path / "log.jsonl",
        {"step": 1, "kind": "train", "loss": 3.0},
        {"step": 2, "kind": "train", "loss": None},
        {"step": 2, "kind": "validation", "minADE": 1.5, "mAP": 0.1},
    )
    curves = read_curves(log)
    assert curves.train["loss"].steps == (1, 2)
    assert curves.train["loss"].values == (3.0, None)
    assert curves.validation["mAP"].values == (0.1,)
    assert curves.num_unreadable == 0


def test_lines_that_are_no_entries_are_counted(tmp_path):
    log = write_log(
        tmp_path / "log.jsonl", {"step": 1, "kind": "train", "loss": 3.0}, "[]", '{"step": 2, "ki', '{"kind": "train"}'
    )
    assert read_curves(log).num_unreadable == 3
    assert "3 of its lines could not be read" in training_section(read_curves(log), "").body


def test_a_long_curve_is_averaged_down():
    curve = thinned(list(range(1000)), [float(step) for step in range(1000)], most=10)
    assert len(curve.steps) == 10
    assert curve.steps[-1] == 999
    assert curve.values[0] == 49.5


def test_the_log_of_a_run_is_found_from_the_run_and_from_a_checkpoint(tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000007"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").touch()
    (checkpoint.parent / "latest.txt").write_text(checkpoint.name)
    assert find_log(tmp_path / "run") is None
    log = write_log(tmp_path / "run" / "log.jsonl")
    assert find_log(tmp_path / "run") == find_log(checkpoint) == log


def test_without_a_log_the_section_says_why():
    assert "because" in training_section(None, "because").body
