"""A structure on the rows of a weight that a rank holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_core.shard import Shard
from sparse_core.structure import Channel, Grid, Kernel, Weight


@dataclass(frozen=True, eq=False)
class ShardGrid(Grid):
    """The grid of the rows that are here. What it says of units and groups holds for them, but `room`.

    Attributes:
        units_each: units per group here; a group of the whole tensor has others elsewhere.
        spread: whether the units are counted over all ranks: one group, of which each rank has a part.
        whole_room: allowed units of the whole weight.
    """

    units_each: int
    spread: bool
    whole_room: int

    @property
    def units(self) -> int:
        """See `units_each`: rows that are not here cannot be divided by."""
        return self.units_each

    def room(self) -> list[int]:
        """Allowed units of each group: of the whole weight, where they are counted over all ranks."""
        return [self.whole_room] if self.spread else super().room()

    def members_of(self, tensor: Tensor) -> Tensor:
        """A tensor of the shape that is here as (groups, units, members)."""
        if tensor.numel() == 0:
            return tensor.new_empty(self.groups, self.units, self.members)
        return super().members_of(tensor)


def grid_of_shard(name: str, grid: Grid, shard: Shard) -> ShardGrid:
    """The part of a weight's grid that belongs to the rows that are here.

    Raises:
        ValueError: units or groups that rows on different ranks belong to.
    """
    rows, columns = grid.grid
    by_row = isinstance(grid.unit, Weight | Kernel) and rows == shard.shape[0]
    by_channel = grid.unit == Channel(0) and rows == 1
    in_rows = by_row and grid.groups % rows == 0
    if not (by_row or by_channel) or not (grid.groups == 1 or in_rows):
        raise ValueError(
            f"{name}: this rank has rows {shard.start} to {shard.start + shard.rows} of {shard.shape[0]}, and {grid.unit} in "
            f"{grid.groups} groups would join rows of different ranks. Under fully_shard, units may be weights, kernels or "
            "output channels, counted over the tensor; weights and kernels also in every row or among neighbours in it (N:M)"
        )
    spread = grid.groups == 1
    here = (shard.rows, columns) if by_row else (1, shard.rows)
    groups = 1 if spread else grid.groups // rows * shard.rows
    units = here[0] * here[1] if spread else grid.units
    bare = ShardGrid(
        grid.unit,
        grid.inputs_last,
        grid.pool,
        shard.local_shape,
        here,
        groups,
        grid.members,
        None,
        units,
        spread,
        sum(grid.room()),
    )
    if grid.allowed is None:
        return bare
    region = shard.of(grid.mask_of(grid.allowed))
    allowed = bare.units_of(region).to(torch.bool)
    return ShardGrid(
        bare.unit, bare.inputs_last, bare.pool, bare.shape, here, groups, bare.members, allowed, units, spread, bare.whole_room
    )
