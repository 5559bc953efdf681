"""A multi-layer perceptron, its initial weights, and one training of it on digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from sparse_core.engine import SparseEngine
from sparse_core.family.data import Split


def perceptron(sizes: Sequence[int], seed: int, std: float | None = None) -> nn.Sequential:
    """Linear layers with ReLU between them; biases are 0. Draws nothing from torch's global generator.

    Args:
        sizes: units per layer, inputs and outputs included.
        seed: of the weights.
        std: of the normal initial weights; None: sqrt(2 / inputs) (He et al. 2015).
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        linear = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            linear.weight.normal_(0, math.sqrt(2 / inputs) if std is None else std, generator=generator)
            linear.bias.zero_()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def sgd(model: nn.Module, settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    """SGD with the `lr`, `momentum` and `weight_decay` of a run."""
    lr, momentum, decay = (settings[key] for key in ("lr", "momentum", "weight_decay"))
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=decay, fused=True)


@torch.no_grad()
def scale_up(engine: SparseEngine, model: nn.Module) -> None:
    """Scale initial weights by density ** -0.5, layer by layer: the signal that a sparse layer passes on is as strong as a
    dense one's."""
    for name, mask in engine.masks.items():
        model.get_parameter(name).mul_(mask.float().mean().rsqrt())


@dataclass
class Curve:
    """Accuracy on the test images, in [0, 1], after so many optimizer steps."""

    steps: list[int] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    split: Split,
    steps: int,
    batch: int,
    evaluations: int,
    seed: int,
    advance: Callable[[int], None],
    before_step: Callable[[int], None] | None = None,
) -> Curve:
    """Train by cross-entropy; every epoch sees each training image once, in an order of its own.

    Args:
        evaluations: how often the test images are looked at, evenly spread, the last time after the last step. Nothing is
            chosen by what they show.
        seed: of the order.
        advance: told how many steps have been taken since it was last called.
        before_step: called with the step's number, from 1, between the backward pass and the optimizer's step.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    loss_of = nn.CrossEntropyLoss()
    curve = Curve()
    order = torch.empty(0, dtype=torch.int64)
    looks = {round(steps * (look + 1) / evaluations) for look in range(evaluations)}
    last_look = 0
    for step in range(1, steps + 1):
        if len(order) < batch:
            order = torch.randperm(len(split.train_labels), generator=generator)
        chosen, order = order[:batch], order[batch:]
        loss = loss_of(model(split.train_images[chosen]), split.train_labels[chosen])
        loss.backward()
        if before_step is not None:
            before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        if step in looks:
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"the loss is not finite at step {step}; try a smaller learning rate")
            curve.steps.append(step)
            curve.accuracy.append(accuracy(model, split))
            advance(step - last_look)
            last_look = step
    return curve


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """The share of test images whose digit is named."""
    return float((model(split.test_images).argmax(dim=1) == split.test_labels).float().mean())
