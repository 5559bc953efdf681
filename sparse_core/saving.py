"""An engine's state as tensors and plain values, and back with every check before anything changes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparse_core.layer import SparseLayer
from sparse_core.method import Method
from sparse_core.off_mask_step import check_saved, to_save
from sparse_core.packing import pack, unpack

_VERSION = 1


@dataclass(frozen=True, eq=False)
class SavedLayer:
    """A layer's part of a saved state, unpacked; under FSDP2, of the rows that are here."""

    mask: Tensor
    explored: Tensor
    counts: Sequence[int]
    memory: Mapping[str, Tensor]
    active_here: int
    active_everywhere: int


@dataclass(frozen=True, eq=False)
class Saved:
    """A saved state that fits an engine's layers."""

    step: int
    updates: int
    requested: float | None
    seed: int
    layers: Sequence[SavedLayer]


def state_of(
    layers: Sequence[SparseLayer], method: Method, seed: int, step: int, updates: int, requested: float | None
) -> dict[str, Any]:
    """The state: readable by `torch.load(weights_only=True)`, one bit a link for a mask.

    Of sharded weights it has the whole, so that it is the same on every rank and as from one process.
    """
    return {
        "version": _VERSION,
        "method": method.describe(),
        "seed": seed,
        "step": step,
        "updates": updates,
        "requested": requested,
        "layers": {
            layer.name: {
                "shape": list(layer.target.parameter.shape),
                "mask": pack(_whole(layer, layer.mask)),
                "explored": pack(_whole(layer, layer.explored)),
                "counts": _all_counts(layer),
                "memory": {
                    key: _whole(layer, value.detach()).clone() for key, value in (layer.memory | to_save(layer)).items()
                },
            }
            for layer in layers
        },
    }


def _whole(layer: SparseLayer, tensor: Tensor) -> Tensor:
    """The rows of all ranks, on the CPU; what has another shape, or is whole, as it is."""
    return tensor if layer.shard is None or tensor.shape != layer.mask.shape else layer.shard.gathered(tensor).cpu()


def _all_counts(layer: SparseLayer) -> list[int]:
    """Active units of all groups, those of other ranks included."""
    if layer.groups_of is None:
        return list(layer.counts)
    here = torch.tensor(layer.counts, dtype=torch.int64, device=layer.mask.device)
    by_row = here.view(layer.groups_of.rows, _groups_per_row(layer))
    return [int(count) for count in layer.groups_of.gathered(by_row).flatten().tolist()]


def _groups_per_row(layer: SparseLayer) -> int:
    """Groups in each row, where no group goes beyond a row."""
    return math.prod(layer.target.parameter.shape[1:]) // (layer.grid.units * layer.grid.members)


def checked(state: Mapping[str, Any], layers: Sequence[SparseLayer], method: Method) -> Saved:
    """The state, if it belongs to these layers.

    Raises:
        ValueError: another version, other layers, shapes or structures, counts that do not add up.
    """
    if state.get("version") != _VERSION:
        raise ValueError(f"the state has version {state.get('version')!r}, expected {_VERSION}: it is no state of this engine")
    saved = state["layers"]
    here = {layer.name for layer in layers}
    if set(saved) != here:
        missing, other = sorted(here - set(saved)), sorted(set(saved) - here)
        raise ValueError(
            f"these are the masks of another model: the state lacks {missing[:3]} and has {other[:3]}, which is not sparse here"
        )
    unpacked = [_layer(layer, saved[layer.name]) for layer in layers]
    described = method.describe()
    changed = [f"{key} {old} -> {described.get(key)}" for key, old in state["method"].items() if described.get(key) != old]
    if changed:
        warnings.warn(f"the saved method differs and the engine's own goes on: {'; '.join(changed)}", stacklevel=3)
    requested = state["requested"]
    return Saved(
        int(state["step"]), int(state["updates"]), None if requested is None else float(requested), int(state["seed"]), unpacked
    )


def _copied(layer: SparseLayer, memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: _whole(layer, value.detach()).clone() for key, value in memory.items()}


def _layer(layer: SparseLayer, saved: Mapping[str, Any]) -> SavedLayer:
    shape = tuple(saved["shape"])
    if shape != tuple(layer.target.parameter.shape):
        raise ValueError(f"{layer.name}: the state's mask has shape {shape}, the weight {tuple(layer.target.parameter.shape)}")
    try:
        mask, explored = unpack(saved["mask"], shape), unpack(saved["explored"], shape)
    except ValueError as error:
        raise ValueError(f"{layer.name}: {error}") from error
    counts = [int(count) for count in saved["counts"]]
    total = int(mask.sum().item())
    memory = dict(saved["memory"])
    if layer.shard is not None:
        mask, explored = layer.shard.of(mask), layer.shard.of(explored)
        memory = {key: layer.shard.of(value) if tuple(value.shape) == shape else value for key, value in memory.items()}
    counts_here = counts
    if layer.groups_of is not None:
        each = _groups_per_row(layer)
        counts_here = counts[layer.groups_of.start * each :][: layer.groups_of.rows * each]
    mask = mask.to(layer.mask.device)
    units = layer.grid.units_of(mask)
    active = units.sum(dim=1).tolist()
    right = active == counts_here if layer.units_of is None else total == sum(counts) * layer.grid.members
    if len(counts_here) != layer.grid.groups or not right:
        raise ValueError(f"{layer.name}: the state's mask does not have the links per group that it claims; another structure?")
    if int(mask.sum().item()) != sum(active) * layer.grid.members:
        raise ValueError(f"{layer.name}: the state's mask cuts through units that live and die together")
    if layer.grid.allowed is not None and bool((units & ~layer.grid.allowed).any()):
        raise ValueError(f"{layer.name}: the state's mask has links outside of the allowed region")
    check_saved(layer.name, mask, memory)
    return SavedLayer(mask, explored.to(layer.mask.device), counts_here, memory, sum(active), sum(counts))
