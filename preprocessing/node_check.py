"""Before the start: whether the machines of a Ray cluster can make these shards: same versions, same folders."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from preprocessing.node_stamp import differences, node_stamp
from preprocessing.output_lock import LockLostError, require_held
from preprocessing.preprocess_task import ShardTask

ANSWER_LIMIT_S = 120.0
"""For all machines together; a first worker on a busy machine takes 5 to 30 s to start."""
REMEDY = (
    "every machine needs the same versions (`pip install -c constraints.txt .` from the same sources, then its Ray anew) "
    "and the same folders under the same paths; or take the machine out (`ray stop` there)"
)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster."""

    node_id: str
    address: str
    host: str
    cpus: float
    memory_bytes: float

    def __str__(self) -> str:
        return f"node {self.address} ({self.host}, {self.node_id[:8]})"


def live_nodes(ray: Any) -> list[Node]:
    """The machines that are alive and have a CPU for tasks."""
    return [
        Node(
            node_id=item["NodeID"],
            address=item["NodeManagerAddress"],
            host=item["NodeManagerHostname"],
            cpus=item["Resources"]["CPU"],
            memory_bytes=item["Resources"].get("memory", 0.0),
        )
        for item in ray.nodes()
        if item["Alive"] and item["Resources"].get("CPU", 0) >= 1
    ]


def require_same(expected: Mapping[str, str]) -> None:
    """Return if this machine has the versions of the one that started the run.

    Raises:
        ValueError: it has others; the message names machine and versions.
    """
    different = differences(node_stamp(), expected)
    if different:
        raise ValueError(f"{socket.gethostname()} has other versions than the machine of this run ({different}); {REMEDY}")


def look_from_here(task: ShardTask, expected: Mapping[str, str]) -> str:
    """Run on every machine: what is wrong with making this shard there; empty if nothing is."""
    try:
        require_same(expected)
        if not task.source.parent.is_dir():
            return f"does not see the input folder {task.source.parent}"
        if task.lidar is not None and not task.lidar.is_dir():
            return f"does not see the LiDAR folder {task.lidar}"
        require_held(task.out, task.lock)
        trial = task.out / f".trial.tmp.{secrets.token_hex(4)}"
        trial.touch()
        trial.unlink()
    except LockLostError:
        return f"does not see the output folder {task.out} of this run (the path is missing there, or another folder)"
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def check_nodes(ray: Any, nodes: Sequence[Node], tasks: Sequence[ShardTask]) -> None:
    """Return if every machine can make these shards.

    Raises:
        ValueError: some cannot; the message names each with the reason and the remedy.
    """
    strategy = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    remote = ray.remote(num_cpus=0, max_retries=0)(look_from_here)
    asked = {
        remote.options(scheduling_strategy=strategy(node_id=node.node_id, soft=False)).remote(tasks[0], node_stamp()): node
        for node in nodes
    }
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_LIMIT_S)
    problems = []
    for reference, node in asked.items():
        problem = _answer(ray, reference) if reference in ready else f"did not answer within {ANSWER_LIMIT_S:g} s"
        if problem and node in live_nodes(ray):  # a machine that has left is no trouble
            problems.append(f"{node}: {problem}")
    if problems:
        raise ValueError(f"{len(problems)} of {len(nodes)} machines cannot make these shards: {'; '.join(problems)}. {REMEDY}")


def _answer(ray: Any, reference: Any) -> str:
    try:
        return str(ray.get(reference))
    except ray.exceptions.RayError as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"cannot run limtr ({said[-1] if said else type(error).__name__})"
