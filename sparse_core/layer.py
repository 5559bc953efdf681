"""A sparse weight with all that the engine keeps of it, and what an update is told and answers."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparse_core.layout import Layer
from sparse_core.off_mask import OffMaskWeights
from sparse_core.scores import Context
from sparse_core.structure import Grid
from sparse_core.targets import Target


@dataclass(eq=False)
class SparseLayer:
    """A target with its mask and all that the engine keeps of it.

    Attributes:
        target: the parameter and its name.
        grid: the structure fitted to it.
        mask: bool, of the weight's shape.
        explored: bool, links that were ever active.
        counts: active units per group, known on the host.
        fixed_density: a density that holds whatever the layout says, or None.
        memory: what stateful scores keep.
        off_mask: weights off the mask that live on, where the method keeps some.
    """

    target: Target
    grid: Grid
    mask: Tensor
    explored: Tensor
    counts: list[int]
    fixed_density: float | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    off_mask: OffMaskWeights | None = None

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.target.name

    @property
    def links(self) -> int:
        """Active links."""
        return sum(self.counts) * self.grid.members

    @property
    def size(self) -> int:
        """Allowed links."""
        return sum(self.grid.room()) * self.grid.members

    @property
    def moving(self) -> Tensor:
        """bool: what the optimizer moves. The links, unless weights off the mask live on."""
        return self.mask if self.off_mask is None else self.off_mask.moving

    def dense_weight(self) -> Tensor:
        """The weight between steps, with what lives on off the mask."""
        weight = self.target.parameter.detach()
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
        grown_links: how many links are new.
    """

    layer: SparseLayer
    mask: Tensor
    dropped: Tensor
    counts: list[int]
    grown_links: int

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


def context_of(layer: SparseLayer, given: LayerInput, moment: Moment, role: str) -> Context:
    """The context of a score."""
    return Context(
        name=layer.name,
        mask=layer.mask,
        step=moment.step,
        update=moment.update,
        seed=moment.seed,
        role=role,
        explored=layer.explored,
        state=given.state,
        options=given.options,
        active=layer.links,
        memory=layer.memory,
        dry=moment.dry,
    )
