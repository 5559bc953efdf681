"""A study: many runs over seeds, each a JSON file of its own, so that a stopped study goes on where it was.

A run is what its settings say. A file of the same name with other settings is an error: results are never mixed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparse_core.family.data import Digits
from sparse_core.family.progress import Progress

Settings = Mapping[str, Any]
Result = dict[str, Any]
Train = Callable[[Settings, Digits, Callable[[int], None]], Result]
"""(settings, digits, advance) -> result, plain values both; a function of a module, for other processes find it by name."""


class StudyError(ValueError):
    """A folder of results does not fit what was asked for, or a run failed; the message says what to do."""


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: of its file.
        settings: all that its result depends on, as JSON can hold it; `steps` among them.
    """

    name: str
    settings: Settings


def complete(title: str, runs: Sequence[Run], train: Train, digits: Digits, out: Path, workers: int = 1) -> dict[str, Result]:
    """Do the runs that are missing in `out/runs` and return the results of all, by name.

    Args:
        workers: processes; one thread each. With 1, this process does it.

    Raises:
        StudyError: a file there has other settings or is damaged (nothing is run then), or a run failed.
    """
    folder = out / "runs"
    results = {run.name: found for run in runs if (found := _stored(folder, run)) is not None}
    missing = [run for run in runs if run.name not in results]
    if len(missing) < len(runs):
        print(f"{title}: {len(results)} of {len(runs)} runs are in {folder} already", flush=True)
    if not missing:
        return results
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(title, len(missing), sum(run.settings["steps"] for run in missing))
    do = _in_this_process if workers == 1 else _in_processes
    try:
        do(
            missing,
            train,
            digits,
            workers,
            progress,
            lambda run, result: results.update({run.name: _store(folder, run, result)}),
        )
    finally:
        progress.close()
    return {run.name: results[run.name] for run in runs}


Keep = Callable[[Run, Result], None]


def _in_this_process(runs: Sequence[Run], train: Train, digits: Digits, workers: int, progress: Progress, keep: Keep) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for run in runs:
            keep(run, _tried(run, train, digits, progress.step))
            progress.run()
    finally:
        torch.set_num_threads(threads)


def _in_processes(runs: Sequence[Run], train: Train, digits: Digits, workers: int, progress: Progress, keep: Keep) -> None:
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    given = (train, digits.images, digits.labels, digits.digest)
    pool = ProcessPoolExecutor(min(workers, len(runs)), mp_context=context, initializer=_prepare, initargs=given)
    try:
        waiting = {pool.submit(_run_here, run): run for run in runs}
        for done in as_completed(waiting):
            run = waiting[done]
            keep(run, done.result())
            progress.step(run.settings["steps"])
            progress.run()
        pool.shutdown()
    except BaseException as error:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        _wait_for_end_of(lambda: set(multiprocessing.active_children()) - before)
        if isinstance(error, BrokenProcessPool):
            raise StudyError("a worker process died (out of memory?); the same command goes on, try fewer --workers") from error
        raise


def _wait_for_end_of(children: Callable[[], Collection[object]], seconds: float = 30.0) -> None:
    """Wait until `children()` is empty. Asked again and again: the pool's own thread may be taking the same child's status."""
    end = time.monotonic() + seconds
    while children() and time.monotonic() < end:
        time.sleep(0.01)


_worker: dict[str, Any] = {}


def _prepare(train: Train, images: torch.Tensor, labels: torch.Tensor, digest: str) -> None:
    """What a worker process does first."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word; the parent speaks
    torch.set_num_threads(1)
    _worker.update(train=train, digits=Digits(images, labels, digest))


def _run_here(run: Run) -> Result:
    return _tried(run, _worker["train"], _worker["digits"], lambda steps: None)


def _tried(run: Run, train: Train, digits: Digits, advance: Callable[[int], None]) -> Result:
    start = time.monotonic()
    try:
        result = train(run.settings, digits, advance)
    except FloatingPointError as error:
        raise StudyError(f"run {run.name}: {error}") from error
    return {**result, "seconds": round(time.monotonic() - start, 2)}


def _stored(folder: Path, run: Run) -> Result | None:
    path = folder / f"{run.name}.json"
    try:
        content = json.loads(path.read_text())
        settings, result = content["settings"], content["result"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path}: no result of a run ({error}); remove the file, and the run will be done again") from error
    wanted = json.loads(json.dumps(run.settings))
    if settings != wanted:
        other = [
            f"{key} {settings.get(key, 'absent')!r} (now {wanted.get(key, 'absent')!r})"
            for key in sorted({*settings, *wanted})
            if settings.get(key, "absent") != wanted.get(key, "absent")
        ]
        raise StudyError(
            f"{path}: was made with {', '.join(other)}; results are not mixed. Give another --out, or remove {folder}"
        )
    return dict(result)


def _store(folder: Path, run: Run, result: Result) -> Result:
    made_with = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    write_json(folder / f"{run.name}.json", {"settings": run.settings, "result": result, "made_with": made_with})
    return result


def write_json(path: Path, value: object) -> None:
    """Replace a file by JSON in one step, so that nobody ever sees half of it."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
