"""The first links of weights that were trained before: the largest ones, as many in each layer as the layout says."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sparse_core import SparseEngine
from sparse_core.packing import pack
from sparse_core.selection import take_largest


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all matrices by name: what `begin_with_largest` needs, for an engine zeroes weights as soon as it is made."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.dim() > 1}


def begin_with_largest(engine: SparseEngine, model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Exchange an engine's first links for the largest weights, before its first step.

    Every layer, and every group of the method's structure, keeps its number of links: layers differ in the scale of their
    weights, so that a ranking over all of them would empty some.

    Args:
        engine: new; its method begins with fewer links than there are weights.
        model: what the engine is of.
        weights: as they were before the engine was made, at least those that it makes sparse.
    """
    state = engine.state_dict()
    for name, layer in state["layers"].items():
        size = weights[name].abs()
        grid = engine.method.structure.fit(name, tuple(size.shape), size.device)
        scores = grid.scores_of(size if size.dtype == torch.float64 else size.float())
        taken = take_largest(
            scores, grid.allowed_units(scores.device), torch.tensor(layer["counts"], device=scores.device)
        ).taken
        layer["mask"] = layer["explored"] = pack(grid.mask_of(taken))
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name in state["layers"]:
            named[name].copy_(weights[name])
    engine.load_state_dict(state)
