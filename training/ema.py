"""Exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """Follows a model's parameters: average = decay * average + (1 - decay) * weights after every step.

    Buffers (batch-norm statistics, intention points) are the model's own: they are averages already.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after step `step` (1, 2, ...); early steps weigh more, so that the start is soon forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            self.average[name].lerp_(parameter.detach(), 1.0 - decay)

    @contextmanager
    def swapped_into(self, model: nn.Module) -> Iterator[None]:
        """The model carries the average inside the block and its own weights again after it."""
        own = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        copy_named(dict(model.named_parameters()), self.average)
        try:
            yield
        finally:
            copy_named(dict(model.named_parameters()), own)


@torch.no_grad()
def copy_named(targets: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor], prefix: str = "") -> None:
    """Copy `values[prefix + name]` into every target, in place."""
    for name, target in targets.items():
        target.copy_(values[prefix + name])
