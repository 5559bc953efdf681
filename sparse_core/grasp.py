"""GraSP: the links without which the gradient would flow least (Wang, Zhang and Grosse 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sparse_core.probe import unchanged
from sparse_core.start import Start, averaged_over_ranks

LossAt = Callable[[float], Tensor]
"""(temperature) -> the loss of one batch, with logits divided by the temperature."""


def grasp_scores(start: Start, losses: Sequence[LossAt], temperature: float) -> dict[str, Tensor]:
    """theta * (H g) of every weight, largest where the link should stay.

    g is the gradient of the sum of the losses, averaged over ranks, and H the Hessian. To first order the gradient flow g'g
    changes by -2 theta (H g) when a link is removed; the paper removes the links with the largest -theta (H g), so those
    with the largest theta (H g) stay. H g is had by differentiating g'g once more, with the first g held fixed.

    Every loss is computed twice, with the same random numbers. Buffers, random state and `.grad` stay as they are.

    Raises:
        ValueError: a loss with no second derivative, such as that of a network without curvature.
    """
    weights = list(start.parameters.values())
    gradients = [torch.zeros_like(weight) for weight in weights]
    products = [torch.zeros_like(weight) for weight in weights]
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused attentions cannot be differentiated twice
        for loss in losses:
            with unchanged(start.model):
                found = torch.autograd.grad(loss(temperature), weights, allow_unused=True)
                _add(gradients, found)
        for gradient in gradients:
            averaged_over_ranks(gradient)
        for loss in losses:
            with unchanged(start.model):
                found = torch.autograd.grad(loss(temperature), weights, create_graph=True, allow_unused=True)
                parts = [(one * held).sum() for one, held in zip(found, gradients, strict=True) if one is not None]
                flow = torch.stack(parts).sum() if parts else torch.zeros(())
                if flow.requires_grad:
                    _add(products, torch.autograd.grad(flow, weights, allow_unused=True))
    for product in products:
        averaged_over_ranks(product)
    if not any(bool(product.any()) for product in products):
        raise ValueError("GraSP: the second derivative of the loss is zero everywhere, which ranks nothing")
    return {name: weight.detach() * product for (name, weight), product in zip(start.parameters.items(), products, strict=True)}


def _add(sums: list[Tensor], found: Sequence[Tensor | None]) -> None:
    for total, one in zip(sums, found, strict=True):
        if one is not None:
            total += one.detach()
