"""One mask update (drop 30 % by magnitude, grow as many by gradient) against the ways of other engines, as ratios in one run.

    OMP_NUM_THREADS=1 python benchmarks/mask_update.py [--size 2048] [--density 0.1]

Baselines, written plainly as other engines do it: two full-length `topk` (the RigL line) and two full sorts (the ITOP line).
Ours is the engine's own planning of an update, scores and checks included, and the writing of the new mask. All give the same
mask, which is checked. Times are CPU seconds of the process, one thread; all take turns, the ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from turns import cpu_seconds, spread

from sparse_core import RigL, sparsify
from sparse_core.layer import LayerInput, Moment
from sparse_core.update import plan

RATE = 0.3


def by_full_topk(weight: Tensor, gradient: Tensor, mask: Tensor) -> Tensor:
    size, active = weight.numel(), int(mask.sum())
    dropped = int(RATE * active)
    worth = torch.where(mask, weight.abs(), -1.0).view(-1)
    _, order = torch.topk(worth, size)
    new = torch.zeros(size)
    new[order[: active - dropped]] = 1.0
    worth = torch.where(new > 0, -1.0, gradient.abs().view(-1))
    _, order = torch.topk(worth, size)
    new[order[:dropped]] = 1.0
    return (new > 0).view_as(mask)


def by_full_sort(weight: Tensor, gradient: Tensor, mask: Tensor) -> Tensor:
    active = int(mask.sum().item())
    dropped = int(RATE * active)
    _, order = torch.sort((weight * mask).abs().view(-1))
    new = mask.view(-1).float().clone()
    new[order[: mask.numel() - active + dropped]] = 0.0
    worth = gradient.abs().view(-1) * (new == 0).float()
    _, order = torch.sort(worth, descending=True)
    new[order[:dropped]] = 1.0
    return (new > 0).view_as(mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="rows and columns of the weight")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Linear(args.size, args.size, bias=False)
    method = RigL(density=args.density, end=1000, every=100, rate=RATE)
    engine = sparsify(model, torch.optim.SGD(model.parameters(), 0.1), method)
    layer = engine._layers[0]
    weight, gradient, mask = model.weight.detach(), torch.randn(args.size, args.size), layer.mask
    moment = Moment(step=100, update=1, seed=0, rate=RATE, density=None)
    spare = mask.clone()

    def ours() -> Tensor:
        new = plan([layer], [LayerInput(weight, gradient, {}, {})], method, moment)[0].mask
        return spare.copy_(new)

    ways: dict[str, Callable[[], Tensor]] = {
        "full-length topk, twice": lambda: by_full_topk(weight, gradient, mask),
        "full sort, twice": lambda: by_full_sort(weight, gradient, mask),
        "sparse_core": ours,
    }
    with torch.no_grad():
        expected = ours().clone()
        for name, way in ways.items():
            assert torch.equal(way(), expected), f"{name} gives another mask"
        times = cpu_seconds(ways, args.rounds)
    print(f"mask update {args.size} x {args.size}, density {args.density}, drop {RATE:.0%}, 1 thread")
    for name in list(ways)[:2]:
        middle, low, high = spread(times[name], times["sparse_core"])
        print(f"  {name:<24} {middle:6.1f}x the time of sparse_core   ({low:.1f} to {high:.1f})")
    print("  the masks are the same")


if __name__ == "__main__":
    main()
