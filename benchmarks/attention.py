"""Dense masked against gathered attention, forward and backward, as a ratio of times in one run.

    python benchmarks/attention.py

The baseline is the dense path. Both give the same results (tests/limtr/test_attention.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from limtr.attention import masked_attention, nearest_tokens

REPEATS = 5


def seconds(run: Callable[[], None]) -> float:
    """Least time of a few runs, after one to warm up."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def ratio(num_centers: int, num_tokens: int, dim: int, num_neighbors: int) -> float:
    """Time of the gathered path over that of the dense one."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(num_centers, num_tokens, dim, requires_grad=True) for _ in range(3))
    position = torch.randn(num_centers, num_tokens, 3) * 30
    allowed = nearest_tokens(position, torch.ones(num_centers, num_tokens, dtype=torch.bool), num_neighbors)

    def run(path: str) -> None:
        masked_attention(
            query, key, value, allowed, num_heads=8, dropout=0.0, path=path, max_keys=num_neighbors
        ).square().sum().backward()  # type: ignore[no-untyped-call]

    return seconds(lambda: run("gathered")) / seconds(lambda: run("dense"))


def main() -> None:
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, forward and backward")
    for num_tokens in (128, 512, 832):
        print(f"{num_tokens:4d} tokens, 16 neighbours: gathered / dense = {ratio(2, num_tokens, 256, 16):.2f}")


if __name__ == "__main__":
    main()
