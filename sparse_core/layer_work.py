"""LayerWork: a layer in the middle of an update, its scores and counts beside its mask."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_core import rewire
from sparse_core.constant_fan_in import Exchange, choose_rows
from sparse_core.layer import LayerInput, Moment, SparseLayer, context_of
from sparse_core.method import Method
from sparse_core.scores import Score
from sparse_core.whole_score import score_of


class LayerWork:
    """A layer in the middle of an update."""

    def __init__(self, layer: SparseLayer, given: LayerInput, method: Method, moment: Moment) -> None:
        self.layer, self.given, self.method, self.moment = layer, given, method, moment
        self.active = layer.grid.units_of(layer.mask)
        self.kept = self.active
        self.spared: Tensor | None = None  # units that do not go whatever they score
        self.not_finite = torch.zeros((), dtype=torch.int64, device=self.active.device)

    def count(self) -> None:
        """Beside the mask: active units per group, how many there could be, and nothing exchanged or grown yet."""
        self.counts = self.on_device(self.layer.counts)
        self.room = self.on_device(self.layer.grid.room())
        self.exchanged = torch.zeros_like(self.counts)  # dropped units that grow back, here or elsewhere
        self.rise = torch.zeros_like(self.counts)

    def on_device(self, numbers: list[int]) -> Tensor:
        """Whole numbers as a tensor beside the mask, without waiting for the device."""
        device = self.active.device
        if len(set(numbers)) == 1:
            return torch.full((len(numbers),), numbers[0], dtype=torch.int64, device=device)
        host = torch.tensor(numbers, dtype=torch.int64)
        if device.type != "cpu":
            return host.pin_memory().to(device, non_blocking=True)  # a copy from ordinary memory would wait
        return host

    def score(self, score: Score | None, role: str) -> Tensor:
        """A score pooled over units; zeros where there is none."""
        if score is None:
            return torch.zeros(self.active.shape, device=self.active.device)
        kept = self.layer.grid.mask_of(self.kept) if role == "grow" else None
        context = context_of(self.layer, self.given, self.moment, role, kept)
        values = score_of(score, self.layer, self.given, context)
        return self.layer.grid.scores_of(values if values.is_floating_point() else values.to(self.given.weight.dtype))

    @property
    def may_go(self) -> Tensor:
        """Kept units that may still be dropped."""
        return self.kept if self.spared is None else self.kept & ~self.spared

    def over_ranks(self, tensor: Tensor) -> Tensor:
        """What is counted here of a layer that is spread over ranks, summed; of any other, as it is."""
        return tensor if self.layer.shard is None else self.layer.shard.sum(tensor)

    def drop(self, shrink: Tensor, scores: Tensor) -> None:
        """Drop within the layer: `shrink` units per group for good, and the exchange's quota."""
        left = self.counts - shrink
        quota = rewire.exchange_quota(left, self.room - left, self.moment.rate, self.layer.groups_of)
        done = rewire.drop(self.kept, scores, quota, shrink, self.layer.units_of, self.layer.groups_of)
        self.kept = done.kept
        self.exchanged = done.counts - shrink
        self.not_finite = self.not_finite + done.not_finite

    def drop_by_row(self, total: int) -> None:
        """Drop over the layer for rows of equally many units, `total` in all."""
        fan_in, before = self.method.fan_in, sum(self.layer.counts)
        assert fan_in is not None
        left = min(before, total)
        moved = min(int(left * self.moment.rate), sum(self.layer.grid.room()) - left)
        numbers = (before, before - left + moved, total - left + moved, total)
        done = choose_rows(
            self.active,
            self.layer.grid.allowed,
            self.score(self.method.drop, "drop"),
            self.score(self.method.grow, "grow"),
            Exchange(*(self.on_device([number]) for number in numbers)),
            None if fan_in.spares(self.layer.target, self.layer.last) else fan_in.ablate,
        )
        self.kept = done.kept
        self.exchanged = done.counts - done.kept.sum(dim=1)
        self.not_finite = self.not_finite + done.not_finite

    def finish(self, amount: Tensor) -> Tensor:
        """Grow; returns the new mask of units."""
        if self.method.grow is None or self.moment.prune_only:
            return self.kept
        scores = self.score(self.method.grow, "grow")
        grown = rewire.grow(self.kept, self.layer.grid.allowed, scores, amount, self.layer.units_of)
        self.not_finite = self.not_finite + grown.not_finite
        return grown.units
