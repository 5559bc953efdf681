"""What random scores cost: milliseconds a million weights for the engine's counter-based hash, beside torch's own generator.

    OMP_NUM_THREADS=1 python benchmarks/hashed_random.py

The baseline is `torch.rand` of as many numbers, which depends on a generator's state. CPU time, one thread, median of rounds.
"""

from __future__ import annotations

import statistics
import time

import torch

from sparse_core.hashed_random import uniform

COUNT = 4_000_000
ROUNDS = 15


def main() -> None:
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {"hash": [], "torch.rand": []}
    for _ in range(ROUNDS):
        for name, draw in (("hash", lambda: uniform(COUNT, key=1)), ("torch.rand", lambda: torch.rand(COUNT))):
            start = time.process_time()
            draw()
            times[name].append((time.process_time() - start) * 1e3 / (COUNT / 1e6))
    hashed, drawn = statistics.median(times["hash"]), statistics.median(times["torch.rand"])
    print(f"hash {hashed:.2f} ms a million weights, {hashed / drawn:.2f}x the time of torch.rand ({drawn:.2f} ms)")


if __name__ == "__main__":
    main()
