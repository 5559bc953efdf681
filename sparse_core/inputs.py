"""What an update reads of each layer: its weight, its gradient, and what the optimizer keeps of it."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sparse_core.layer import LayerInput, SparseLayer
from sparse_core.shard import local


def inputs_of(layers: Sequence[SparseLayer], optimizer: torch.optim.Optimizer) -> list[LayerInput]:
    """Each layer's input, in float32 or better; scaled gradients are divided by their scale."""
    options = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    scale = getattr(optimizer, "grad_scale", None)  # fused optimizers are handed scaled gradients
    inputs = []
    for layer in layers:
        parameter, gradient = layer.target.parameter, layer.gradient
        gradient = None if gradient is None else _at_least_float32(gradient.detach())
        if gradient is not None and scale is not None:
            gradient = gradient / scale.to(gradient.device)
        inputs.append(
            LayerInput(
                _at_least_float32(layer.dense_weight()),
                gradient,
                _state_here(layer, optimizer.state.get(parameter, {})),
                options.get(id(parameter), {}),
            )
        )
    return inputs


def _state_here(layer: SparseLayer, state: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What scores see of the optimizer's state: of a sharded weight, the rows that are here."""
    return state if layer.shard is None else {key: local(value) for key, value in state.items()}


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
