"""What `compile_sparse` decides for an MLP of three 4096 x 4096 layers, by the densities of its masks.

    OMP_NUM_THREADS=1 python benchmarks/compile_sparse.py [--features 4096] [--tokens 128]

Expected on one thread: every layer sparse at density 0.05, none at 0.5. Prints the decision tables, and the ratio of the times
of the whole model before and after, measured in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from sparse_core.sparse import compile_sparse

PAIRS = 9


def masked_mlp(features: int, density: float) -> tuple[nn.Sequential, dict[str, Tensor]]:
    """Three layers whose weights are zero outside of random masks, and the masks."""
    model = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, features), nn.ReLU())
    model.append(nn.Linear(features, features))
    masks = {name: torch.rand(p.shape) < density for name, p in model.named_parameters() if p.dim() == 2}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    return model, masks


@torch.no_grad()
def model_ratio(before: nn.Module, after: nn.Module, x: Tensor) -> float:
    """Median over pairs of the CPU time of one model over that of the other."""
    ratios = []
    for pair in range(PAIRS + 1):
        times = {}
        for model in (before, after)[:: 1 if pair % 2 == 0 else -1]:
            start = time.process_time()
            model(x)
            times[model] = time.process_time() - start
        ratios.append(times[before] / times[after])
    return statistics.median(ratios[1:])  # the first pair warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=4096, help="inputs and outputs of every layer")
    parser.add_argument("--tokens", type=int, default=128, help="rows of the input")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"MLP of 3 layers, {args.features} wide, {args.tokens} tokens, float32, 1 thread, torch {torch.__version__}")
    x = torch.randn(args.tokens, args.features)
    for density in (0.5, 0.2, 0.1, 0.05):
        model, masks = masked_mlp(args.features, density)
        compiled = compile_sparse(model, SimpleNamespace(masks=masks), x)
        error = (compiled(x) - model(x)).abs().max() / model(x).abs().max()
        print(f"\n{compiled}")
        print(
            f"whole model: {model_ratio(model, compiled.model, x):.2f} times faster, outputs differ by {error:.1e}", flush=True
        )


if __name__ == "__main__":
    main()
