"""A sparse linear layer against the dense one, forward and backward with the input's gradient, as a ratio of times in one run.

    OMP_NUM_THREADS=1 python benchmarks/csr_linear.py [--features 4096] [--tokens 128]

The baseline is `nn.Linear` with the same weights, zeros included: what masked training costs. Both give the same results
(tests/sparse_core/sparse/test_linear.py). Times are CPU seconds of the process, which runs one thread, so that other work on
the machine counts as little as it can. Dense and sparse take turns; the ratio is the median over the pairs, and the spread is
printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparse_core.sparse import Linear

BARS = {0.5: None, 0.2: None, 0.1: 1.4, 0.05: 2.6, 0.01: 10.0}
PAIRS = 15


def cpu_seconds(run: Callable[[], None], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - start) / calls


def interleaved_ratios(dense: Callable[[], None], sparse: Callable[[], None], calls: int) -> list[float]:
    """Dense over sparse time, pair by pair, after one run of each to warm up; who goes first alternates."""
    dense()
    sparse()
    ratios = []
    for pair in range(PAIRS):
        times = {}
        for run, count in ((dense, 1), (sparse, calls))[:: 1 if pair % 2 == 0 else -1]:
            times[run] = cpu_seconds(run, count)
        ratios.append(times[dense] / times[sparse])
    return sorted(ratios)


def training_step(layer: nn.Module, x: Tensor, upper: Tensor) -> Callable[[], None]:
    """Forward and backward, with the gradients of input, weight and bias."""
    leaves = [x, *layer.parameters()]

    def run() -> None:
        torch.autograd.grad(layer(x), leaves, upper)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=4096, help="inputs and outputs of the layer")
    parser.add_argument("--tokens", type=int, default=128, help="rows of the input")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(args.tokens, args.features, requires_grad=True)
    upper = torch.randn(args.tokens, args.features)
    print(f"Linear {args.features} x {args.features}, {args.tokens} tokens, float32, 1 thread, torch {torch.__version__}")
    print("density   dense / sparse (median of pairs, least to most)   bar")
    for density, bar in BARS.items():
        dense = nn.Linear(args.features, args.features)
        mask = torch.rand(args.features, args.features) < density
        with torch.no_grad():
            dense.weight *= mask
        sparse = Linear.from_dense(dense, mask)
        calls = max(1, round(0.2 / density))
        ratios = interleaved_ratios(training_step(dense, x, upper), training_step(sparse, x, upper), calls)
        print(
            f"{density:7.2f}   {statistics.median(ratios):6.2f}   ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            + (f"   at least {bar}: {'met' if statistics.median(ratios) >= bar else 'MISSED'}" if bar else ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
