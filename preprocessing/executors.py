"""Where shards are made: in this process, or as Ray tasks. Both run `attempt_shard` and give the same files."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from importlib import import_module
from itertools import islice
from typing import Any

from preprocessing.preprocess_task import ShardFailure, ShardResult, ShardTask, attempt_shard

OBJECT_STORE_BYTES = 128 * 2**20
"""Only tasks and counts travel through Ray's object store; its default would take a third of the memory."""
MAX_RETRIES = 2
"""Of a task whose worker died; errors of the task itself come back as values."""


def run_in_process(tasks: Sequence[ShardTask]) -> Generator[ShardResult | ShardFailure, None, None]:
    """One shard after the other."""
    for task in tasks:
        yield attempt_shard(task)


def run_on_ray(
    tasks: Sequence[ShardTask], *, address: str | None, workers: int | None
) -> Generator[ShardResult | ShardFailure, None, None]:
    """One Ray task per shard, in the order in which they finish; at most two per CPU are in flight.

    Args:
        tasks: shards to make; their paths must be seen by every machine of the cluster.
        address: of a running Ray; None starts one on this machine for as long as this runs.
        workers: CPUs of that local Ray; None: all.

    Raises:
        ConnectionError: there is no Ray at `address`.
    """
    if not tasks:
        return
    # Ray's own types are partly missing.
    if address is None:
        # Without this, Ray of our own writes a token into the home folder, and dies where that cannot be written.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray: Any = import_module("ray")
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(
            address=address or "local",  # "local" even where RAY_ADDRESS points to a cluster that nobody asked for here
            num_cpus=None if address else min(workers or os.cpu_count() or 1, len(tasks)),
            object_store_memory=None if address else OBJECT_STORE_BYTES,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="error",
        )
    try:
        window = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        remote = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(attempt_shard)
        waiting = iter(tasks)
        in_flight = {remote.remote(task): task for task in islice(waiting, window)}
        try:
            while in_flight:
                finished, _ = ray.wait(list(in_flight), num_returns=1)
                task = in_flight.pop(finished[0])
                try:
                    outcome = ray.get(finished[0])
                except ray.exceptions.RayError as error:
                    outcome = ShardFailure(task=task, error=f"its worker died {MAX_RETRIES + 1} times: {error}")
                in_flight |= {remote.remote(following): following for following in islice(waiting, 1)}
                yield outcome
        finally:
            # An interrupted run leaves no task writing behind its back.
            for reference in in_flight:
                ray.cancel(reference, force=True)
    finally:
        if started_here:
            ray.shutdown()
