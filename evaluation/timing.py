"""Fair times of several callables: warmed up, in rounds of random order, with the peak of memory of each."""

from __future__ import annotations

import ctypes
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from limtr.progress import progress

Call = Callable[[], object]
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Times:
    """Seconds of each round by name; a round runs everything once, so entries of one round belong together."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def rounds(self) -> int:
        """Complete rounds."""
        return min((len(values) for values in self.seconds.values()), default=0)

    def percentile(self, name: str, percent: float) -> float:
        """Seconds within which `percent` of the calls of `name` were done."""
        return float(np.percentile(self.seconds[name][: self.rounds], percent))

    def ratio(self, name: str, reference: str) -> float:
        """Median over rounds of the time of `reference` over that of `name`: how many times faster `name` is."""
        return float(np.median(self._ratios(name, reference)))

    def ratio_quartiles(self, name: str, reference: str) -> tuple[float, float]:
        """Half of the rounds have a `ratio` between these two."""
        low, high = np.percentile(self._ratios(name, reference), (25, 75)).tolist()
        return low, high

    def _ratios(self, name: str, reference: str) -> list[float]:
        pairs = zip(self.seconds[reference], self.seconds[name], strict=False)
        return [other / own for other, own in pairs]


def interleaved_times(
    calls: Mapping[str, Call], *, rounds: int, warm_up: int, seed: int, wait: Callable[[], None] = lambda: None
) -> Times:
    """Time every call once a round, in an order that is drawn anew each round.

    What else the machine does then meets all of them alike. Ctrl-C ends early with what rounds are complete.

    Args:
        calls: by name.
        rounds: how often each is timed.
        warm_up: calls of each before that.
        seed: of the orders.
        wait: called around each; on a GPU, synchronises.
    """
    shuffle = random.Random(seed)
    times = Times({name: [] for name in calls})
    with progress("timing", len(calls) * (rounds + warm_up), "calls") as advance:
        for name, call in calls.items():
            for _ in range(warm_up):
                call()
                advance(note=name)
        try:
            for _ in range(rounds):
                order = list(calls)
                shuffle.shuffle(order)
                for name in order:
                    wait()
                    start = time.perf_counter()
                    calls[name]()
                    wait()
                    times.seconds[name].append(time.perf_counter() - start)
                    advance(note=name)
        except KeyboardInterrupt:
            if times.rounds == 0:
                raise
            return Times(times.seconds, interrupted=True)
    return times


def peak_memory_bytes(call: Call, device: torch.device) -> int | None:
    """Most memory in use during a second call, above what was in use before it; None where the system does not tell.

    The first call is not looked at: it may compile, load libraries or make what is kept. On a GPU by torch's allocator, on
    Linux by the kernel's high-water mark of resident memory (which counts pages, so small calls may show 0).
    """
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not os.access(_CLEAR, os.W_OK):
        return None
    _give_back_freed_memory()
    _CLEAR.write_text("5")  # resets the mark
    before = _status_bytes("VmRSS")
    call()
    return max(0, _status_bytes("VmHWM") - before)


def _give_back_freed_memory() -> None:
    """Memory that the C library keeps for later would not be seen when it is used again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)


def _status_bytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{_STATUS} has no {name}")
