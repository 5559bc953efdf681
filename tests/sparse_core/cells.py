"""Seeded small trainings for the contract table, and the checks that hold after every one of their steps."""

import math
import random
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from sparse_core import SparseEngine, sparsify
from sparse_core.layer import SparseLayer
from sparse_core.support import METHODS, OPTIMIZERS, STRUCTURES, Cell, SupportTable, support_table

NUM_CASES = 200
NO_RATE = ("Static", "GMP", "Top-KAST", "SR-STE")
NO_UNIT_COUNT = ("SNFS", "GMP", "GraNet", "DSR")  # links move between layers: the total is exact, a layer's number is not fixed

LAYER_COUNT = ("SRigL",)  # links move between the rows of a layer

# What the sizes of a layer must be multiples of: (outputs, inputs).
MULTIPLES = {"2:4": (1, 4), "block": (2, 2), "output groups": (2, 1)}


@cache
def table() -> SupportTable:
    return support_table()


class Tied(nn.Module):
    def __init__(self, size: int, bias: bool) -> None:
        super().__init__()
        self.first = nn.Linear(size, size, bias=bias)
        self.second = nn.Linear(size, size, bias=bias)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


class SelfAttention(nn.Module):
    def __init__(self, size: int, bias: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(size, 2, bias=bias, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@dataclass(frozen=True)
class Case:
    """One seeded training: a model, a batch, and a method's numbers."""

    seed: int
    family: str
    density: float
    rate: float
    every: int
    steps: int
    dtype: torch.dtype


FAMILIES = ("1x1", "7x48", "conv1d", "conv2d", "conv3d", "attention", "tied", "no room", "one link", "several")
MATRICES = ("1x1", "7x48", "attention", "tied", "no room", "one link", "several")
SAME_SIZE = ("1x1", "7x48", "conv2d", "tied", "no room", "one link")  # where units must have equally many weights


def case(number: int, cell: Cell) -> Case:
    """Case `number` of the 200 for this cell: families take turns, the rest is drawn."""
    families: tuple[str, ...] = FAMILIES
    if cell.structure == "kernel":
        families = ("conv1d", "conv2d", "conv3d", "no room", "one link", "several")
    if cell.reason:
        families = tuple(name for name in families if name in SAME_SIZE)
    if cell.optimizer.startswith("Muon"):
        families = tuple(name for name in families if name in MATRICES)
    draw = random.Random(f"{number} {cell.structure}")
    family = families[number % len(families)]
    density = {"no room": 0.9, "one link": 1e-6}.get(family, draw.choice([0.1, 0.3, 0.5, 0.75, 1.0]))
    rate = 0.9 if family == "no room" else draw.choice([0.0, 0.3, 0.5, 0.99])
    dtype = torch.float64 if draw.random() < 0.2 else torch.float32
    return Case(number, family, density, rate, draw.choice([1, 2, 2]), draw.choice([3, 4, 5]), dtype)


def network(one: Case, cell: Cell) -> tuple[nn.Module, Tensor]:
    """The case's model and batch, of sizes that the structure fits."""
    outs, ins = MULTIPLES.get(cell.structure, (1, 1))

    def out(size: int) -> int:
        return math.ceil(size / math.lcm(outs, ins)) * math.lcm(outs, ins)  # also the next layer's inputs

    bias = not cell.optimizer.startswith("Muon")
    convolve = cell.structure == "kernel"
    family = one.family
    if family == "1x1":
        return nn.Sequential(nn.Linear(ins, outs, bias=bias)), torch.randn(2, ins)
    if family in ("7x48", "no room", "one link"):
        if convolve:
            return nn.Conv2d(3, 5, 2, bias=bias), torch.randn(2, 3, 4, 4)
        return nn.Linear(48, out(7), bias=bias), torch.randn(3, 48)
    if family == "conv1d":
        convolution: nn.Module = nn.Conv1d(4, out(6), 2, bias=bias)
        return nn.Sequential(convolution, nn.Tanh(), nn.Conv1d(out(6), 4, 1, bias=bias)), torch.randn(2, 4, 5)
    if family == "conv2d":
        return nn.Conv2d(4, out(6), 3, bias=bias, groups=1 if ins > 1 or outs > 1 else 2), torch.randn(2, 4, 4, 4)
    if family == "conv3d":
        return nn.Conv3d(4, 4, 2, bias=bias), torch.randn(1, 4, 3, 3, 3)
    if family == "attention":
        return SelfAttention(8, bias), torch.randn(2, 3, 8)
    if family == "tied":
        return Tied(8, bias), torch.randn(3, 8)
    if convolve:
        layers: list[nn.Module] = [nn.Conv2d(2, 5, 3, bias=bias), nn.Tanh(), nn.Conv2d(5, 3, 1, bias=bias)]
        return nn.Sequential(*layers), torch.randn(2, 2, 4, 4)
    sizes = [8, out(12), out(5), out(2)]
    layers = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=bias), nn.Tanh()]
    return nn.Sequential(*layers), torch.randn(4, 8)


