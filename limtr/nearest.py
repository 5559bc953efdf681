"""The nearest of some things, as places or as a mask, in a form that also exports for any number of them."""

from __future__ import annotations

import torch
from torch.nn import functional


def nearest(distance: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` smallest entries of each row, in no order; all of them where a row is shorter.

    While a graph is exported there are always `count`: it has no min(count, L) for any L, so that a row is made long enough
    instead. Places from L on then stand for nothing; their distance is infinite.

    Args:
        distance: (..., L), infinite for what must not be taken before others.
        count: how many.

    Returns:
        distances (..., count) and places (..., count). Which of several equal ones is taken is not defined.
    """
    if torch.compiler.is_exporting():
        found = functional.pad(distance, (0, count), value=float("inf")).topk(count, dim=-1, largest=False, sorted=False)
    else:
        found = distance.topk(min(count, distance.shape[-1]), dim=-1, largest=False, sorted=False)
    return found.values, found.indices


def mask_of(index: torch.Tensor, wanted: torch.Tensor | bool, length: int) -> torch.Tensor:
    """(..., length) bool: the places of `index` (..., count), as `nearest` gives them, that are `wanted` (of its shape)."""
    width = length + index.shape[-1] if torch.compiler.is_exporting() else length
    nothing = torch.zeros((*index.shape[:-1], width), dtype=torch.bool, device=index.device)
    return nothing.scatter(-1, index, wanted)[..., :length]


def nearest_mask(distance: torch.Tensor, count: int) -> torch.Tensor:
    """Which `count` entries of each row (..., L) are smallest, as (..., L) bool; see `nearest`."""
    return mask_of(nearest(distance, count)[1], True, distance.shape[-1])
