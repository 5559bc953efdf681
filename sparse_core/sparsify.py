"""`sparsify`: the one line that a training loop gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from sparse_core.engine import SparseEngine, engine_of
from sparse_core.hashed_random import uniform
from sparse_core.layer import SparseLayer
from sparse_core.layout import initial_key
from sparse_core.method import Method, resolve_density
from sparse_core.off_mask_step import magnitude, warn_of_zeros
from sparse_core.optimizer_state import refuse_unsuited
from sparse_core.ranked import best_units
from sparse_core.selection import take_largest
from sparse_core.shard import shard_of
from sparse_core.shard_grid import grid_of_shard
from sparse_core.shardable import refuse_unshardable
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
    first: Literal["random", "largest"] = "random",
) -> SparseEngine:
    """Make a model sparse, and keep it so while this optimizer trains it.

    Args:
        model: the model, also inside of DistributedDataParallel or torch.compile, or after `fully_shard`: then every rank calls
            this, and masks are of the rows that a rank holds.
        optimizer: any first-order optimizer; what it does not hold is left alone.
        method: a preset (`RigL(density=0.1, end=30_000)`) or a `Method`.
        include: globs over parameter or module names, or predicates (name, parameter) -> bool. None: the weights of Linear,
            Conv1d to 3d and packed attention projections. Norms, biases and embeddings never.
        exclude: what to leave dense, likewise.
        density: a number instead of the method's, or numbers by name pattern for single layers, which are then left out of the
            total; a layer of density 1 stays full.
        seed: of everything random. Every rank must give the same.
        first: which links begin: random ones, or the largest weights of each layer, in the numbers that the layout gives it
            (for trained weights; a ranking over all layers would empty some, since weights differ in scale). Layouts that rank
            links choose by themselves, and where weights off the mask live on, the largest begin anyway.

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
    if method.fan_in is not None:
        method.fan_in.check(targets)
    fixed = _fixed_densities(by_pattern, targets)
    layers = [_fitted(target, method, fixed.get(target.name)) for target in targets]
    layers[-1].last = True
    loose = [layer for layer in layers if layer.fixed_density is None]
    if method.moves_between_layers and len({layer.grid.members for layer in loose}) > 1:
        sizes = ", ".join(f"{layer.name}: {layer.grid.members}" for layer in loose)
        raise ValueError(f"scope and share move units between layers, which must have as many weights each ({sizes})")
    refuse_unshardable(layers, method, seed)
    _place_links(model, layers, method, seed, first)
    if method.off_mask is not None:
        warn_of_zeros(layers)
    return SparseEngine(model, optimizer, method, layers, seed)


def _fixed_densities(by_pattern: Mapping[str, float], targets: Sequence[Target]) -> dict[str, float]:
    fixed: dict[str, float] = {}
    names = [target.name for target in targets]
    for pattern, value in by_pattern.items():
        matched = matching(pattern, names)
        if not matched:
            raise ValueError(f"density: {pattern!r} matches none of the sparse weights {names[:5]}; include says which are")
        if fixed.keys() >= set(matched):
            raise ValueError(f"density: {pattern!r} matches only weights of the patterns before it, which count: put it first")
        for name in matched:
            fixed.setdefault(name, value)
    return fixed


def _fitted(target: Target, method: Method, fixed_density: float | None) -> SparseLayer:
    shape, device = tuple(target.parameter.shape), target.parameter.device
    grid = method.structure.fit(target.name, shape, device)
    if sum(grid.room()) == 0:
        raise ValueError(f"{target.name}: the allowed region is empty; exclude this weight")
    shard = shard_of(target.name, target.parameter)
    if shard is not None:
        grid = grid_of_shard(target.name, grid, shard)
    mask = torch.zeros(grid.shape, dtype=torch.bool, device=device)
    return SparseLayer(target, grid, mask, mask.clone(), [0] * grid.groups, fixed_density, shard=shard)


@torch.no_grad()
def _place_links(model: nn.Module, layers: Sequence[SparseLayer], method: Method, seed: int, first: str) -> None:
    """The first masks: so many links per group, or the best of all layers where the layout has a score."""
    largest = first == "largest" or method.off_mask is not None
    density = method.density_at(0)
    ranked = [layer for layer in layers if layer.fixed_density is None] if method.spread.ranked else []
    for layer, counts in zip(layers, group_counts(layers, method, density), strict=True):
        layer.counts = counts
        scores = layer.grid.scores_of(magnitude(layer.weight.detach()) if largest else _random_scores(layer, seed))
        wanted = torch.tensor(counts, dtype=torch.int64, device=scores.device)
        _activate(layer, take_largest(scores, layer.allowed_units(), wanted, layer.units_of).taken)
    if ranked:
        others = [layer for layer in layers if layer.fixed_density is not None]
        for layer, units in zip(ranked, best_units(model, ranked, others, method, seed), strict=True):
            layer.counts = [int(units.sum().item())]
            _activate(layer, units)


def _random_scores(layer: SparseLayer, seed: int) -> Tensor:
    mask, start = layer.mask, 0 if layer.shard is None else layer.shard.offset
    return uniform(mask.numel(), initial_key(seed, layer.name), mask.device, start).view(mask.shape)


def _activate(layer: SparseLayer, units: Tensor) -> None:
    layer.mask.copy_(layer.grid.mask_of(units))
    layer.explored.copy_(layer.mask)
    layer.active_here = int(units.sum())
    layer.active_everywhere = layer.active_here if layer.shard is None else int(layer.shard.sum(units.sum()))
