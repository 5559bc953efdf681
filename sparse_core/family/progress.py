"""Progress of a study on standard error: runs, steps, rate, time left. One line on a terminal, lines now and then in a log."""

from __future__ import annotations

import sys
import time

LINE_EVERY_S = 10.0
REDRAW_EVERY_S = 0.2


class Progress:
    """Counts runs and optimizer steps.

    Args:
        title: the study.
        runs: of this call, without those that were already there.
        steps: of all these runs together.
    """

    def __init__(self, title: str, runs: int, steps: int) -> None:
        self._title, self._runs, self._steps = title, runs, steps
        self._runs_done = self._steps_done = 0
        self._start = self._last = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def step(self, steps: int) -> None:
        """So many more steps are done."""
        self._steps_done += steps
        now = time.monotonic()
        if now - self._last >= (REDRAW_EVERY_S if self._terminal else LINE_EVERY_S):
            self._last = now
            self._show()

    def run(self) -> None:
        """One more run is done."""
        self._runs_done += 1
        if self._runs_done == self._runs:
            self._show()

    def close(self) -> None:
        """Leave the line to others."""
        if self._terminal:
            print(file=sys.stderr, flush=True)

    def _show(self) -> None:
        rate = self._steps_done / max(time.monotonic() - self._start, 1e-9)
        left = f"{(self._steps - self._steps_done) / rate:.0f} s left" if rate else "time left unknown"
        line = (
            f"{self._title}: {self._runs_done}/{self._runs} runs, {self._steps_done:,}/{self._steps:,} steps, "
            f"{rate:.0f} steps/s, {left}"
        )
        print(f"\r\x1b[K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr, flush=True)
