"""An update of CHT and CHTs (growth by paths of length three) against one of RigL, and its score against float32, as ratios.

    OMP_NUM_THREADS=1 python benchmarks/network_update.py [--size 2048] [--density 0.1]

The float32 score is written plainly, as its authors compute it; ours is exact in float64, which gives every device the same.
Times are CPU seconds of the process, one thread; all take turns, ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from turns import cpu_seconds, spread

from sparse_core import CHT, CHTs, Method, RigL, sparsify
from sparse_core.layer import LayerInput, Moment
from sparse_core.network_scores import ch3_l3
from sparse_core.scores import Context
from sparse_core.update import plan


def in_float32(links: Tensor) -> Tensor:
    one = links.float()

    def half(links: Tensor) -> Tensor:
        shared = links @ links.T
        external = (links.sum(dim=1) - shared - 1).clamp(min=0)
        return ((shared != 0) / (external + 1)) @ links

    return (half(one) + half(one.T).T) * (one == 0)


def update(method: Method, size: int) -> Callable[[], object]:
    model = nn.Linear(size, size, bias=False)
    [layer] = sparsify(model, torch.optim.SGD(model.parameters(), 0.1), method)._layers
    given = LayerInput(model.weight.detach(), torch.randn(size, size), {}, {})
    moment = Moment(step=100, update=1, seed=0, rate=0.3, density=None)
    return lambda: plan([layer], [given], method, moment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="rows and columns of the weight")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    links, nothing = torch.rand(args.size, args.size) < args.density, torch.zeros(args.size, args.size)
    ways: dict[str, Callable[[], object]] = {
        "RigL": update(RigL(args.density, 1000), args.size),
        "CHT": update(CHT(args.density, 1000, 100), args.size),
        "CHTs": update(CHTs(args.density, 1000, 100), args.size),
        "float32 score": lambda: in_float32(links),
        "our score": lambda: ch3_l3(nothing, None, Context("weight", links)),
    }
    with torch.no_grad():
        torch.testing.assert_close(in_float32(links).double(), ways["our score"](), rtol=1e-4, atol=1e-4)
        times = cpu_seconds(ways, args.rounds)
    print(f"update {args.size} x {args.size}, density {args.density}, drop 30 %, 1 thread")
    for name, baseline in (("CHT", "RigL"), ("CHTs", "RigL"), ("our score", "float32 score")):
        middle, low, high = spread(times[name], times[baseline])
        print(f"  {name:<10} {middle:6.1f}x the time of {baseline} ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
