"""What a rank holds of a weight under FSDP2 (`torch.distributed.fsdp.fully_shard`): some of its rows."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparse_core.structure import Shape


def is_sharded(tensor: Tensor | None) -> bool:
    """Whether a tensor is a DTensor. Nothing is imported for it: without the module there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def refuse_sharded(name: str, tensor: Tensor) -> None:
    """Raise ValueError for a weight of which ranks have some rows each, for functions that want it whole."""
    if is_sharded(tensor):
        raise ValueError(
            f"{name} is sharded (FSDP2), and this wants whole weights and masks: call it in one process, with the full state "
            "of the model and with `masks.whole(engine)` as masks"
        )


def local(tensor: Any) -> Any:
    """The part of a DTensor that this rank holds, over the same memory; anything else as it is."""
    return tensor.detach().to_local() if is_sharded(tensor) else tensor


@dataclass(frozen=True, eq=False)
class Shard:
    """Rows `start` to `start + rows` of a weight, and the ranks that hold the others.

    Attributes:
        shape: of the whole weight.
        start: the first row that is here.
        rows: how many are here; 0 for a rank that got none.
        rank: this rank among those that share the weight, in the order of the rows.
        ranks: how many they are.
        mesh: the device mesh over which the weight is cut.
    """

    shape: Shape
    start: int
    rows: int
    rank: int
    ranks: int
    mesh: Any

    @property
    def local_shape(self) -> Shape:
        """The shape of what is here."""
        return (self.rows, *self.shape[1:])

    @property
    def offset(self) -> int:
        """The flat position of the first weight that is here in the whole weight."""
        return self.start * math.prod(self.shape[1:])

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks; every rank must call it."""
        total = tensor.clone()
        torch.distributed.all_reduce(total, group=self.mesh.get_group())
        return total

    def largest(self, tensor: Tensor) -> Tensor:
        """The largest over the ranks, number by number; every rank must call it."""
        found = tensor.clone()
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=self.mesh.get_group())
        return found

    def agree(self, numbers: Sequence[int]) -> bool:
        """Whether these whole numbers are the same on every rank; every rank must call it, and waits for the others."""
        mine = torch.tensor(numbers, dtype=torch.int64)
        both = self.largest(torch.cat([mine, -mine]).to(self.mesh.device_type)).cpu()
        return torch.equal(both[: len(numbers)], -both[len(numbers) :])

    def check_gradient(self, name: str, parameter: nn.Parameter, gradient: Any) -> None:
        """Raise RuntimeError for a gradient that is cut in another way than its weight, or waits to be summed."""
        wanted, found = getattr(parameter, "placements", None), getattr(gradient, "placements", None)
        if wanted != found:
            raise RuntimeError(
                f"{name}: the gradient is placed as {found}, the weight as {wanted}; redistribute it before step()"
            )

    def of(self, whole: Tensor) -> Tensor:
        """The rows of a tensor of the whole weight's shape that are here."""
        return whole[self.start : self.start + self.rows]

    def gathered(self, part: Tensor) -> Tensor:
        """The whole tensor of which every rank gives the part of its rows; every rank must call it, and gets it."""
        from torch.distributed.tensor import DTensor
        from torch.distributed.tensor import Shard as Placement

        carried = part.to(torch.uint8) if part.dtype == torch.bool else part
        shape = torch.Size((self.shape[0], *part.shape[1:]))
        stride = torch.empty(shape, device="meta").stride()
        placed = DTensor.from_local(
            carried.contiguous(), self.mesh, [Placement(0)], run_check=False, shape=shape, stride=stride
        )
        return placed.full_tensor().to(part.dtype)


def shard_of(name: str, parameter: nn.Parameter) -> Shard | None:
    """What this rank holds of a parameter; None for a plain one. Every rank must call it for the same parameters.

    Raises:
        ValueError: a DTensor that is not cut along its first axis over a mesh of one axis.
    """
    if not is_sharded(parameter):
        return None
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor import Shard as Placement

    assert isinstance(parameter, DTensor)
    mesh, placements = parameter.device_mesh, parameter.placements
    if mesh.ndim != 1 or tuple(placements) != (Placement(0),):
        raise ValueError(
            f"{name}: it is a DTensor placed as {tuple(placements)} on a mesh of shape {tuple(mesh.shape)}; sparse training "
            "wants whole rows on one axis of ranks: call fully_shard with a mesh of one axis and no shard_placement_fn, or "
            "exclude this weight"
        )
    part = local(parameter)
    rank, ranks = int(mesh.get_local_rank()), int(mesh.size())
    rows = torch.zeros(ranks, dtype=torch.int64, device=part.device)
    rows[rank] = part.shape[0]
    torch.distributed.all_reduce(rows, group=mesh.get_group())
    before: Any = rows.tolist()
    if sum(before) != parameter.shape[0]:
        raise ValueError(f"{name}: the ranks hold {before} rows, the weight has {parameter.shape[0]}")
    return Shard(tuple(parameter.shape), sum(before[:rank]), before[rank], rank, ranks, mesh)
