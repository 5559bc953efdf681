"""What torch.compile and data parallel training wrap around a model."""

from __future__ import annotations

from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile and data parallel wrappers."""
    while (inner := wrapped_module(model)) is not None:
        model = inner
    return model


def wrapped_module(module: nn.Module) -> nn.Module | None:
    """What a wrapper holds, None for a module that is no wrapper."""
    if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
        return module._modules["module"]
    return module._modules.get("_orig_mod")
