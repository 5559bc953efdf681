"""What an update costs a rank of two that share a layer under FSDP2, over what it costs one process that has it whole.

    python -m benchmarks.sharded_update

CPU time on one thread, the least of seven updates of a 2048 x 2048 layer in float32 that drop 30 %; two ranks with gloo. Each
rank has half of the rows: 0.5 would be its share.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn
from torch.distributed.fsdp import fully_shard

import sparse_core
from sparse_core import Method, Structure

SIZE, RANKS, UPDATES = 2048, 2, 7
NEVER = 10**6  # updates are asked for
METHODS: dict[str, Method] = {
    "RigL": sparse_core.RigL(0.1, end=NEVER, every=NEVER),
    "SET": sparse_core.SET(0.1, end=NEVER, every=NEVER),
    "RigL, constant fan-in": sparse_core.RigL(0.1, end=NEVER, every=NEVER, structure=Structure(group="row")),
    "RigL, 2:4": sparse_core.RigL(0.5, end=NEVER, every=NEVER, structure=Structure(group=4)),
}


def cpu_s(method: Method, sharded: bool) -> float:
    """Least CPU seconds of a step with an update."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(SIZE, SIZE, bias=False))
    if sharded:
        fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    engine = sparse_core.sparsify(model, optimizer, method)
    times = []
    for _ in range(UPDATES):
        optimizer.zero_grad()
        engine.update(0.3)
        model(torch.randn(32, SIZE)).square().mean().backward()
        start = time.process_time()
        optimizer.step()
        times.append(time.process_time() - start)
    return min(times)


def rank_main(rank: int, folder: str) -> None:
    """One of the ranks, on one thread."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    torch.save({name: cpu_s(method, sharded=True) for name, method in METHODS.items()}, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Print a line for each method."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(rank_main, args=(folder,), nprocs=RANKS, start_method="spawn")
        found = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    print("| method | CPU time of a rank over that of one process |\n|---|---|")
    for name, method in METHODS.items():
        alone = cpu_s(method, sharded=False)
        print(f"| {name} | {' and '.join(f'{one[name] / alone:.2f}' for one in found)} |", flush=True)


if __name__ == "__main__":
    main()