def run(one: Case, cell: Cell) -> int:
    """Train the case and check it after every step; returns the number of updates."""
    torch.manual_seed(one.seed)
    model, batch = network(one, cell)
    model, batch = model.to(one.dtype), batch.to(one.dtype)
    options = {} if cell.method in NO_RATE else {"rate": one.rate}
    end = one.steps - 1
    method = METHODS[cell.method](
        density=one.density, end=end, every=one.every, structure=STRUCTURES[cell.structure], **options
    )
    optimizer = OPTIMIZERS[cell.optimizer](list(model.parameters()))
    engine = sparsify(model, optimizer, method, seed=one.seed)
    try:
        check = Checks(engine, optimizer, cell, one.every)
        target = torch.randn_like(model(batch))
        for step in range(1, one.steps + 1):
            optimizer.zero_grad()
            update = method.every is not None and step % one.every == 0 and step <= end
            if update:
                check.plant_zeros(one.seed + step)
            (model(batch) - target).square().mean().backward()
            check.before(update)
            optimizer.step()
            check.after(step, update)
        return engine.updates
    finally:
        engine.detach()


class Checks:
    """What the contract says, checked with no more than masks, weights, gradients and optimizer state."""

    def __init__(self, engine: SparseEngine, optimizer: torch.optim.Optimizer, cell: Cell, every: int) -> None:
        self.engine, self.optimizer, self.cell, self.every = engine, optimizer, cell, every
        self.layers: list[SparseLayer] = engine._layers
        self.counts = self.group_counts()
        self.old = self.copies()
        self.rest()

    def copies(self) -> dict[str, Tensor]:
        return {name: mask.clone() for name, mask in self.engine.masks.items()}

    def group_counts(self) -> dict[str, list[int]]:
        """Active units of every group, counted in the masks; units must be whole."""
        counts = {}
        for layer in self.layers:
            members = layer.grid.members_of(layer.mask)
            assert torch.equal(members.any(-1), members.all(-1)), f"{layer.name}: a unit is cut"
            counts[layer.name] = members.all(-1).sum(1).tolist()
        return counts

    def plant_zeros(self, seed: int) -> None:
        """Make a third of the active weights exactly zero: still they are active, and the others are not."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in self.layers:
                keep = torch.rand(layer.mask.shape, generator=generator) > 1 / 3
                layer.target.parameter.mul_(keep)

    def before(self, update: bool) -> None:
        self.old = self.copies()
        self.proposal = self.engine.propose() if update else None
        self.weights = {layer.name: layer.target.parameter.detach().clone() for layer in self.layers}
        self.gradients = {layer.name: layer.target.parameter.grad.clone() for layer in self.layers}  # type: ignore[union-attr]

    def after(self, step: int, update: bool) -> None:
        if update and self.engine.method.off_mask is not None:
            self.largest(step)
        elif update:
            self.changes(step)
        else:
            for name, mask in self.engine.masks.items():
                assert torch.equal(mask, self.old[name]), f"{name} changed in an ordinary step"
        self.numbers(step, update)
        self.rest()

    def changes(self, step: int) -> None:
        assert self.proposal is not None
        rate = self.engine.method.rate_at(step)
        for layer in self.layers:
            name, old, new = layer.name, self.old[layer.name], self.engine.masks[layer.name]
            dropped, grown = self.proposal.dropped[name], self.proposal.grown[name]
            kept = old & ~dropped
            assert not (dropped & ~old).any(), f"{name}: dropped what was not active"
            assert not (grown & old).any(), f"{name}: grew what was active"
            assert torch.equal(new & ~old, grown), f"{name}: grew something else than proposed"
            assert not (kept & ~new).any(), f"{name}: lost what was kept"
            if layer.grid.allowed is not None:
                assert not (layer.grid.units_of(new) & ~layer.grid.allowed).any(), f"{name}: grew outside of the region"
            own_share = not callable(self.engine.method.density) and self.engine.method.threshold is None
            if own_share and layer.grid.groups == 1:
                active = self.counts[name][0]
                wanted = min(math.floor(rate * active), layer.grid.room()[0] - active)
                assert int(dropped.sum()) == wanted * layer.grid.members, f"{name}: dropped {int(dropped.sum())}"
            if layer.grid.members == 1 and layer.grid.groups == 1:
                self.best_went(layer, old, dropped, new)

    def largest(self, step: int) -> None:
        """Where weights off the mask live on: of all weights the largest are links, and of the others the largest move."""
        density = self.engine.method.density_at(step)
        last = self.engine.method.end is not None and step == self.engine.method.end // self.every * self.every
        for layer in self.layers:
            size = layer.grid.scores_of(self.engine.dense_weights()[layer.name].abs())
            links, moving = (layer.grid.units_of(mask) for mask in (layer.mask, layer.moving))
            allowed = torch.ones_like(links) if layer.grid.allowed is None else layer.grid.allowed
            at_most(size, allowed & ~links, links)
            at_most(size, allowed & ~moving, moving & ~links)
            share = 0.0 if last else self.engine.method.off_mask.share(density)  # type: ignore[union-attr, arg-type]
            wanted = [math.floor(share * free + 0.5) for free in (allowed & ~links).sum(1).tolist()]
            assert (moving & ~links).sum(1).tolist() == wanted, f"{layer.name}: {wanted} weights off the mask should move"

    def best_went(self, layer: SparseLayer, old: Tensor, dropped: Tensor, new: Tensor) -> None:
        """No kept link is worse than a dropped one, no idle link better than a grown one, where the score is plain."""
        kept = old & ~dropped
        size = self.weights[layer.name].abs()
        if self.cell.method in ("RigL", "GraNet") and dropped.any() and kept.any():
            assert size[dropped].max() <= size[kept].min(), layer.name
        slope = self.gradients[layer.name].abs()
        came = new & ~kept
        idle = ~new if layer.grid.allowed is None else ~new & layer.grid.mask_of(layer.grid.allowed)
        if self.cell.method in ("RigL", "GraNet") and came.any() and idle.any():
            assert slope[came].min() >= slope[idle].max(), layer.name

    def numbers(self, step: int, update: bool) -> None:
        """Counts exact: in the masks, in the report, and as the method's density says."""
        report, found = self.engine.report(), self.group_counts()
        for layer, line in zip(self.layers, report.layers, strict=True):
            assert line.links == int(self.engine.masks[layer.name].sum()) == sum(found[layer.name]) * layer.grid.members
            assert line.explored == int(self.engine.explored[layer.name].sum()) >= line.links
        density = self.engine.method.density
        if not callable(density):
            if self.cell.method in NO_UNIT_COUNT:
                assert sum(map(sum, found.values())) == sum(map(sum, self.counts.values()))
            elif self.cell.method in LAYER_COUNT:
                assert {name: sum(rows) for name, rows in found.items()} == {
                    name: sum(rows) for name, rows in self.counts.items()
                }
                for name, rows in found.items():
                    alive = [links for links in rows if links]
                    assert max(alive) - min(alive) <= 1, f"{name}: {rows}"
                    assert alive == sorted(alive, reverse=True), f"{name}: {rows}"
            else:
                assert found == self.counts
        elif update and self.layers[0].grid.members == 1 and self.layers[0].grid.groups == 1:
            wanted = round(self.engine.method.density_at(step) * report.size)  # type: ignore[operator]
            assert report.links == max(wanted, len(self.layers)), f"{report.links} links, not {wanted}"
        self.counts = found

    def rest(self) -> None:
        """Weight and every state of the weight's shape are zero off the mask, and all is finite.

        Where weights off the mask live on, the engine holds them, and what moves has state.
        """
        for layer in self.layers:
            parameter = layer.target.parameter
            off = ~self.engine.masks[layer.name]
            if layer.off_mask is not None:
                assert not layer.off_mask.values[~off].any(), f"{layer.name}: a link has another value off the mask"
                assert torch.isfinite(layer.off_mask.values).all(), f"{layer.name}: off the mask it is not finite"
                assert not (~off & ~layer.moving).any(), f"{layer.name}: a link does not move"
                if layer.grid.allowed is not None:
                    outside = ~layer.grid.mask_of(layer.grid.allowed)
                    assert not layer.off_mask.values[outside].any(), f"{layer.name}: weights outside of the region"
            state = self.optimizer.state.get(parameter, {})
            alike = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.shape == parameter.shape}
            for key, value in {"weight": parameter.detach(), **alike}.items():
                assert torch.isfinite(value).all(), f"{layer.name}: {key} is not finite"
                idle = off if key == "weight" else ~layer.moving
                assert not value[idle].count_nonzero(), f"{layer.name}: {key} is not zero off the mask"


def at_most(size: Tensor, small: Tensor, large: Tensor) -> None:
    """In every group, no unit of `small` is larger than one of `large`."""
    most = torch.where(small, size, -torch.inf).amax(1)
    least = torch.where(large, size, torch.inf).amin(1)
    assert (most <= least).all(), f"{most} above {least}"
