"""What a layout that ranks links is given to rank them: the dense network, and how much of it may stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Start:
    """A network before its first mask.

    Attributes:
        model: the model, as `sparsify` was given it.
        parameters: by name, the weights that are ranked together.
        fixed: the weights with a density of their own, with their masks.
        density: the share of the ranked links that stays in the end.
        keep: (scores by name, share) -> masks of the best share of the links, as the structure has it.
    """

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    fixed: Sequence[tuple[nn.Parameter, Tensor]]
    density: float
    keep: Callable[[Mapping[str, Tensor], float], dict[str, Tensor]]


def averaged_over_ranks(tensor: Tensor) -> Tensor:
    """The mean over all ranks, in place; without ranks, the tensor itself."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(tensor)
        tensor /= distributed.get_world_size()
    return tensor
