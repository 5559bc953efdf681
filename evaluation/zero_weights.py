"""Masks from a model itself: where its weights are zero."""

from __future__ import annotations

import torch
from torch import nn

MIN_ZERO_SHARE = 0.1
"""A weight with fewer zeros than this counts as dense."""


def zero_masks(model: nn.Module) -> dict[str, torch.Tensor]:
    """Bool masks of the nonzero entries, by parameter name, of every matrix of which a good part is zero.

    No dense training leaves exact zeros, so these are the links of a sparse one.
    """
    nonzero = {name: parameter.detach() != 0 for name, parameter in model.named_parameters() if parameter.dim() > 1}
    return {name: mask for name, mask in nonzero.items() if mask.numel() and 1 - mask.float().mean() >= MIN_ZERO_SHARE}
