"""A threshold that says how many links go (DSR): doubled or halved after an update that dropped too few or too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_core.selection import take_largest

_LOWEST, _HIGHEST = 1e-30, 1e30  # dead weights are below any threshold, and doubling would pass every number


@dataclass(frozen=True)
class Threshold:
    """Links whose score is below one number for all layers go; the number itself follows (Mostafa and Wang 2019).

    Attributes:
        start: the number of the first update.
        tolerance: the number is doubled after an update in which fewer than (1 - tolerance) of the wanted links were below it,
            and halved after one in which more than (1 + tolerance) were.

    Raises:
        ValueError: a value out of range.
    """

    start: float = 1e-3
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if not _LOWEST <= self.start <= _HIGHEST:
            raise ValueError(f"Threshold.start is {self.start}: expected a positive number")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"Threshold.tolerance is {self.tolerance}: expected 0 <= tolerance < 1")

    def first(self, device: torch.device) -> Tensor:
        """The threshold of the first update, a scalar float64."""
        return torch.full((), self.start, dtype=torch.float64, device=device)

    def following(self, now: Tensor, below: Tensor, wanted: Tensor) -> Tensor:
        """The threshold of the next update.

        Args:
            now: this update's, a scalar float64.
            below: how many links were below it, a scalar int64.
            wanted: how many should have been, likewise; 0: the update is none, and the threshold stays.
        """
        factor = torch.where(below < (1 - self.tolerance) * wanted.to(torch.float64), 2.0, 1.0)
        factor = torch.where(below > (1 + self.tolerance) * wanted.to(torch.float64), 0.5, factor)
        return torch.where(wanted > 0, (now * factor).clamp(_LOWEST, _HIGHEST), now)


def count_below(threshold: Tensor, scores: Sequence[Tensor], active: Sequence[Tensor]) -> Tensor:
    """How many active units of all layers have a score below the threshold: a scalar int64."""
    return torch.stack([((score < threshold) & units).sum() for score, units in zip(scores, active, strict=True)]).sum()


def strongest(scores: Tensor, active: Tensor) -> Tensor:
    """(1, units) bool: the active unit with the largest score. A layer that lost it too would have no share in any growth."""
    return take_largest(scores, active, torch.ones(1, dtype=torch.int64, device=active.device)).taken
