"""Which tokens see which: the nearest ones, as lists of neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from limtr.nearest import mask_of, nearest


@dataclass(frozen=True)
class Neighbors:
    """The neighbours of each of L tokens.

    Attributes:
        index: (B, L, K) int64 rows of tokens.
        seen: (B, L, K) bool, which of them count: all False for an invalid token, and False for invalid neighbours.
    """

    index: torch.Tensor
    seen: torch.Tensor

    def allowed(self) -> torch.Tensor:
        """(B, L, L) bool: [b, i, j] says that token i sees token j."""
        return mask_of(self.index, self.seen, self.index.shape[1])


def nearest_tokens(position: torch.Tensor, valid: torch.Tensor, count: int) -> Neighbors:
    """The `count` valid tokens nearest to every token, itself included.

    Args:
        position: (B, L, 3) metres.
        valid: (B, L) bool.
        count: how many; fewer count where fewer are valid.
    """
    with torch.no_grad():
        squared = position.new_zeros((*valid.shape, valid.shape[1]))
        for axis in range(position.shape[-1]):
            difference = position[:, :, None, axis] - position[:, None, :, axis]
            squared += difference.square_()
        squared.masked_fill_(~valid[:, None, :], float("inf"))
        distance, index = nearest(squared, count)
        return Neighbors(index, (distance < float("inf")) & valid.unsqueeze(-1))
