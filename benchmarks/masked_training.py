"""What masking costs in a training step, as a ratio of times in one run.

    OMP_NUM_THREADS=1 python benchmarks/masked_training.py [--size 4096] [--batch 128] [--method sr-ste --every 1]

The baseline is a dense step of a Linear layer: forward, backward with the input's gradient, AdamW(fused). The other is the
same with a `sparse_core` engine attached, in an ordinary step (unless `--every` brings updates). The two take turns; the
figure is the median over the pairs. The engine's price in memory: one number of the weight's type and two bools a weight on a
CPU (6 bytes for float32); with weights off the mask, two more numbers and another bool.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from sparse_core import SRSTE, Method, RigL, Structure, TopKAST, sparsify

METHODS: dict[str, Callable[[float, int], Method]] = {
    "rigl": lambda density, every: RigL(density, end=10**9, every=every),
    "top-kast": lambda density, every: TopKAST(density, every=every),
    "sr-ste": lambda density, every: SRSTE(density, every=every, structure=Structure(group=4)),
}


def training_step(size: int, batch: int, method: Method | None) -> Callable[[], None]:
    torch.manual_seed(0)
    layer = nn.Linear(size, size)
    optimizer = torch.optim.AdamW(layer.parameters(), 1e-3, fused=True)
    if method is not None:
        sparsify(layer, optimizer, method)
    x, upper = torch.randn(batch, size, requires_grad=True), torch.randn(batch, size)

    def run() -> None:
        layer(x).backward(upper)
        optimizer.step()
        optimizer.zero_grad()
        x.grad = None

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="inputs and outputs of the layer")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--method", choices=METHODS, default="rigl")
    parser.add_argument("--every", type=int, default=10**8, help="steps between updates; by default there are none")
    parser.add_argument("--pairs", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    method = METHODS[args.method](args.density, args.every)
    steps = [training_step(args.size, args.batch, None), training_step(args.size, args.batch, method)]
    for run in steps * 2:
        run()
    ratios = []
    for pair in range(args.pairs):
        times = {}
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            start = time.process_time()
            steps[which]()
            times[which] = time.process_time() - start
        ratios.append(times[1] / times[0])
    ratios.sort()
    print(
        f"training step {args.size} x {args.size}, batch {args.batch}, AdamW(fused), 1 thread, {args.method}, "
        f"density {args.density}"
    )
    print(f"  masked / dense: {statistics.median(ratios):.3f}   ({ratios[0]:.3f} to {ratios[-1]:.3f}, {args.pairs} pairs)")


if __name__ == "__main__":
    main()
