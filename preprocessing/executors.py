"""Where shards are made: in this process, or as Ray tasks. Both run `attempt_shard` and give the same files."""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Generator, Sequence
from dataclasses import replace

from preprocessing.preprocess_task import ShardFailure, ShardResult, ShardTask, attempt_shard


def run_in_process(tasks: Sequence[ShardTask]) -> Generator[ShardResult | ShardFailure, None, None]:
    """One shard after the other."""
    for task in tasks:
        yield measured(task)


def measured(task: ShardTask) -> ShardResult | ShardFailure:
    """`attempt_shard`, with the machine and the memory in its result."""
    outcome = attempt_shard(task)
    if isinstance(outcome, ShardFailure):
        return outcome
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return replace(outcome, node=socket.gethostname(), peak_memory_bytes=peak)
