"""Scores that look at more than one weight at a time, under FSDP2: their layer is gathered, for the time of one call.

Signs that are ranked against each other (SET), graphs, neurons: what a score makes of some rows is then not those rows of what
it makes of the weight. One layer after the other is gathered, in updates only; every rank computes the same and keeps its rows.
"""

from __future__ import annotations

from collections import UserDict
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from sparse_core.layer import LayerInput, SparseLayer
from sparse_core.scores import ELEMENTWISE, Context, Score, is_elementwise, score_name
from sparse_core.shard import Shard


def score_of(score: Score, layer: SparseLayer, given: LayerInput, context: Context) -> Tensor:
    """A score of a layer, of the rows that are here.

    Raises:
        ValueError: a score of a wrong shape.
    """
    if layer.shard is None or is_elementwise(score):
        return _checked(score, score(given.weight, given.gradient, context), given.weight, layer.name)
    shard = layer.shard
    weight = shard.gathered(given.weight)
    gradient = None if given.gradient is None else shard.gathered(given.gradient)
    values = score(weight, gradient, _whole_context(context, shard, layer.links))
    return shard.of(_checked(score, values, weight, layer.name))


def _checked(score: Score, values: Tensor, weight: Tensor, name: str) -> Tensor:
    if values.shape != weight.shape:
        raise ValueError(
            f"{name}: the score {score_name(score)} has shape {tuple(values.shape)}, expected {tuple(weight.shape)}"
        )
    return values


def _whole_context(here: Context, shard: Shard, links: int) -> Context:
    """The context of the whole layer: every mask in it gathered."""
    cut = {field.name: getattr(here, field.name) for field in fields(here)}
    masks: dict[str, Any] = {
        name: shard.gathered(value)
        for name, value in cut.items()
        if isinstance(value, Tensor) and tuple(value.shape) == shard.local_shape
    }
    return replace(here, **masks, state=_WholeState(here.state, shard), active=links, memory=_NoMemory(), offset=0)


class _WholeState(UserDict[str, Any]):
    """An optimizer's state, gathered when it is read."""

    def __init__(self, here: Any, shard: Shard) -> None:
        super().__init__(here)
        self._shard = shard

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        alike = isinstance(value, Tensor) and tuple(value.shape) == self._shard.local_shape
        return self._shard.gathered(value) if alike else value


class _NoMemory(UserDict[str, Tensor]):
    """What a gathered layer's score may keep between steps: nothing, for it would be the whole layer on every rank."""

    def __setitem__(self, key: str, item: Tensor) -> None:
        raise RuntimeError(
            f"{key} would be kept between steps by a score that is not marked as elementwise, so of the gathered layer. "
            + ELEMENTWISE
        )
