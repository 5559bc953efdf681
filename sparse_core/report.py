"""What an engine has made of a model: links, density, exploration, dead rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sparse_core.layer import SparseLayer
from sparse_core.method import Method


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        name: the parameter's name.
        shape: its shape.
        links: active links.
        size: links that are allowed.
        explored: links that were ever active.
        dead_rows: rows without a link, by index: ablated ones among them.
        dead_inputs: columns without a link.
    """

    name: str
    shape: tuple[int, ...]
    links: int
    size: int
    explored: int
    dead_rows: tuple[int, ...]
    dead_inputs: int

    @property
    def dead_outputs(self) -> int:
        """How many rows have no link."""
        return len(self.dead_rows)

    @property
    def density(self) -> float:
        """Active over allowed links."""
        return self.links / self.size

    @property
    def exploration(self) -> float:
        """ITOP's exploration rate: links ever active over allowed links."""
        return self.explored / self.size


@dataclass(frozen=True)
class Report:
    """All layers of an engine.

    Attributes:
        method: the method in words.
        steps: optimizer steps so far.
        updates: updates so far.
        layers: one entry a layer.
        wanted: the density that was asked for, of all layers without a fixed one; None where the layout decides.
    """

    method: dict[str, object]
    steps: int
    updates: int
    layers: tuple[LayerReport, ...]
    wanted: float | None

    @property
    def links(self) -> int:
        """Active links of all layers."""
        return sum(layer.links for layer in self.layers)

    @property
    def size(self) -> int:
        """Allowed links of all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def density(self) -> float:
        """Active over allowed links of all layers: where a structure cannot have the wanted number, the nearest it can."""
        return self.links / self.size

    @property
    def exploration(self) -> float:
        """Links ever active over allowed links."""
        return sum(layer.explored for layer in self.layers) / self.size

    def __str__(self) -> str:
        width = max(len("all layers"), *(len(layer.name) for layer in self.layers))
        lines = [
            f"{'layer':<{width}}  {'shape':>16} {'links':>10} {'density':>8} {'explored':>8} {'dead out':>8} {'dead in':>8}"
        ]
        for layer in self.layers:
            shape = "x".join(map(str, layer.shape))
            lines.append(
                f"{layer.name:<{width}}  {shape:>16} {layer.links:>10,} {layer.density:>8.4f} {layer.exploration:>8.4f} "
                f"{layer.dead_outputs:>8} {layer.dead_inputs:>8}"
            )
        wanted = "" if self.wanted is None else f", asked for {self.wanted:.4f}"
        lines.append(
            f"{'all layers':<{width}}  {'':>16} {self.links:>10,} {self.density:>8.4f} {self.exploration:>8.4f}"
            f"   after {self.updates} updates in {self.steps} steps{wanted}"
        )
        if self.method["fan_in"] != "none":
            lines += [f"ablated in {layer.name}: {_few(layer.dead_rows)}" for layer in self.layers if layer.dead_rows]
        return "\n".join(lines)


def _few(numbers: tuple[int, ...], most: int = 20) -> str:
    """Numbers in a line; of many, the first ones and how many more there are."""
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more


def make_report(layers: Sequence[SparseLayer], method: Method, steps: int, updates: int) -> Report:
    """The report of an engine's layers. Reads from the device; under FSDP2, from all ranks."""
    rows = []
    for layer in layers:
        silent = ~layer.mask.flatten(1).any(dim=1)
        by_input = layer.mask.movedim(1, 0).flatten(1)
        unused, explored = ~by_input.any(dim=1), layer.explored.sum()
        if layer.shard is not None:
            silent, explored = layer.shard.gathered(silent.view(-1, 1)).view(-1), layer.shard.sum(explored)
            unused = layer.shard.largest((~unused).to(torch.uint8)) == 0
        rows.append(
            LayerReport(
                layer.name,
                tuple(layer.target.parameter.shape),
                layer.links,
                layer.size,
                int(explored.item()),
                tuple(silent.nonzero().view(-1).tolist()),
                int(unused.sum().item()),
            )
        )
    return Report(dict(method.describe()), steps, updates, tuple(rows), method.density_at(steps))
