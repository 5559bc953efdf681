"""`sparsify`: the one line that a training loop gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sparse_core.engine import SparseEngine, engine_of
from sparse_core.hashed_random import uniform
from sparse_core.layer import SparseLayer
from sparse_core.layout import initial_key, layout_scores
from sparse_core.method import Method, resolve_density
from sparse_core.off_mask_step import magnitude, warn_of_zeros
from sparse_core.optimizer_state import refuse_unsuited
from sparse_core.scores import Context
from sparse_core.selection import take_largest
from sparse_core.targets import Pattern, Target, matching, select
from sparse_core.update import group_counts


def sparsify(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    method: Method,
    include: Pattern | Sequence[Pattern] | None = None,
    exclude: Pattern | Sequence[Pattern] | None = None,
    density: float | Mapping[str, float] | None = None,
    seed: int = 0,
) -> SparseEngine:
    """Make a model sparse, and keep it so while this optimizer trains it.

    Args:
        model: the model, also inside of DistributedDataParallel or torch.compile.
        optimizer: any first-order optimizer; what it does not hold is left alone.
        method: a preset (`RigL(density=0.1, end=30_000)`) or a `Method`.
        include: globs over parameter or module names, or predicates (name, parameter) -> bool. None: the weights of Linear,
            Conv1d to 3d and packed attention projections. Norms, biases and embeddings never.
        exclude: what to leave dense, likewise.
        density: a number instead of the method's, or numbers by name pattern for single layers, which are then left out of the
            total; a layer of density 1 stays full.
        seed: of everything random. Every rank must give the same.

    Returns:
        The engine. It lives as long as the optimizer; keep it to look at masks and to save its state.

    Raises:
        ValueError: a density out of range, a pattern that matches nothing, a structure impossible for a shape, an optimizer
            without the parameters or unsuited, a parameter that another engine holds. Nothing is changed then.
    """
    refuse_unsuited(optimizer)
    wanted, by_pattern = resolve_density(method, density)
    method = replace(method, density=wanted)
    targets = select(model, optimizer, include, exclude)
    for target in targets:
        if engine_of(target.parameter) is not None:
            raise ValueError(f"{target.name}: another engine keeps this parameter sparse already; detach it first")
    fixed = _fixed_densities(by_pattern, targets)
    layers = [_fitted(target, method, fixed.get(target.name)) for target in targets]
    loose = [layer for layer in layers if layer.fixed_density is None]
    if method.moves_between_layers and len({layer.grid.members for layer in loose}) > 1:
        sizes = ", ".join(f"{layer.name}: {layer.grid.members}" for layer in loose)
        raise ValueError(f"scope and share move units between layers, which must have as many weights each ({sizes})")
    _place_links(layers, method, seed)
    if method.off_mask is not None:
        warn_of_zeros(layers)
    return SparseEngine(model, optimizer, method, layers, seed)


def _fixed_densities(by_pattern: Mapping[str, float], targets: Sequence[Target]) -> dict[str, float]:
    fixed: dict[str, float] = {}
    names = [target.name for target in targets]
    for pattern, value in by_pattern.items():
        matched = matching(pattern, names)
        if not matched:
            raise ValueError(f"density: {pattern!r} matches none of the sparse weights {names[:5]}")
        for name in matched:
            fixed.setdefault(name, value)
    return fixed


def _fitted(target: Target, method: Method, fixed_density: float | None) -> SparseLayer:
    shape, device = tuple(target.parameter.shape), target.parameter.device
    grid = method.structure.fit(target.name, shape, device)
    if sum(grid.room()) == 0:
        raise ValueError(f"{target.name}: the allowed region is empty; exclude this weight")
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    return SparseLayer(target, grid, mask, mask.clone(), [0] * grid.groups, fixed_density)


@torch.no_grad()
def _place_links(layers: Sequence[SparseLayer], method: Method, seed: int) -> None:
    """The first masks: so many links per group, or the best of all layers where the layout has a score.

    Which ones: random ones, or the largest where weights off the mask live on.
    """
    density = method.density_at(0)
    ranked = [layer for layer in layers if layer.fixed_density is None] if method.spread.score is not None else []
    for layer, counts in zip(layers, group_counts(layers, method, density), strict=True):
        layer.counts = counts
        weight = layer.target.parameter.detach()
        first = _random_scores(layer, seed) if method.off_mask is None else magnitude(weight)
        scores = layer.grid.scores_of(first)
        _activate(layer, take_largest(scores, _allowed(layer), torch.tensor(counts, device=scores.device)).taken)
    if ranked:
        _place_by_score(ranked, method, seed)


def _place_by_score(layers: Sequence[SparseLayer], method: Method, seed: int) -> None:
    score = method.spread.score
    assert score is not None
    if method.structure.grouping.name != "tensor":
        raise ValueError(f"the layout {method.spread.name} ranks links over layers; fixed counts per group do not allow that")
    parameters = {layer.name: layer.target.parameter for layer in layers}

    def score_one(name: str, gradient: Tensor | None) -> Tensor:
        weight = parameters[name].detach()
        context = Context(name, torch.ones_like(weight, dtype=torch.bool), seed=seed, role="layout")
        return score(weight, gradient, context)

    scores = layout_scores(method.spread, parameters, score_one)
    pooled = [layer.grid.scores_of(scores[layer.name]).reshape(1, -1) for layer in layers]
    allowed = [_allowed(layer).reshape(1, -1) for layer in layers]
    total = sum(sum(layer.counts) for layer in layers)
    best = take_largest(torch.cat(pooled, dim=1), torch.cat(allowed, dim=1), torch.tensor([total], device=pooled[0].device))
    for layer, values in zip(layers, pooled, strict=True):
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{layer.name}: the layout {method.spread.name} gives scores that are not finite")
    for layer, units in zip(layers, torch.split(best.taken, [values.shape[1] for values in pooled], dim=1), strict=True):
        layer.counts = [int(units.sum().item())]
        _activate(layer, units)


def _random_scores(layer: SparseLayer, seed: int) -> Tensor:
    parameter = layer.target.parameter
    return uniform(parameter.numel(), initial_key(seed, layer.name), parameter.device).view(parameter.shape)


def _allowed(layer: SparseLayer) -> Tensor:
    grid = layer.grid
    if grid.allowed is not None:
        return grid.allowed
    return torch.ones(grid.groups, grid.units, dtype=torch.bool, device=layer.mask.device)


def _activate(layer: SparseLayer, units: Tensor) -> None:
    layer.mask.copy_(layer.grid.mask_of(units))
    layer.explored.copy_(layer.mask)
