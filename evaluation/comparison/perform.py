"""Doing one run: `limtr train`, then `limtr evaluate`, each as a process of its own with its output in the run's log."""

from __future__ import annotations

import fcntl
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from evaluation.comparison.runs import FINISHED_FILE, SETTINGS_FILE, Run
from limtr.files import read_json, write_json

TRAINED_FILE = "trained.json"
COST_FILE = "cost.json"
LAST_LINES = 8
"""Of a failed command, shown with the failure."""
GRACE_S = 120.0
"""So long an interrupted command may take to write its checkpoint."""
LOOK_EVERY_S = 0.2
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class RunFailedError(ValueError):
    """A command of a run ended badly; the message names the command, its status, its last words and the log."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended; `error` is None if it is whole."""

    run: Run
    error: str | None = None


def attempt(run: Run) -> Outcome:
    """Do what is missing of a run; what went wrong with it comes back as a value, so that the other runs go on."""
    try:
        perform(run)
    except (RunFailedError, OSError, ValueError) as error:
        return Outcome(run=run, error=str(error))
    return Outcome(run=run)


def perform(run: Run) -> None:
    """Train and evaluate; a training that was stopped goes on from its last checkpoint.

    Raises:
        RunFailedError: a command failed.
        ValueError: another process is at work in the run's folder.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with _alone(run) as lock:
        write_json(run.folder / SETTINGS_FILE, run.settings)
        if not ((run.folder / TRAINED_FILE).exists() and run.has_model()):
            resume = ["--resume"] if (run.training / "checkpoints" / "latest.txt").exists() else []
            _limtr(run, "train", [*run.train_words, "--out", str(run.training), *resume], lock)
            write_json(run.folder / TRAINED_FILE, {"position": read_json(run.training / "report.json")["results"]["position"]})
        words = ["--checkpoint", str(run.training), "--out", str(run.evaluation), "--scene-scores", "--pictures", "0"]
        _limtr(run, "evaluate", [*run.evaluate_words, *words], lock)
        settings = {"settings": run.settings, "evaluation": run.evaluation_settings}
        write_json(run.evaluation / FINISHED_FILE, {**settings, **_costs(run)})


@contextmanager
def _alone(run: Run) -> Iterator[int]:
    """Hold the run's folder. The commands inherit the lock, so that one that outlived its comparison still holds it."""
    path = run.folder / "lock"
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another process is at work in {run.folder}; wait until it ends and start again") from error
        yield handle.fileno()


def _limtr(run: Run, verb: str, words: Sequence[str], lock: int) -> None:
    """Run a verb, keep its output and add what it cost."""
    command = [sys.executable, "-m", "limtr.cli", verb, *words]
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(run.threads))}
    start = time.monotonic()
    begin = run.log.stat().st_size if run.log.exists() else 0
    with run.log.open("ab") as log:
        log.write(f"$ limtr {' '.join([verb, *words])}\n".encode())
        log.flush()
        # A session of its own: Ctrl-C at the terminal reaches it through us alone, once.
        child = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment, pass_fds=[lock],
            start_new_session=True,
        )  # fmt: skip
        try:
            status, usage = _wait(child)
        except BaseException:
            usage = _end(child)
            if usage is not None:
                _add_cost(run, verb, _cost(start, usage))
            raise
    _add_cost(run, verb, _cost(start, usage))
    if status != 0:
        last = "\n".join(run.log.read_bytes()[begin:].decode(errors="replace").splitlines()[-LAST_LINES:])
        raise RunFailedError(f"`limtr {verb}` ended with status {status}; its log is {run.log}, which ends:\n{last}")


def _wait(child: subprocess.Popen[bytes], patience_s: float = math.inf) -> tuple[int, Any]:
    """Exit status and resource usage. Looks again and again: Ray interrupts a cancelled task between Python's steps only.

    Raises:
        TimeoutError: it is still there after `patience_s`.
    """
    deadline = time.monotonic() + patience_s
    ended, raw, usage = os.wait4(child.pid, os.WNOHANG)
    while ended == 0:
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {child.pid} does not end")
        time.sleep(LOOK_EVERY_S)
        ended, raw, usage = os.wait4(child.pid, os.WNOHANG)
    child.returncode = os.waitstatus_to_exitcode(raw)
    return child.returncode, usage


def _end(child: subprocess.Popen[bytes]) -> Any:
    """Let an interrupted command write its checkpoint and go; a stubborn one is killed. What it used, None if it had ended."""
    if child.returncode is not None:
        return None
    child.send_signal(signal.SIGTERM)
    try:
        return _wait(child, GRACE_S)[1]
    except BaseException:
        child.kill()
        return _wait(child)[1]


def _cost(start: float, usage: Any) -> dict[str, float]:
    return {
        "wall_s": time.monotonic() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
    }


def _add_cost(run: Run, verb: str, cost: Mapping[str, float]) -> None:
    """Add to what earlier attempts took: times add up, the peak is the largest."""
    path = run.folder / COST_FILE
    before = read_json(path) if path.exists() else {}
    found = before.get(verb, {})
    merged = {
        name: max(found.get(name, 0), value) if name.startswith("peak") else found.get(name, 0) + value
        for name, value in cost.items()
    }
    write_json(path, {**before, verb: merged})


def _costs(run: Run) -> dict[str, Any]:
    position = read_json(run.folder / TRAINED_FILE)["position"]
    return {"cost": read_json(run.folder / COST_FILE), "position": position}
