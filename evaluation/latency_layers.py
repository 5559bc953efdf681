"""Which layers are faster sparse: the decisions of `compile_sparse`, summed up by parts of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from sparse_core.sparse.compile import Decision

_PREFIX = "model."
_PART_DEPTH = 2


@dataclass(frozen=True, kw_only=True)
class PartSummary:
    """The sparse weights of one part of the model.

    Attributes:
        part: such as `encoder.lidar_encoder`.
        weights: how many there are.
        density: least and largest.
        replaced: how many run as sparse layers.
        dense_s: all calls of those that were measured, as dense layers.
        sparse_s: the same as sparse layers.
        chosen_s: the same as each was decided.
        kept: why the others stay dense, and how many of them.
    """

    part: str
    weights: int
    density: tuple[float, float]
    replaced: int
    dense_s: float
    sparse_s: float
    chosen_s: float
    kept: dict[str, int]


def part_of(name: str) -> str:
    """The part of the model that a weight belongs to."""
    return ".".join(name.removeprefix(_PREFIX).split(".")[:_PART_DEPTH])


def by_part(decisions: Sequence[Decision]) -> list[PartSummary]:
    """Decisions summed up, parts in the model's order."""
    parts: dict[str, list[Decision]] = {}
    for decision in decisions:
        parts.setdefault(part_of(decision.layer), []).append(decision)
    return [_summary(part, group) for part, group in parts.items()]


def _summary(part: str, group: Sequence[Decision]) -> PartSummary:
    densities = [decision.density for decision in group]
    measured = [(d.dense_s, d.sparse_s, d.replaced) for d in group if d.dense_s is not None and d.sparse_s is not None]
    return PartSummary(
        part=part,
        weights=len(group),
        density=(min(densities), max(densities)),
        replaced=sum(decision.replaced for decision in group),
        dense_s=sum(dense for dense, _, _ in measured),
        sparse_s=sum(sparse for _, sparse, _ in measured),
        chosen_s=sum(sparse if replaced else dense for dense, sparse, replaced in measured),
        kept=dict(Counter(decision.reason for decision in group if not decision.replaced)),
    )


def layers_table(parts: Sequence[PartSummary], title: str) -> Table:
    """A row per part, and one of all together."""
    table = Table(title=title, title_justify="left")
    table.add_column("part")
    for name in ("weights", "density", "sparse", "all dense ms", "all sparse ms", "as chosen ms"):
        table.add_column(name, justify="right")
    table.add_column("stays dense")
    for part in parts:
        low, high = part.density
        density = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f}-{high:.2f}"
        kept = "; ".join(f"{count}: {reason}" for reason, count in part.kept.items())
        times = (f"{1e3 * seconds:.2f}" for seconds in (part.dense_s, part.sparse_s, part.chosen_s))
        table.add_row(part.part, str(part.weights), density, str(part.replaced), *times, kept)
    table.add_section()
    sums = (f"{1e3 * sum(getattr(part, name) for part in parts):.2f}" for name in ("dense_s", "sparse_s", "chosen_s"))
    weights, replaced = (str(sum(getattr(part, name) for part in parts)) for name in ("weights", "replaced"))
    table.add_row("together", weights, "", replaced, *sums, "")
    return table


def as_rows(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """Every decision as plain values, for the file of numbers."""
    return [
        {
            "weight": decision.layer.removeprefix(_PREFIX), "density": decision.density, "sparse": decision.replaced,
            "dense_s": decision.dense_s, "sparse_s": decision.sparse_s, "reason": decision.reason,
            "inputs": [{"shape": list(shape), "calls": calls} for shape, calls in decision.inputs],
        }
        for decision in decisions
    ]  # fmt: skip
