"""Many processes that train one model: who am I, what do we know together, and what is said when one of us is lost."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from evaluation.scoring import choose_device

T = TypeVar("T")
CPU = torch.device("cpu")
LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun (and whoever starts processes as it does) tells each of them."""


class RankLostError(OSError):
    """Another rank died, or did not answer in time; the message says how to go on."""


class NotReadyError(ValueError):
    """What some of the ranks cannot do; raised on all of them, so that none waits for another."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those that train together. Alone, every collective gives back what it was given."""

    rank: int = 0
    count: int = 1
    device: torch.device = CPU
    """Where tensors must be to be sent: the CPU for gloo, this rank's GPU for NCCL."""
    timeout_s: float = 0.0
    """How long a collective waits for the others."""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the files."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over ranks, in float64. A collective: all ranks call it with equally many values."""
        if self.count == 1:
            return list(values)
        numbers: list[float] = self.add_up(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()
        return numbers

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over ranks, in place. A collective."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def gathered(self, value: T) -> list[T]:
        """Every rank's value, in the order of ranks. A collective, by pickle: for rare and small things."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: T) -> T:
        """The first rank's value. A collective."""
        return self.gathered(value)[0]

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """A block that ends well on all ranks or on none: who fails says so to the others, else they would wait. A collective.

        Raises:
            NotReadyError: the block failed on some rank, by a ValueError or an OSError. Alone, that error itself.
        """
        if self.count == 1:
            yield
            return
        own: ValueError | OSError | None = None
        try:
            yield
        except (ValueError, OSError) as error:
            own = error
        failed = {rank: text for rank, text in enumerate(self.gathered("" if own is None else str(own))) if text}
        if len(failed) == self.count and len(set(failed.values())) == 1:
            raise NotReadyError(failed[0]) from own
        if failed:
            raise NotReadyError("; ".join(f"rank {rank} of {self.count}: {text}" for rank, text in failed.items())) from own

    def wrapped(self, model: nn.Module) -> DistributedDataParallel | None:
        """The model with gradients averaged over ranks; None for a process on its own, which needs no wrapper.

        Buffers are sent around once, at the start: after that batch norms keep in step by themselves, and nothing else changes.
        """
        if self.count == 1:
            return None
        return DistributedDataParallel(model, forward_sync_buffers=False)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Only the first rank prints inside the block. Warnings and errors of all are seen."""
        if self.is_first:
            yield
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield


ALONE = Ranks()


def started_by_launcher() -> bool:
    """Whether torchrun (or its like) started this process as one of several, or as the one of a group of one."""
    return all(name in os.environ for name in LAUNCHER_VARIABLES)


def restarted_by_launcher() -> bool:
    """Whether torchrun started these processes again after one of them died (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def local_device(name: str, local_rank: int) -> torch.device:
    """The device of one of several ranks on a machine: a GPU of its own, or the CPU.

    Raises:
        ValueError: a single GPU was asked for, or there are fewer GPUs than ranks.
    """
    device = choose_device(name)
    if device.type != "cuda":
        return device
    if device.index is not None:
        raise ValueError(f"--device {name}: several ranks cannot share one GPU; use --device cuda, which gives each its own")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"rank {local_rank} of this machine has no GPU, there are {torch.cuda.device_count()}: start as many processes as"
            " there are GPUs, or use --device cpu"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def process_group(device_name: str, timeout_s: float) -> Iterator[Ranks]:
    """Join the group that the launcher's environment describes: gloo on CPUs, NCCL on GPUs.

    Raises:
        ValueError: no device for this rank.
        RankLostError: the others did not come.
    """
    device = local_device(device_name, int(os.environ["LOCAL_RANK"]))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    expected = Ranks(rank=int(os.environ["RANK"]), count=int(os.environ["WORLD_SIZE"]), device=device, timeout_s=timeout_s)
    with naming_lost_ranks(expected, lambda: "at the start"):
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=datetime.timedelta(seconds=timeout_s))
    yield joined(device, timeout_s)
    # After an error the others may be gone, and there is nobody to say goodbye to.
    dist.destroy_process_group()


def joined(device: torch.device, timeout_s: float) -> Ranks:
    """This process in the group that exists already (Ray Train makes it)."""
    return Ranks(rank=dist.get_rank(), count=dist.get_world_size(), device=device, timeout_s=timeout_s)


def require_even_split(batch_size: int, num_ranks: int) -> None:
    """Refuse a batch that the ranks cannot share evenly.

    Raises:
        ValueError: names batch sizes and numbers of workers that would do.
    """
    if batch_size % num_ranks == 0:
        return
    larger = -(-batch_size // num_ranks) * num_ranks
    fewer = max(count for count in range(1, num_ranks) if batch_size % count == 0)
    raise ValueError(
        f"a batch of {batch_size} scenes (--batch-size counts all workers' scenes together) cannot be shared evenly by"
        f" {num_ranks} workers: use --batch-size {larger}, or {fewer} {'workers' if fewer > 1 else 'worker'}"
    )


@contextmanager
def naming_lost_ranks(ranks: Ranks, where: Callable[[], str]) -> Iterator[None]:
    """Say in words what a failed collective means.

    Args:
        ranks: of this process.
        where: how far the training is, for the message.

    Raises:
        RankLostError: a collective inside the block failed.
    """
    try:
        yield
    except RuntimeError as error:
        if ranks.count == 1 or not _is_of_the_group(error):
            raise
        raise RankLostError(
            f"rank {ranks.rank} of {ranks.count} lost the others {where()}: one of them died (its own error is in its output),"
            f" or did not answer within {ranks.timeout_s:g} s (--rank-timeout-s). Nothing saved is lost: start again with"
            f" --resume. The system says: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error


def _is_of_the_group(error: RuntimeError) -> bool:
    if isinstance(error, dist.DistError):
        return True
    # gloo's own errors come as plain RuntimeErrors.
    words = str(error).lower()
    return any(word in words for word in ("gloo", "nccl", "connection closed by peer", "connection reset", "broken pipe"))
