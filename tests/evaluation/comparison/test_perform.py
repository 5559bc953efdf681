"""One run: what its commands cost and how they end."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation.comparison import perform
from evaluation.comparison.runs import EvaluationPlan, Run, plan_runs
from evaluation.comparison.variants import read_variants
from tests.evaluation.comparison.made_runs import made_data, write_variants

START = subprocess.Popen


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_data(tmp_path_factory.mktemp("data") / "shards")


def limtr_is(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a run's commands be a few lines of Python."""

    def popen(command: list[str], **options: object) -> "subprocess.Popen[bytes]":
        return START([sys.executable, "-c", script], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(perform.subprocess, "Popen", popen)


def planned(data: Path, tmp_path: Path) -> Run:
    (variant,) = read_variants(write_variants(tmp_path, one="{steps: 4}"), data)
    (item,) = plan_runs([variant], [0], EvaluationPlan(split="validation", bucketing="2024"), tmp_path / "out", threads=1)
    return item


def test_a_failure_shows_the_last_words_of_this_attempt_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = planned(data, tmp_path)
    for word in ("first", "second"):
        limtr_is(monkeypatch, f"print('{word} reason'); raise SystemExit(3)")
        told = perform.attempt(item).error
        assert told is not None
        assert f"ended with status 3; its log is {item.log}" in told
        assert f"{word} reason" in told
    assert "first reason" not in told
    assert "first reason" in item.log.read_text()


def test_what_an_interrupted_training_cost_is_counted(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = planned(data, tmp_path)
    limtr_is(monkeypatch, "import time; [None for _ in range(10**6)]; time.sleep(60)")
    wait, calls = perform._wait, []

    def interrupted(child: "subprocess.Popen[bytes]", *patience: float) -> object:
        calls.append(child)
        if len(calls) == 1:
            time.sleep(0.3)
            raise KeyboardInterrupt
        return wait(child, *patience)

    monkeypatch.setattr(perform, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        perform.perform(item)
    cost = json.loads((item.folder / perform.COST_FILE).read_text())["train"]
    assert cost["cpu_s"] > 0
    assert cost["wall_s"] >= 0.3
    assert calls[0].returncode == -signal.SIGTERM


def test_costs_of_attempts_add_up_and_the_peak_is_the_largest(data: Path, tmp_path: Path) -> None:
    item = planned(data, tmp_path)
    item.folder.mkdir(parents=True)
    for cpu_s, peak in ((1.0, 7.0), (2.0, 5.0)):
        perform._add_cost(item, "train", {"cpu_s": cpu_s, "wall_s": 2 * cpu_s, "peak_rss_bytes": peak})
    perform._add_cost(item, "evaluate", {"cpu_s": 9.0})
    cost = json.loads((item.folder / perform.COST_FILE).read_text())
    assert cost == {"train": {"cpu_s": 3.0, "wall_s": 6.0, "peak_rss_bytes": 7.0}, "evaluate": {"cpu_s": 9.0}}


def test_an_evaluation_is_asked_for_the_scores_of_its_own_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = planned(data, tmp_path)
    called: list[list[str]] = []

    def noted(run: Run, verb: str, words: list[str], lock: int) -> None:
        called.append([verb, *words])
        (run.training / "report.json").parent.mkdir(parents=True, exist_ok=True)
        (run.training / "report.json").write_text('{"results": {"position": {"step": 4}}}')
        perform._add_cost(run, verb, {"cpu_s": 1.0})

    monkeypatch.setattr(perform, "_limtr", noted)
    perform.perform(item)
    (train, evaluate) = called
    assert train == ["train", *item.train_words, "--out", str(item.training)]
    assert evaluate[:1] == ["evaluate"]
    assert {"--scene-scores", *item.evaluate_words} <= set(evaluate)
    assert evaluate[evaluate.index("--checkpoint") + 1] == str(item.training)
    assert evaluate[evaluate.index("--out") + 1] == str(item.evaluation)
