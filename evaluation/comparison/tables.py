"""The tables of a comparison, as rows of text: for the terminal and for compare.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.comparison.analyse import Comparison
from evaluation.comparison.cost import Cost
from evaluation.comparison.verdicts import NAMES, SHOWN, UNITS, better_or_worse, class_name, excludes_zero
from evaluation.metric_config import METRIC_NAMES
from evaluation.table import DIGITS
from limtr.scene import ObjectType


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Rows of text under a head; `left` columns are aligned to the left, the others to the right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1

    def as_markdown(self) -> str:
        """As a table of a Markdown document."""
        marks = [":--" if index < self.left else "--:" for index in range(len(self.head))]
        lines = [self.head, tuple(marks), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def quality_table(comparison: Comparison) -> TextTable:
    """Means over horizons of every class, variant and metric; under other variants the difference to the first.

    A difference is bold, with an arrow to the better or worse, only where its interval excludes zero.
    """
    types = comparison.scenes.rows["object_type"]
    rows: list[tuple[str, ...]] = []
    for position, kind in comparison.shown_classes():
        label = class_name(kind) if kind == "mean" else f"{class_name(kind)} ({int((types == ObjectType[kind]).sum())})"
        for name, numbers in comparison.variants.items():
            cells = [_value(numbers.values.estimate[position, -1, METRIC_NAMES.index(metric)], metric) for metric in SHOWN]
            rows.append((label, name, *cells))
            label = ""
            if numbers.difference is not None:
                parts = (numbers.difference.estimate, numbers.difference.low, numbers.difference.high)
                cells = [_difference(metric, *(float(part[position, -1, METRIC_NAMES.index(metric)]) for part in parts))
                         for metric in SHOWN]  # fmt: skip
                rows.append(("", "  difference", *cells))
    head = (
        "class",
        "variant",
        *(NAMES[metric] + (f" [{UNITS[metric].strip()}]" if metric in UNITS else "") for metric in SHOWN),
    )
    return TextTable(head=head, rows=tuple(rows), left=2)


def cost_table(comparison: Comparison, costs: Mapping[str, Cost]) -> TextTable:
    """What each variant costs beside what it reaches (mean of classes); links and operations at them where one is sparse."""
    some_sparse = any(costs[name].is_sparse for name in comparison.variants)
    rows = []
    for name, numbers in comparison.variants.items():
        cost = costs[name]
        mean = numbers.values.estimate[-1, -1]
        links = (f"{cost.links:,}", f"{cost.sparse_flops_per_agent / 1e6:.1f}") if some_sparse else ()
        rows.append((
            name, str(len(numbers.seeds)), f"{cost.parameters:,}", f"{cost.flops_per_agent / 1e6:.1f}", *links, str(cost.steps),
            f"{cost.training_cpu_s:.0f}", f"{cost.training_wall_s:.0f}", f"{cost.peak_rss_bytes / 2**20:.0f}",
            *(_value(mean[METRIC_NAMES.index(metric)], metric) for metric in ("minADE", "mAP")),
        ))  # fmt: skip
    links = ("links", "MFLOP at the links") if some_sparse else ()
    head = ("variant", "seeds", "parameters", "MFLOP per agent", *links, "steps", "training CPU s", "training wall s",
            "peak MiB", "minADE [m]", "mAP")  # fmt: skip
    return TextTable(head=head, rows=tuple(rows))


def print_table(table: TextTable, title: str) -> None:
    """On the terminal; as wide as needed where the output is none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    shown = Table(title=Text(title), title_justify="left", title_style="bold", header_style="bold")
    for index, name in enumerate(table.head):
        shown.add_column(name, justify="left" if index < table.left else "right")
    for position, row in enumerate(table.rows):
        following: Sequence[str] = table.rows[position + 1] if position + 1 < len(table.rows) else ("end",)
        cells = [Text(cell.strip("*"), style="bold" if cell.startswith("**") else "") for cell in row]
        shown.add_row(*cells, end_section=bool(following[0]) and table.left > 1)
    console.print(shown)


def with_interval(metric: str, estimate: float, low: float, high: float, word: str = "") -> str:
    """A difference and its interval, such as `-0.010 [-0.029, +0.009]`; bold, with a word, where the interval excludes zero."""
    digits = DIGITS[metric]
    text = f"{estimate:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"**{f'{text} {word}'.rstrip()}**" if excludes_zero(low, high) else text


def _value(value: float, metric: str) -> str:
    return "-" if np.isnan(value) else f"{value:.{DIGITS[metric]}f}"


def _difference(metric: str, estimate: float, low: float, high: float) -> str:
    if np.isnan(estimate):
        return "-"
    if np.isnan(low):
        return f"{estimate:+.{DIGITS[metric]}f} [?]"  # one scene tells of it: no interval
    return with_interval(metric, estimate, low, high, better_or_worse(metric, low, high))
