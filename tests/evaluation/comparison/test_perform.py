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
