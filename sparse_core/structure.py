"""Which weights live and die together, where their number is fixed, and where links may exist at all.

A weight is laid out as a grid of units, (rows, columns, members of a unit); groups are equal runs of that grid. Selection
then sees (groups, units) scores, whatever the structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

Shape = tuple[int, ...]


class Unit(Protocol):
    """How a tensor becomes a grid of units and back. Both must be views or permutations: every entry once."""

    def arrange(self, tensor: Tensor, inputs_last: bool) -> Tensor:
        """A tensor of the weight's shape as (rows, columns, members). `inputs_last`: neighbours in a row are neighbouring
        inputs, as N:M wants. Raises ValueError for a shape that the unit does not fit."""
        ...

    def restore(self, grid: Tensor, shape: Shape, inputs_last: bool) -> Tensor:
        """The inverse of `arrange`."""
        ...


@dataclass(frozen=True)
class Weight:
    """Each weight by itself. Rows are outputs, columns are inputs (with the taps of a convolution)."""

    def arrange(self, tensor: Tensor, inputs_last: bool) -> Tensor:
        """See `Unit`."""
        if inputs_last and tensor.dim() > 2:
            tensor = tensor.movedim(1, -1)
        return tensor.reshape(tensor.shape[0], -1, 1)

    def restore(self, grid: Tensor, shape: Shape, inputs_last: bool) -> Tensor:
        """See `Unit`."""
        if inputs_last and len(shape) > 2:
            return grid.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)
        return grid.reshape(shape)


@dataclass(frozen=True)
class Block:
    """Rectangles of `height` outputs by `width` inputs (with the taps of a convolution)."""

    height: int
    width: int

    def arrange(self, tensor: Tensor, inputs_last: bool) -> Tensor:
        """See `Unit`."""
        flat = tensor.reshape(tensor.shape[0], -1)
        rows, columns = flat.shape
        if rows % self.height or columns % self.width:
            raise ValueError(f"blocks of {self.height} x {self.width} do not tile {rows} x {columns} weights")
        tiles = flat.reshape(rows // self.height, self.height, columns // self.width, self.width)
        return tiles.permute(0, 2, 1, 3).reshape(rows // self.height, columns // self.width, self.height * self.width)

    def restore(self, grid: Tensor, shape: Shape, inputs_last: bool) -> Tensor:
        """See `Unit`."""
        tiles = grid.reshape(grid.shape[0], grid.shape[1], self.height, self.width)
        return tiles.permute(0, 2, 1, 3).reshape(shape)


@dataclass(frozen=True)
class Kernel:
    """All taps between one output and one input channel of a convolution (E2ENet's unit)."""

    def arrange(self, tensor: Tensor, inputs_last: bool) -> Tensor:
        """See `Unit`."""
        return tensor.reshape(tensor.shape[0], tensor.shape[1], -1)

    def restore(self, grid: Tensor, shape: Shape, inputs_last: bool) -> Tensor:
        """See `Unit`."""
        return grid.reshape(shape)


@dataclass(frozen=True)
class Channel:
    """A whole output channel (`axis` 0) or input channel (`axis` 1)."""

    axis: int = 0

    def arrange(self, tensor: Tensor, inputs_last: bool) -> Tensor:
        """See `Unit`."""
        members = tensor.movedim(self.axis, 0).reshape(1, tensor.shape[self.axis], -1)
        return members

    def restore(self, grid: Tensor, shape: Shape, inputs_last: bool) -> Tensor:
        """See `Unit`."""
        others = [size for axis, size in enumerate(shape) if axis != self.axis]
        return grid.reshape(shape[self.axis], *others).movedim(0, self.axis)


@dataclass(frozen=True)
class Diagonal:
    """Wrapped diagonals of a matrix: the longer side counts them, the shorter side is their length."""

    def arrange(self, tensor: Tensor, inputs_last: bool) -> Tensor:
        """See `Unit`."""
        index = self._index(tuple(tensor.shape), tensor.device)
        return tensor.reshape(-1)[index].unsqueeze(0)

    def restore(self, grid: Tensor, shape: Shape, inputs_last: bool) -> Tensor:
        """See `Unit`."""
        index = self._index(shape, grid.device)
        flat = torch.empty(math.prod(shape), dtype=grid.dtype, device=grid.device)
        return flat.scatter_(0, index.reshape(-1), grid.reshape(-1)).reshape(shape)

    def _index(self, shape: Shape, device: torch.device) -> Tensor:
        rows, columns = shape[0], math.prod(shape[1:])
        offset = torch.arange(max(rows, columns), device=device).unsqueeze(1)
        along = torch.arange(min(rows, columns), device=device).unsqueeze(0)
        if rows <= columns:
            return along * columns + (along + offset) % columns
        return (along + offset) % rows * columns + along


@dataclass(frozen=True)
class Group:
    """Where the number of active units is fixed: `groups(rows, columns)` equal runs of the grid in reading order."""

    name: str
    groups: Callable[[int, int], int] = field(repr=False, compare=False)
    inputs_last: bool = False
    same_everywhere: bool = False
    """Whether every layer should have the same density: N:M means N everywhere."""


def whole_tensor() -> Group:
    """One count for the tensor."""
    return Group("tensor", lambda rows, columns: 1)


def each_row() -> Group:
    """The same count for every output: constant fan-in (SRigL)."""
    return Group("row", lambda rows, columns: rows)


def neighbours(size: int) -> Group:
    """A count for every `size` neighbouring inputs: N:M sparsity with M = `size`."""

    def groups(rows: int, columns: int) -> int:
        if columns % size:
            raise ValueError(f"{columns} inputs cannot be cut into groups of {size}")
        return rows * (columns // size)

    return Group(f"{size} neighbours", groups, inputs_last=True, same_everywhere=True)


def output_groups(number: int) -> Group:
    """A count for each of `number` equal runs of outputs (DSN's groups with their own regions)."""

    def groups(rows: int, columns: int) -> int:
        if rows % number:
            raise ValueError(f"{rows} outputs cannot be cut into {number} equal groups")
        return number

    return Group(f"{number} output groups", groups)


Region = Callable[[str, Shape], Tensor | None] | Mapping[str, Tensor]
"""Where links may exist: a function of (name, shape), or masks by name pattern. None = everywhere."""

_UNITS: dict[str, Unit] = {
    "weight": Weight(),
    "kernel": Kernel(),
    "channel": Channel(0),
    "input channel": Channel(1),
    "diagonal": Diagonal(),
}
_GROUPS = {"tensor": whole_tensor, "row": each_row}


@dataclass(frozen=True)
class Structure:
    """Which sparsity patterns are possible.

    Attributes:
        unit: weights that live and die together: a `Unit`, a name (`weight`, `kernel`, `channel`, `input channel`,
            `diagonal`), or (height, width) for blocks.
        group: where the number of active units is fixed: a `Group`, a name (`tensor`, `row`), or a number M for N:M.
        allowed: the region in which links may exist. Densities are relative to it.
        pool: how the scores of a unit's weights become the score of the unit.

    Raises:
        ValueError: an unknown name.
    """

    unit: Unit | str | tuple[int, int] = "weight"
    group: Group | str | int = "tensor"
    allowed: Region | None = field(default=None, repr=False)
    pool: Literal["sum", "mean", "max"] = "sum"

    def __post_init__(self) -> None:
        unit, group = self.unit, self.group
        if isinstance(unit, str):
            if unit not in _UNITS:
                raise ValueError(f"Structure.unit is {unit!r}: expected one of {sorted(_UNITS)}, (height, width) or a Unit")
            object.__setattr__(self, "unit", _UNITS[unit])
        elif isinstance(unit, tuple):
            if len(unit) != 2 or min(unit) < 1:
                raise ValueError(f"Structure.unit is {unit}: expected (height, width) of a block, both at least 1")
            object.__setattr__(self, "unit", Block(*unit))
        if isinstance(group, str):
            if group not in _GROUPS:
                raise ValueError(f"Structure.group is {group!r}: expected one of {sorted(_GROUPS)}, a number M or a Group")
            object.__setattr__(self, "group", _GROUPS[group]())
        elif isinstance(group, int):
            if group < 2:
                raise ValueError(f"Structure.group is {group}: N:M needs at least 2 neighbours")
            object.__setattr__(self, "group", neighbours(group))
        if self.pool not in ("sum", "mean", "max"):
            raise ValueError(f"Structure.pool is {self.pool!r}: expected sum, mean or max")

    @property
    def plain(self) -> bool:
        """Whether units are single weights, counted over the tensor, allowed everywhere."""
        return self.unit == Weight() and self.grouping.name == "tensor" and self.allowed is None

    @property
    def grouping(self) -> Group:
        """The group, resolved from its name."""
        assert isinstance(self.group, Group)
        return self.group

    def fit(self, name: str, shape: Shape, device: torch.device | str = "cpu") -> Grid:
        """The structure on one weight.

        Raises:
            ValueError: a structure impossible for this shape, or a region that cuts through units.
        """
        assert not isinstance(self.unit, str | tuple)
        try:
            sample = torch.empty(shape, device="meta") if not isinstance(self.unit, Diagonal) else torch.empty(shape)
            rows, columns, members = self.unit.arrange(sample, self.grouping.inputs_last).shape
            groups = self.grouping.groups(rows, columns)
        except (ValueError, RuntimeError, IndexError) as error:
            raise ValueError(f"{name}: structure impossible for shape {tuple(shape)}: {error}; exclude this weight") from error
        grid = Grid(self.unit, self.grouping.inputs_last, self.pool, shape, (rows, columns), groups, members, None)
        region = self._region(name, shape)
        if region is None:
            return grid
        if tuple(region.shape) != tuple(shape) or region.dtype != torch.bool:
            raise ValueError(
                f"{name}: the allowed region is {region.dtype} {tuple(region.shape)}, expected bool {tuple(shape)}"
            )
        members_allowed = grid.members_of(region.to(device))
        if not torch.equal(members_allowed.any(-1), members_allowed.all(-1)):
            raise ValueError(f"{name}: the allowed region cuts through units that live and die together")
        return Grid(grid.unit, grid.inputs_last, grid.pool, shape, grid.grid, groups, members, members_allowed.any(-1))

    def _region(self, name: str, shape: Shape) -> Tensor | None:
        if self.allowed is None:
            return None
        if callable(self.allowed):
            return self.allowed(name, shape)
        return next((mask for pattern, mask in self.allowed.items() if fnmatchcase(name, pattern)), None)


@dataclass(frozen=True, eq=False)
class Grid:
    """A structure fitted to one weight.

    Attributes:
        grid: (rows, columns) of units.
        groups: into how many equal runs the grid is cut.
        members: weights per unit.
        allowed: (groups, units per group) bool, or None for everywhere.
    """

    unit: Unit
    inputs_last: bool
    pool: str
    shape: Shape
    grid: tuple[int, int]
    groups: int
    members: int
    allowed: Tensor | None

    @property
    def units(self) -> int:
        """Units per group, allowed or not."""
        return self.grid[0] * self.grid[1] // self.groups

    def allowed_units(self, device: torch.device) -> Tensor:
        """(groups, units) bool: where links may exist."""
        if self.allowed is not None:
            return self.allowed
        return torch.ones(self.groups, self.units, dtype=torch.bool, device=device)

    def room(self) -> list[int]:
        """Allowed units of each group."""
        return list(self._room)

    @cached_property
    def _room(self) -> list[int]:
        """Read from the device once: every update asks for it."""
        if self.allowed is None:
            return [self.units] * self.groups
        return [int(count) for count in self.allowed.sum(dim=1).tolist()]

    def members_of(self, tensor: Tensor) -> Tensor:
        """A tensor of the weight's shape as (groups, units, members)."""
        return self.unit.arrange(tensor, self.inputs_last).reshape(self.groups, self.units, self.members)

    def scores_of(self, scores: Tensor) -> Tensor:
        """Scores of weights pooled into (groups, units) scores of units."""
        members = self.members_of(scores)
        if self.members == 1:
            return members.squeeze(-1)
        if self.pool == "max":
            return members.amax(-1)
        return members.mean(-1) if self.pool == "mean" else members.sum(-1)

    def units_of(self, mask: Tensor) -> Tensor:
        """A mask of the weight's shape, whole units on or off, as (groups, units)."""
        return self.members_of(mask)[..., 0]

    def mask_of(self, units: Tensor) -> Tensor:
        """(groups, units) bool as a mask of the weight's shape."""
        grid = units.reshape(*self.grid, 1).expand(*self.grid, self.members)
        return self.unit.restore(grid, self.shape, self.inputs_last).contiguous()
