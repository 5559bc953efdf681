"""Progress of long work: count, rate and time left, as a bar on a terminal and as lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINE_EVERY_S = 10.0


class Advance(Protocol):
    """Tells the progress display that more units are done."""

    def __call__(self, units: int = 1, note: str = "") -> None:
        """Add `units` and show `note` beside the bar."""


@contextmanager
def progress(title: str, total: int, unit: str = "it") -> Iterator[Advance]:
    """Show progress of `total` units on standard error while the block runs.

    Works on a terminal (a bar) and in a log (a line every ten seconds and one at the end).
    """
    if sys.stderr.isatty():
        yield from _bar(title, total, unit)
    else:
        yield from _lines(title, total, unit)


def rate_text(per_s: float, unit: str) -> str:
    """A rate in a unit of time in which it can be read."""
    return f"{per_s:.1f} {unit}/s" if per_s >= 0.1 or per_s == 0 else f"{3600 * per_s:.1f} {unit}/h"


def duration_text(seconds: float) -> str:
    """A duration in a unit in which it can be read."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _bar(title: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
               TimeRemainingColumn(), TextColumn("{task.fields[note]}"))  # fmt: skip
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, rate="", note="")
        done = 0

        def advance(units: int = 1, note: str = "") -> None:
            nonlocal done
            done += units
            rate = done / max(time.monotonic() - start, 1e-9)
            bar.update(task, advance=units, rate=rate_text(rate, unit), note=note)

        yield advance


def _lines(title: str, total: int, unit: str) -> Iterator[Advance]:
    start = last = time.monotonic()
    done = 0

    def line(note: str) -> None:
        elapsed = max(time.monotonic() - start, 1e-9)
        rate = done / elapsed
        left = f"{duration_text(max(total - done, 0) / rate)} left" if rate > 0 else "time left unknown"
        tail = f", {note}" if note else ""
        print(f"{title}: {done}/{total} {unit}, {rate_text(rate, unit)}, {left}{tail}", file=sys.stderr, flush=True)

    def advance(units: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += units
        now = time.monotonic()
        if now - last >= LINE_EVERY_S or (units and done == total):
            last = now
            line(note)

    try:
        yield advance
    finally:
        if done < total:
            line("stopped")
