"""Two ranks of one gloo group, and what they say to each other."""

from __future__ import annotations

import collections
import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

RANKS = 2
COLLECTIVES = [
    "all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "all_to_all", "all_to_all_single", "barrier",
    "broadcast", "broadcast_object_list", "gather", "gather_object", "irecv", "isend", "recv", "reduce", "reduce_scatter",
    "reduce_scatter_tensor", "scatter", "scatter_object_list", "send",
]  # fmt: skip


@contextmanager
def counted_collectives() -> Iterator[collections.Counter[str]]:
    """Counts calls of torch.distributed's functions, and collectives of the process group however they were issued."""
    calls: collections.Counter[str] = collections.Counter()
    plain = {name: getattr(dist, name) for name in COLLECTIVES}

    def counting(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return plain[name](*args, **kwargs)

        return call

    group = dist.group.WORLD if dist.is_initialized() else None
    before = group._get_sequence_number_for_group() if group is not None else 0
    for name in COLLECTIVES:
        setattr(dist, name, counting(name))
    try:
        yield calls
    finally:
        for name, function in plain.items():
            setattr(dist, name, function)
        if group is not None:
            calls["in the group"] += group._get_sequence_number_for_group() - before


def on_ranks(main: Callable[[int, str], None], folder: Path, limit_s: float = 240) -> list[Any]:
    """What `main(rank, folder)` saved as `{rank}.pt` on each of two ranks of one gloo group."""
    started = torch.multiprocessing.start_processes(
        in_group, (main, str(folder)), nprocs=RANKS, join=False, start_method="spawn"
    )
    end = time.monotonic() + limit_s
    try:
        while not started.join(timeout=5):  # raises what a rank raised
            assert time.monotonic() < end, "the ranks did not end"
    finally:
        for process in started.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def in_group(rank: int, main: Callable[[int, str], None], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=60),
    )
    main(rank, folder)
    # Who leaves closes connections, which another rank may take for a failure while it is still in its last collective.
    (Path(folder) / f"{rank}.done").touch()
    while not all((Path(folder) / f"{other}.done").exists() for other in range(RANKS)):
        time.sleep(0.01)
    dist.destroy_process_group()
