"""Shards as Ray tasks, on this machine or on a cluster whose machines share the folders.

One task per shard, tried again where its worker or its machine dies; a bounded number in flight. Only tasks (paths, settings)
and results (counts) travel through Ray: scenes go from file to file.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from preprocessing.executors import measured
from preprocessing.node_check import Node, check_nodes, live_nodes, require_same
from preprocessing.node_stamp import node_stamp
from preprocessing.preprocess_task import ShardFailure, ShardResult, ShardTask
from preprocessing.ray_address import require_ray

OBJECT_STORE_BYTES = 128 * 2**20
"""Of Ray on this machine alone; its default would take a third of the memory."""
MAX_RETRIES = 3
"""Of a task whose worker or machine died; errors of the task itself come back as values."""
SHARDS_PER_WORKER = 16
"""Then a worker process gives way to a new one, so that its memory cannot grow for ever."""
TICK_S = 5.0
"""How often is looked at the cluster while nothing finishes."""
NO_NODE_LIMIT_S = 300.0
"""How long a run waits for a machine while there is none."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a run sees of the cluster just now."""

    nodes: int
    """Machines with room for at least one worker."""
    slots: int
    """Workers that fit, by CPUs and by memory."""
    in_flight: int
    """Shards that are being made or are next."""


def run_on_ray(
    tasks: Sequence[ShardTask],
    *,
    address: str | None,
    workers: int | None,
    memory_bytes: int = 2**30,
    look: Callable[[Cluster], None] = lambda cluster: None,
    no_node_limit_s: float = NO_NODE_LIMIT_S,
) -> Generator[ShardResult | ShardFailure, None, None]:
    """One Ray task per shard, in the order in which they finish; at most two per worker are in flight.

    Args:
        tasks: shards to make; their paths must be seen by every machine of the cluster.
        address: of a running Ray; None starts one on this machine for as long as this runs.
        workers: CPUs of that local Ray; None: all.
        memory_bytes: memory that Ray sets aside on a machine for each worker there.
        look: called every few seconds.
        no_node_limit_s: how long to wait while no machine has room for a worker.

    Raises:
        ConnectionError: there is no Ray at `address`, or no machine with room for a worker.
        ValueError: a machine has another version of something, or does not see the folders; the message names it.
    """
    if not tasks:
        return
    with _ray(address, workers=min(workers or os.cpu_count() or 1, len(tasks))) as ray:
        slots = _slots(live_nodes(ray), memory_bytes)
        if not any(slots.values()):
            raise ConnectionError(_no_room(live_nodes(ray), memory_bytes))
        if address is not None:
            check_nodes(ray, [node for node in slots if slots[node]], tasks)
        options = {"num_cpus": 1, "memory": memory_bytes, "max_retries": MAX_RETRIES, "max_calls": SHARDS_PER_WORKER}
        remote = ray.remote(**options)(_make_shard)
        waiting = deque(tasks)
        in_flight: dict[Any, ShardTask] = {}
        seen = looked = time.monotonic()
        try:
            while waiting or in_flight:
                while waiting and len(in_flight) < 2 * sum(slots.values()):
                    task = waiting.popleft()
                    in_flight[remote.remote(task, node_stamp())] = task
                if in_flight:
                    finished, _ = ray.wait(list(in_flight), num_returns=1, timeout=TICK_S)
                    for reference in finished:
                        yield _outcome(ray, reference, in_flight.pop(reference))
                else:
                    time.sleep(TICK_S)
                now = time.monotonic()
                if now - looked >= TICK_S:
                    slots, looked = _slots(live_nodes(ray), memory_bytes), now
                    seen = now if any(slots.values()) else seen
                    look(Cluster(nodes=sum(map(bool, slots.values())), slots=sum(slots.values()), in_flight=len(in_flight)))
                    if now - seen > no_node_limit_s:
                        raise ConnectionError(f"for {no_node_limit_s:g} s, {_no_room(live_nodes(ray), memory_bytes)}")
        finally:
            # An interrupted run leaves no task writing behind its back.
            for reference in in_flight:
                ray.cancel(reference, force=True)
            if in_flight:
                ray.wait(list(in_flight), num_returns=len(in_flight), timeout=TICK_S)


def _make_shard(task: ShardTask, expected: Mapping[str, str]) -> ShardResult | ShardFailure:
    """What a worker does; a machine may have joined after the others were looked at."""
    require_same(expected)
    return measured(task)


def _outcome(ray: Any, reference: Any, task: ShardTask) -> ShardResult | ShardFailure:
    try:
        outcome: ShardResult | ShardFailure = ray.get(reference)
        return outcome
    except ray.exceptions.RayTaskError as error:
        # Not of the shard: those come back as values. No other shard would fare better there.
        raise ConnectionError(f"a machine of the cluster cannot make shards: {error.cause or error}") from error
    except ray.exceptions.RayError as error:
        return ShardFailure(task=task, error=f"its worker died {MAX_RETRIES + 1} times: {error}")


def _slots(nodes: Sequence[Node], memory_bytes: int) -> dict[Node, int]:
    return {node: int(min(node.cpus, node.memory_bytes // memory_bytes)) for node in nodes}


def _no_room(nodes: Sequence[Node], memory_bytes: int) -> str:
    seen = "; ".join(f"{node}: {node.cpus:g} CPUs, {node.memory_bytes / 2**30:.1f} GiB" for node in nodes) or "none is alive"
    return (
        f"no machine of the Ray cluster has room for a worker of 1 CPU and {memory_bytes / 2**30:g} GiB ({seen}); "
        "add a machine (`ray start --address=...`), lower --memory-gib, or use --executor local"
    )


@contextmanager
def _ray(address: str | None, *, workers: int) -> Iterator[Any]:
    """Ray's module, connected; a Ray that this process has already is used and left running."""
    if address is None:
        # Without this, Ray of our own writes a token into the home folder, and dies where that cannot be written.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray: Any = import_module("ray")  # its own types are partly missing
    if ray.is_initialized():
        yield ray
        return
    if address is not None:
        require_ray(address)
    ray.init(
        address=address or "local",  # "local" even where RAY_ADDRESS points to a cluster that nobody asked for here
        num_cpus=None if address else workers,
        object_store_memory=None if address else OBJECT_STORE_BYTES,
        include_dashboard=None if address else False,
        log_to_driver=False,
        logging_level="error",
    )
    try:
        yield ray
    finally:
        ray.shutdown()
