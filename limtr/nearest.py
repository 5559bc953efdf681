"""The nearest of some things as a mask, in a form that also exports for any number of them."""

from __future__ import annotations

import torch
from torch.nn import functional


def nearest_mask(distance: torch.Tensor, count: int) -> torch.Tensor:
    """Which `count` entries of each row are smallest; all of them where a row is shorter.

    Args:
        distance: (..., L), infinite for what must not be taken before others.
        count: how many; at most as many are True. Which of several equal ones is not defined.

    Returns:
        (..., L) bool.
    """
    length = distance.shape[-1]
    if torch.compiler.is_exporting():
        # A graph for any L has no min(count, L): a row is made long enough instead.
        padded = functional.pad(distance, (0, count), value=float("inf"))
        index = padded.topk(count, dim=-1, largest=False, sorted=False).indices
        return torch.zeros_like(padded, dtype=torch.bool).scatter(-1, index, True)[..., :length]
    index = distance.topk(min(count, length), dim=-1, largest=False, sorted=False).indices
    return torch.zeros_like(distance, dtype=torch.bool).scatter_(-1, index, True)
