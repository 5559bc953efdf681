"""Top-KAST and SR-STE as their papers write them down: dense weights in plain PyTorch, masked in the forward pass alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


class StraightThrough(torch.autograd.Function):
    """w masked forwards; backwards the gradient of the masked weight goes to the dense one as it is."""

    @staticmethod
    def forward(ctx: object, weight: Tensor, mask: Tensor) -> Tensor:
        return weight * mask

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def largest(weight: Tensor, density: float) -> Tensor:
    """The mask of the largest |w| of a whole weight."""
    order = weight.abs().reshape(-1).argsort(descending=True)[: round(density * weight.numel())]
    return torch.zeros(weight.numel(), dtype=torch.bool).index_fill_(0, order, True).view_as(weight)


def largest_of_neighbours(weight: Tensor, count: int, size: int) -> Tensor:
    """N:M: the mask of the `count` largest |w| of every `size` neighbouring inputs."""
    groups = weight.abs().reshape(-1, size)
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, groups.topk(count).indices, True).view_as(weight)


@dataclass
class DenseLoop:
    """tanh(x W1^T + b1) W2^T + b2 on squares, with dense weights and masks that are chosen anew every so many steps.

    Attributes:
        weights: W1, W2, dense; biases: b1, b2.
        optimizer: of all of them.
        links: (weight) -> forward set A.
        moving: (weight) -> backward set B, of which A is a part.
        penalty: (weight, A, B) -> what joins the gradient.
        every: steps between choices; end: the last step before whose successor there is one, after which B is A.
    """

    weights: list[nn.Parameter]
    biases: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    links: Callable[[Tensor], Tensor]
    moving: Callable[[Tensor], Tensor]
    penalty: Callable[[Tensor, Tensor, Tensor], Tensor]
    every: int = 1
    end: int | None = None
    steps: int = 0
    masks: list[Tensor] = field(default_factory=list)
    moved: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.choose()

    @torch.no_grad()
    def choose(self) -> None:
        over = self.end is not None and self.steps + self.every > self.end
        self.masks = [self.links(weight) for weight in self.weights]
        self.moved = self.masks if over else [self.moving(weight) for weight in self.weights]

    def step(self, x: Tensor, y: Tensor) -> None:
        first, second = (StraightThrough.apply(*pair) for pair in zip(self.weights, self.masks, strict=True))
        loss = (torch.tanh(x @ first.T + self.biases[0]) @ second.T + self.biases[1] - y).square().mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            rest = []
            for weight, mask, moved in zip(self.weights, self.masks, self.moved, strict=True):
                assert weight.grad is not None
                weight.grad.mul_(moved).add_(self.penalty(weight, mask, moved))
                rest.append(torch.where(moved, 0.0, weight))
            self.optimizer.step()
            for weight, moved, before in zip(self.weights, self.moved, rest, strict=True):
                weight.copy_(torch.where(moved, weight, before))  # weight decay does not reach what is off B
            self.steps += 1
            if self.steps % self.every == 0 and (self.end is None or self.steps <= self.end):
                before_ = self.moved
                self.choose()
                for weight, old, new in zip(self.weights, before_, self.moved, strict=True):
                    buffer = self.optimizer.state[weight].get("momentum_buffer")
                    if buffer is not None:
                        buffer.mul_(old & new)
