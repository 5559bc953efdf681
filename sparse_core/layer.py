"""A sparse weight with all that the engine keeps of it, and what an update is told and answers."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparse_core import shard as sharding
from sparse_core.layout import Layer
from sparse_core.off_mask import OffMaskWeights
from sparse_core.scores import Context
from sparse_core.shard import Shard
from sparse_core.shard_grid import ShardGrid
from sparse_core.structure import Grid
from sparse_core.targets import Target


@dataclass(eq=False)
class SparseLayer:
    """A target with its mask and all that the engine keeps of it: under FSDP2, of the rows that this rank holds.

    Attributes:
        target: the parameter and its name.
        grid: the structure fitted to it.
        mask: bool, of the weight's shape.
        explored: bool, links that were ever active.
        counts: active units per group, known on the host; of a group that is spread over ranks, the units on all of them.
        fixed_density: a density that holds whatever the layout says, or None.
        memory: what stateful scores keep.
        last: whether it is the last of the engine's layers.
        shard: which rows these are, under FSDP2.
        active_here: active units on this rank, and
        active_everywhere: on all of them, where `shard` is given.
        off_mask: weights off the mask that live on, where the method keeps some.
    """

    target: Target
    grid: Grid
    mask: Tensor
    explored: Tensor
    counts: list[int]
    fixed_density: float | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    last: bool = False
    shard: Shard | None = None
    active_here: int = 0
    active_everywhere: int = 0
    off_mask: OffMaskWeights | None = None

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.target.name

    @property
    def weight(self) -> Tensor:
        """The weight, or the rows of it that are here; writing to it writes to the parameter."""
        part: Tensor = sharding.local(self.target.parameter)
        return part

    @property
    def gradient(self) -> Tensor | None:
        """Its gradient, likewise.

        Raises:
            RuntimeError: it is cut in another way than the weight.
        """
        whole = self.target.parameter.grad
        if self.shard is not None and whole is not None:
            self.shard.check_gradient(self.name, self.target.parameter, whole)
        part: Tensor | None = sharding.local(whole)
        return part

    @property
    def units_of(self) -> Shard | None:
        """The shard, where its units are counted over all ranks."""
        return self.shard if isinstance(self.grid, ShardGrid) and self.grid.spread else None

    @property
    def groups_of(self) -> Shard | None:
        """The shard, where every group lies on one rank."""
        return self.shard if self.units_of is None else None

    @property
    def links(self) -> int:
        """Active links, on all ranks."""
        return (sum(self.counts) if self.shard is None else self.active_everywhere) * self.grid.members

    @property
    def links_here(self) -> int:
        """Active links on this rank."""
        return (sum(self.counts) if self.shard is None else self.active_here) * self.grid.members

    @property
    def size(self) -> int:
        """Allowed links, on all ranks."""
        room = self.grid.whole_room if isinstance(self.grid, ShardGrid) else sum(self.grid.room())
        return room * self.grid.members

    def allowed_units(self) -> Tensor:
        """(groups, units) bool: where links may exist."""
        return self.grid.allowed_units(self.mask.device)

    @property
    def moving(self) -> Tensor:
        """bool: what the optimizer moves. The links, unless weights off the mask live on."""
        return self.mask if self.off_mask is None else self.off_mask.moving

    def dense_weight(self) -> Tensor:
        """The weight between steps, with what lives on off the mask."""
        weight = self.weight.detach()
        return weight if self.off_mask is None else torch.addcmul(self.off_mask.values, weight, self.off_mask.links)

    def as_layout_layer(self) -> Layer:
        """The layer as a layout sees it."""
        return Layer(self.name, tuple(self.target.parameter.shape), self.size)


@dataclass(frozen=True)
class Moment:
    """When and how an update happens.

    Attributes:
        step: the number of the optimizer step, from 1.
        update: the number of the update, from 1.
        seed: the engine's seed.
        rate: the share of active links to exchange.
        density: the density to reach, or None to leave it.
        prune_only: nothing grows.
        dry: a dry run.
    """

    step: int
    update: int
    seed: int
    rate: float
    density: float | None
    prune_only: bool = False
    dry: bool = False


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """What an update would do to a layer.

    Attributes:
        layer: the layer.
        mask: the new mask.
        dropped: links that were active and are not kept, those that grow back at once included.
        counts: active units per group afterwards.
        grown_links: how many links are new, on this rank.
        active_here: active units on this rank, and
        active_everywhere: on all of them, for a layer with a shard.
    """

    layer: SparseLayer
    mask: Tensor
    dropped: Tensor
    counts: list[int]
    grown_links: int
    active_here: int = 0
    active_everywhere: int = 0

    @property
    def grown(self) -> Tensor:
        """Links that are active now and were not before."""
        return self.mask & ~self.layer.mask


@dataclass(frozen=True)
class Proposal:
    """What an update would change, by parameter name.

    Attributes:
        dropped: bool masks of the links that would be dropped, those that would grow back at once included.
        grown: bool masks of the links that would be active and are not now.
    """

    dropped: Mapping[str, Tensor]
    grown: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class LayerInput:
    """What scores read of a layer: weight and unscaled dense gradient in at least float32, optimizer state and options."""

    weight: Tensor
    gradient: Tensor | None
    state: MutableMapping[str, Any]
    options: MutableMapping[str, Any]


def context_of(layer: SparseLayer, given: LayerInput, moment: Moment, role: str, kept: Tensor | None = None) -> Context:
    """The context of a score. `kept`: the links that the update keeps, where they are known."""
    return Context(
        name=layer.name,
        mask=layer.mask,
        step=moment.step,
        update=moment.update,
        seed=moment.seed,
        role=role,
        explored=layer.explored,
        kept=kept,
        state=given.state,
        options=given.options,
        active=layer.links_here,
        memory=layer.memory,
        dry=moment.dry,
        offset=0 if layer.shard is None else layer.shard.offset,
    )
