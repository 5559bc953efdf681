"""What one prediction costs in FLOPs, as it is computed: by lists of neighbours or by masks, packed or with padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import sparse_core
from limtr.encoder import LocalAttention
from limtr.neighbors import Neighbors


@dataclass(frozen=True, kw_only=True)
class EagerCost:
    """Of a model and of one call of it, without a graph."""

    parameters: int
    active: int
    """Parameters that the masks leave."""
    dense: int
    """FLOPs of the forward pass."""
    sparse: int
    """The same at the density of the masks."""
    by_weight: Mapping[str, int]
    """Of `dense`, what each parameter takes part in; what is left over is between activations."""


def eager_cost(model: nn.Module, inputs: object, masks: Mapping[str, torch.Tensor]) -> EagerCost:
    """Parameters and FLOPs of a call: matrix products and attention, whichever way attention goes for these inputs.

    `inputs` as for `sparse_core.cost`.
    """
    by_lists = 0

    def count(module: nn.Module, arguments: tuple[torch.Tensor, torch.Tensor, Neighbors], _: Any) -> None:
        nonlocal by_lists
        assert isinstance(module, LocalAttention)
        x, _, neighbors = arguments
        if module.by_lists(neighbors, module.dropout if module.training else 0.0):
            # Per token and neighbour a product with the key and one with the value: no kernel with a formula does them.
            by_lists += 4 * neighbors.index.numel() * x.shape[-1]

    hooks = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, LocalAttention)]
    try:
        # The fused attention kernel of a CPU has no formula in torch's counter, the plain one has.
        with sdpa_kernel(SDPBackend.MATH):
            cost = sparse_core.cost(model, inputs, masks, backward=False)
    finally:
        for hook in hooks:
            hook.remove()
    return EagerCost(
        parameters=cost.parameters,
        active=cost.active,
        dense=cost.forward + by_lists,
        sparse=cost.sparse_forward + by_lists,
        by_weight={row.name: row.forward for row in cost.weights if row.forward},
    )


@torch.no_grad()
def graph_flops(graph: nn.Module, inputs: Mapping[str, torch.Tensor]) -> int:
    """FLOPs of a call of a graph, which computes padding and attention between all tokens before it masks them."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        graph(**inputs)
    return int(counter.get_total_flops())
