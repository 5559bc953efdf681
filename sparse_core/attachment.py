"""Whether an engine still hangs off what is trained: parameters that were replaced or sharded after it, ranks that differ."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sparse_core.hashed_random import key_of
from sparse_core.layer import SparseLayer
from sparse_core.packing import pack
from sparse_core.radix import number
from sparse_core.shard import is_sharded
from sparse_core.targets import parameter_at


def check_parameters(model: nn.Module, layers: Sequence[SparseLayer]) -> None:
    """Raise if the model does not train the parameters that were made sparse.

    Raises:
        RuntimeError: one was replaced, with its name and how.
    """
    for layer in layers:
        current = parameter_at(model, layer.name)
        if current is layer.target.parameter:
            continue
        if layer.shard is None and is_sharded(current):
            raise RuntimeError(
                f"{layer.name}: the model was given to fully_shard after sparsify, so what is trained is not what was made "
                "sparse. Call fully_shard first, then make the optimizer, then call sparsify"
            )
        if layer.shard is not None and current is not None and tuple(current.shape) == layer.shard.shape:
            continue  # for the moment FSDP2 has put the gathered weight there, as after a forward pass without a backward pass
        raise RuntimeError(
            f"{layer.name}: the parameter was replaced since it was made sparse (assign-loading or a copied module); "
            "the engine still holds the old one. Load with assign=False, or call sparsify again"
        )


def watch_for_late_sharding(
    engine: object,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    layers: Sequence[SparseLayer],
    engine_of: Callable[[nn.Parameter], object | None],
) -> list[Any]:
    """Look at other optimizers' first steps: after `fully_shard`, people make a new one, and the engine's never steps again.

    Args:
        engine: for as long as it lives, its layers are looked for.
        engine_of: finds the engine of a parameter: one that was sharded may have been made sparse again.

    Returns:
        Handles; none in a process that is alone: without a process group, and not started by torchrun.
    """
    grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not grouped and "RANK" not in os.environ:
        return []
    alive, network, own = weakref.ref(engine), weakref.ref(model), weakref.ref(optimizer)
    names = [layer.name for layer in layers if layer.shard is None]
    seen: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()

    def look(other: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        trained = network()
        if other in seen or other is own() or alive() is None or trained is None:
            return
        held = {id(parameter) for group in other.param_groups for parameter in group["params"]}
        for name in names:
            current = parameter_at(trained, name)
            if current is not None and is_sharded(current) and id(current) in held and engine_of(current) is None:
                raise RuntimeError(
                    f"{name}: the model was given to fully_shard after sparsify, and another optimizer trains it now, without "
                    "any sparsity. Call fully_shard first, then make the optimizer, then call sparsify; or detach the engine"
                )
        seen.add(other)

    handle = register_optimizer_step_pre_hook(look)
    weakref.finalize(engine, handle.remove)
    return [handle]


def refuse_ranks_that_differ(
    layers: Sequence[SparseLayer], step: int, updates: int, seed: int, requested: float | None
) -> None:
    """Before an update under FSDP2: whether all ranks are about to decide the same. One small message, and a wait.

    Raises:
        RuntimeError: they differ in the step, the links of weights that all have whole, or the like.
    """
    shard = next((layer.shard for layer in layers if layer.shard is not None), None)
    if shard is None:
        return
    parts = [layer for layer in layers if layer.shard is not None]
    active = shard.sum(torch.tensor([layer.active_here for layer in parts], device=parts[0].mask.device)).tolist()
    facts = {
        "optimizer steps": step,
        "updates": updates,
        "seed": seed,
        "requested exchange": key_of(requested) >> 1,
        "links": sum(layer.links for layer in layers),
        "links on the ranks together": int(active == [layer.active_everywhere for layer in parts]),
        "masks of weights that are not sharded": sum(_fingerprint(layer) for layer in layers if layer.shard is None) >> 1,
        "gradients": sum(1 << (index % 60) for index, layer in enumerate(layers) if layer.target.parameter.grad is not None),
    }
    if not shard.agree(list(facts.values())) or not facts["links on the ranks together"]:
        raise RuntimeError(
            f"the ranks do not agree on {', '.join(facts)} (here {list(facts.values())}), and would decide differently. Call "
            "sparsify, engine.update and load_state_dict alike on every rank"
        )


def _fingerprint(layer: SparseLayer) -> int:
    """A number that hardly any other mask has."""
    packed = pack(layer.mask).to(torch.int64)
    places = torch.arange(1, len(packed) + 1) * 0x61C8864680B583EB
    return number((packed * places.bitwise_or_(1)).sum()) & 0xFFFFFFFFFFFF
