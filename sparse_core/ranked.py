"""First masks by a score over all layers together: the best links, and in no layer none."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sparse_core.layer import SparseLayer
from sparse_core.layout import Layout, layout_scores
from sparse_core.method import Method
from sparse_core.scores import Context
from sparse_core.selection import take_largest
from sparse_core.start import Start


def best_units(
    model: nn.Module, layers: Sequence[SparseLayer], others: Sequence[SparseLayer], method: Method, seed: int
) -> list[Tensor]:
    """The units that the layout's score chooses, as many as the layers have counts, over all layers together.

    A layer that would get none gets its best unit, and the others one less; a warning names it.

    Args:
        layers: those that are ranked, with the counts that their density gives them.
        others: those with a density of their own, which have their masks.

    Returns:
        (1, units) bool for each layer.

    Raises:
        ValueError: a structure with fixed counts per group; scores that are not finite, with the layer's name.
    """
    spread = method.spread
    if method.structure.grouping.name != "tensor":
        raise ValueError(f"the layout {spread.name} ranks links over layers; fixed counts per group do not allow that")
    total, room = sum(sum(layer.counts) for layer in layers), sum(sum(layer.grid.room()) for layer in layers)
    parameters = {layer.name: layer.target.parameter for layer in layers}

    def keep(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        units = _best(layers, scores, round(share * room), spread, warn=False)
        return {layer.name: layer.grid.mask_of(one) for layer, one in zip(layers, units, strict=True)}

    def score_one(name: str, gradient: Tensor | None) -> Tensor:
        weight = parameters[name].detach()
        context = Context(name, torch.ones_like(weight, dtype=torch.bool), seed=seed, role="layout")
        assert spread.score is not None
        return spread.score(weight, gradient, context)

    if spread.rank is not None:
        start = Start(model, parameters, [(other.target.parameter, other.mask) for other in others], total / room, keep)
        scores = spread.rank(start)
    else:
        scores = layout_scores(spread, parameters, score_one)
    return _best(layers, scores, total, spread, warn=True)


def _best(layers: Sequence[SparseLayer], scores: Mapping[str, Tensor], total: int, spread: Layout, warn: bool) -> list[Tensor]:
    pooled = [layer.grid.scores_of(scores[layer.name]).reshape(1, -1) for layer in layers]
    for layer, values in zip(layers, pooled, strict=True):
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{layer.name}: the layout {spread.name} gives scores that are not finite")
    sizes = [values.shape[1] for values in pooled]
    every, allowed = torch.cat(pooled, dim=1), torch.cat([layer.allowed_units().reshape(1, -1) for layer in layers], dim=1)

    def largest(candidates: Tensor, count: int) -> Tensor:
        return take_largest(every, candidates, torch.tensor([count], device=every.device)).taken

    taken = largest(allowed, total)
    empty = [layer.name for layer, part in zip(layers, torch.split(taken, sizes, dim=1), strict=True) if not bool(part.any())]
    if empty:
        one = torch.tensor([1], device=every.device)
        own = zip(pooled, torch.split(allowed, sizes, dim=1), strict=True)
        first = torch.cat([take_largest(values, candidates, one).taken for values, candidates in own], dim=1)
        taken = first | largest(allowed & ~first, total - len(layers))  # every layer's counts are at least one
        if warn:
            warnings.warn(
                f"the layout {spread.name} would leave no link in {', '.join(empty[:5])}{' and others' * (len(empty) > 5)}; "
                "each got its best one",
                stacklevel=6,
            )
    return list(torch.split(taken, sizes, dim=1))
