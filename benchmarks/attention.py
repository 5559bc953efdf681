"""Attention of tokens to their neighbours: by lists against a mask over all, forward and backward, as ratios in one run.

    python benchmarks/attention.py

The baseline masks the weights of all tokens (torch's function). Without dropout both give the same results
(tests/limtr/test_neighbor_attention.py); with dropout torch has no kernel for a CPU. Times are CPU times.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn import functional

from limtr.attention import split_heads
from limtr.neighbor_attention import neighbor_attention
from limtr.neighbors import nearest_tokens

NUM_HEADS = 8
REPEATS = 5


def seconds(run: Callable[[], None]) -> float:
    """Least CPU time of a few runs, after one to warm up."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def ratio(num_centers: int, num_tokens: int, dim: int, num_neighbors: int, dropout: float) -> float:
    """Time of the masked way over that of the lists."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(num_centers, num_tokens, dim, requires_grad=True) for _ in range(3))
    valid = torch.ones(num_centers, num_tokens, dtype=torch.bool)
    neighbors = nearest_tokens(torch.randn(num_centers, num_tokens, 3) * 30, valid, num_neighbors)
    allowed = neighbors.allowed().unsqueeze(1)

    def masked() -> None:
        heads = [split_heads(x, NUM_HEADS).transpose(1, 2) for x in (query, key, value)]
        functional.scaled_dot_product_attention(*heads, attn_mask=allowed, dropout_p=dropout).square().sum().backward()

    def lists() -> None:
        neighbor_attention(query, key, value, neighbors, num_heads=NUM_HEADS, dropout=dropout).square().sum().backward()

    return seconds(masked) / seconds(lists)


def main() -> None:
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, forward and backward")
    for num_tokens in (128, 512, 832):
        for dropout in (0.0, 0.1):
            gain = ratio(2, num_tokens, 256, 16, dropout)
            print(f"{num_tokens:4d} tokens, 16 neighbours, dropout {dropout}: lists are {gain:.1f} times faster")


if __name__ == "__main__":
    main()
