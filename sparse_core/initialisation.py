"""Weights that begin as large as their sparse layer needs them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse_core.engine import engine_of
from sparse_core.masks import Masks, parameters_of
from sparse_core.targets import plain_names
from sparse_core.wrappers import unwrapped

_INPUTS_FIRST = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@torch.no_grad()
def scale_to_fan_in(model: nn.Module, masks: Masks) -> None:
    """Rescale every output's weights by sqrt(dense fan-in / its number of active links), once, before training.

    Initial weights are drawn for the fan-in of the dense layer; with a tenth of the links an output's variance is a tenth of
    what it was meant to be, and less from layer to layer. Outputs without links are left as they are. Weights that an engine
    holds off the mask are scaled with their output.

    Args:
        model: the model with its initial weights.
        masks: parameter name -> bool mask, as `engine.masks` is.

    Raises:
        ValueError: a mask that fits no parameter. Nothing is changed then.
    """
    places = plain_names(unwrapped(model))
    for name, parameter in parameters_of(model, masks).items():
        owner = places[name][0]
        groups = owner.groups if isinstance(owner, _INPUTS_FIRST) else None
        weight, mask = (_by_output(tensor, groups) for tensor in (parameter.detach(), masks[name].to(parameter.device)))
        links = mask.sum(dim=-1, keepdim=True)
        scale = (mask.shape[-1] / links.clamp(min=1)).sqrt()
        weight *= torch.where(links > 0, scale, torch.ones_like(scale)).to(weight.dtype)
        parameter.copy_(_restored(weight, tuple(parameter.shape), groups))
        engine = engine_of(parameter)
        if engine is not None and name in engine.off_mask:
            apart = engine.off_mask[name]
            values = _by_output(apart, groups) * torch.where(links > 0, scale, torch.ones_like(scale)).to(apart.dtype)
            apart.copy_(_restored(values, tuple(apart.shape), groups))


def _by_output(tensor: Tensor, groups: int | None) -> Tensor:
    """The weights with every output's on the last axis. `groups`: of a transposed convolution, whose inputs come first."""
    if groups is None:
        return tensor.flatten(1).clone()
    by_group = tensor.reshape(groups, tensor.shape[0] // groups, tensor.shape[1], -1)  # (groups, inputs, outputs, taps)
    return by_group.transpose(1, 2).flatten(2).clone()


def _restored(by_output: Tensor, shape: tuple[int, ...], groups: int | None) -> Tensor:
    """The inverse of `_by_output`."""
    if groups is None:
        return by_output.view(shape)
    return by_output.view(groups, shape[1], shape[0] // groups, -1).transpose(1, 2).reshape(shape)
