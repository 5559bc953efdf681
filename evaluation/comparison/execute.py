"""Where runs are done: one after the other from this process, or as Ray tasks. Both give the same files."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from types import FrameType
from typing import Any

from evaluation.comparison.perform import GRACE_S, LOOK_EVERY_S, Outcome, attempt
from evaluation.comparison.runs import Run

OBJECT_STORE_BYTES = 96 * 2**20
"""Only settings travel through Ray; its default would take a third of the memory."""


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Inside the block SIGTERM, and a Ctrl-C that the shell would have ignored, raise KeyboardInterrupt: runs are then stopped
    in good order. Only possible in the main thread; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def in_turn(runs: Sequence[Run]) -> Generator[Outcome, None, None]:
    """One run after the other."""
    with termination_as_interrupt():
        for run in runs:
            yield attempt(run)


def on_ray(runs: Sequence[Run], *, address: str | None, workers: int) -> Generator[Outcome, None, None]:
    """One Ray task per run, in the order in which they finish.

    Args:
        runs: their folders and data must be seen by every machine of the cluster.
        address: of a running Ray; None starts one on this machine for as long as this runs.
        workers: runs at the same time; each asks Ray for as many CPUs as it has threads.
    """
    if not runs:
        return
    if address is None:
        # Without this, Ray of our own writes a token into the home folder, and dies where that cannot be written.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray: Any = import_module("ray")
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(
            address=address or "local",
            num_cpus=None if address else workers * runs[0].threads,
            object_store_memory=None if address else OBJECT_STORE_BYTES,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="error",
        )
    try:
        with termination_as_interrupt():  # after ray.init, which listens to SIGTERM itself
            yield from _tasks(ray, runs, workers)
    finally:
        if started_here:
            ray.shutdown()


def _attempt_in_worker(run: Run) -> Outcome:
    """`attempt`, which Ray can cancel even where SIGINT is ignored, as in all that a shell starts in the background."""
    with termination_as_interrupt():
        return attempt(run)


def _tasks(ray: Any, runs: Sequence[Run], workers: int) -> Generator[Outcome, None, None]:
    # No retries: a run that failed is named, and the same command goes on with it.
    remote = ray.remote(num_cpus=runs[0].threads, max_retries=0)(_attempt_in_worker)
    waiting = iter(runs)
    in_flight = {remote.remote(run): run for run in islice(waiting, workers)}
    try:
        while in_flight:
            # With a timeout, since signals are only noticed between two calls.
            finished, _ = ray.wait(list(in_flight), num_returns=1, timeout=LOOK_EVERY_S)
            if not finished:
                continue
            run = in_flight.pop(finished[0])
            try:
                outcome = ray.get(finished[0])
            except ray.exceptions.RayError as error:
                outcome = Outcome(run=run, error=f"its Ray worker died: {error}")
            in_flight |= {remote.remote(following): following for following in islice(waiting, 1)}
            yield outcome
    finally:
        # Not by force: a cancelled task interrupts its command, which writes a checkpoint.
        for reference in in_flight:
            ray.cancel(reference, force=False)
        if in_flight:
            ray.wait(list(in_flight), num_returns=len(in_flight), timeout=GRACE_S)
