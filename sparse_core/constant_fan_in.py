"""Constant fan-in with ablated neurons (SRigL): links compete over a layer, and the rows that stay have equally many."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from sparse_core.layout import share_out
from sparse_core.selection import ranks, take_largest, take_smallest
from sparse_core.targets import Pattern, Target

_INPUTS_FIRST = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class ConstantFanIn:
    """Rows of equally many links, of which those with few salient links are ablated (Lasby et al. 2024).

    A layer keeps its number of links to the last one: with `rows` that stay, each has links // rows, and the first
    links % rows of them one more. A row's bias goes on as it was. Rows that are ablated come back when gradients ask for them.

    Attributes:
        ablate: a row without max(1, ablate * fan-in) salient links is ablated, in [0, 1]; None: none ever is.
        spare: layers whose rows all stay: globs over parameter or module names, or predicates (name, parameter) -> bool. None:
            the last of the sparse layers, for a network without one of its outputs is another network. Name the layers where
            a model has several heads, or where the last sparse layer feeds others.

    Raises:
        ValueError: an `ablate` out of range.
    """

    ablate: float | None = 0.3
    spare: tuple[Pattern, ...] | None = None

    def __post_init__(self) -> None:
        if self.ablate is not None and not 0 <= self.ablate <= 1:
            raise ValueError(f"ConstantFanIn.ablate is {self.ablate}: expected 0 <= ablate <= 1, or None to ablate nothing")
        if isinstance(self.spare, str) or callable(self.spare):
            object.__setattr__(self, "spare", (self.spare,))
        elif self.spare is not None:
            object.__setattr__(self, "spare", tuple(self.spare))

    def spares(self, target: Target, last: bool) -> bool:
        """Whether all rows of a layer stay. `last`: it is the last of the sparse layers."""
        if self.ablate is None:
            return True
        if self.spare is None:
            return last
        return any(_fits(pattern, target) for pattern in self.spare)

    def check(self, targets: list[Target]) -> None:
        """Raise ValueError for a glob that fits none of the sparse weights, and for a weight whose rows are no outputs."""
        for target in targets:
            if isinstance(target.owner, _INPUTS_FIRST):
                raise ValueError(
                    f"{target.name}: Method.fan_in gives every row its links, and the rows of a transposed convolution are its "
                    "inputs; exclude this weight"
                )
        for pattern in self.spare or ():
            if isinstance(pattern, str) and not any(_fits(pattern, target) for target in targets):
                raise ValueError(f"spare: {pattern!r} matches none of the sparse weights {[one.name for one in targets][:5]}")

    def __str__(self) -> str:
        names = None if self.spare is None else [getattr(one, "__name__", one) for one in self.spare]
        return f"ablate {self.ablate}, spare {'the last' if names is None else names}"


def _fits(pattern: Pattern, target: Target) -> bool:
    if callable(pattern):
        return pattern(target.name, target.parameter)
    return fnmatchcase(target.name, pattern) or fnmatchcase(target.name.rpartition(".")[0], pattern)


@dataclass(frozen=True, eq=False)
class Rows:
    """The drop half of an update.

    Attributes:
        kept: (rows, units) bool.
        counts: (rows,) int64, active units that each row is to have in the end; 0: ablated.
        not_finite: how many active units had a score that is not finite.
    """

    kept: Tensor
    counts: Tensor
    not_finite: Tensor


@dataclass(frozen=True, eq=False)
class Exchange:
    """How many units of a layer go and come: (1,) int64 each.

    Attributes:
        before: active units before the update.
        dropped: those of them with the smallest scores that go, and those that only gradients would choose.
        grown: how many units gradients choose.
        after: active units after the update.
    """

    before: Tensor
    dropped: Tensor
    grown: Tensor
    after: Tensor


def even_counts(total: int | Tensor, room: Tensor) -> Tensor:
    """(rows,) int64: `total` units over rows in proportion to their room, rows of equal room differing by one at most."""
    return share_out(total, room.to(torch.float64), room)


def choose_rows(
    active: Tensor, allowed: Tensor | None, drop_scores: Tensor, grow_scores: Tensor, exchange: Exchange, ablate: float | None
) -> Rows:
    """Which units stay, and how many each row is to have; what a row lacks then is for its gradients to fill.

    Salient are the active units that survive a drop over the whole layer, and as many of the others as have the largest
    gradients. Rows with too few of them are ablated, as long as the others can hold all links; what is left of a row
    beyond its count goes too, the smallest first. Nothing is read back from the device.

    Args:
        active: (rows, units) bool.
        allowed: (rows, units) bool, or None for everywhere.
        drop_scores: (rows, units), float32 or float64: the smallest go. Likewise `grow_scores`: the largest come.
        exchange: how many.
        ablate: see `ConstantFanIn`; None: every row stays.
    """
    room = torch.full_like(exchange.before, active.shape[1]).expand(len(active)) if allowed is None else allowed.sum(dim=1)
    gone = take_smallest(drop_scores.reshape(1, -1), active.reshape(1, -1), exchange.dropped)
    kept = active & ~gone.taken.view_as(active)
    places = room
    if ablate is not None:
        candidates = ~kept if allowed is None else allowed & ~kept
        wanted = take_largest(grow_scores.reshape(1, -1), candidates.reshape(1, -1), exchange.grown).taken.view_as(kept)
        salient = (kept | wanted).sum(dim=1)
        fan_in = exchange.before // active.any(dim=1).sum().clamp(min=1)
        enough = salient >= (fan_in.to(torch.float64) * ablate).clamp(min=1)
        places = room * (enough | _needed(salient, room, exchange.after))
    counts = even_counts(exchange.after, places)
    surplus = (kept.sum(dim=1) - counts).clamp(min=0)
    kept = kept & (ranks(-drop_scores, kept) >= surplus.unsqueeze(1))
    return Rows(kept, counts, gone.not_finite)


def _needed(salient: Tensor, room: Tensor, total: Tensor) -> Tensor:
    """(rows,) bool: the most salient rows (equal ones by index), as many as it takes to hold `total` units."""
    order = salient.argsort(descending=True, stable=True)
    filled = room[order].cumsum(0)
    return torch.empty_like(filled, dtype=torch.bool).scatter_(0, order, filled - room[order] < total)
