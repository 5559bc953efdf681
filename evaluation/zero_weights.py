"""Masks from a model itself: where its linear weights are zero, and pruning by magnitude where only time matters."""

from __future__ import annotations

import torch
from torch import nn

MIN_ZERO_SHARE = 0.1
"""A layer with fewer zeros than this counts as dense."""


def zero_masks(model: nn.Module) -> dict[str, torch.Tensor]:
    """Bool masks of the nonzero weights, by parameter name, of every Linear with at least `MIN_ZERO_SHARE` zeros."""
    masks = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.weight.numel():
            mask = module.weight.detach() != 0
            if 1 - mask.float().mean() >= MIN_ZERO_SHARE:
                masks[f"{name}.weight" if name else "weight"] = mask
    return masks


@torch.no_grad()
def prune_by_magnitude(model: nn.Module, density: float) -> None:
    """Set the smallest weights of every Linear to zero so that the share `density` stays; in place.

    For timing: what an untrained or unadapted model predicts afterwards is worth nothing.

    Raises:
        ValueError: the density is not in (0, 1).
    """
    if not 0.0 < density < 1.0:
        raise ValueError(f"density must be between 0 and 1, is {density}")
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight.numel():
            magnitude = module.weight.abs().flatten()
            keep = max(1, round(density * magnitude.numel()))
            mask = torch.zeros_like(magnitude, dtype=torch.bool)
            mask[magnitude.topk(keep).indices] = True
            module.weight.mul_(mask.reshape(module.weight.shape))
