"""Pictures of a comparison: differences with their intervals, and quality beside cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.comparison.analyse import Comparison
from evaluation.comparison.cost import Cost
from evaluation.comparison.verdicts import NAMES, SHOWN, base_of, better_or_worse, class_name, coverage, percent
from evaluation.metric_config import METRIC_NAMES
from evaluation.table import HIGHER_IS_BETTER
from limtr.files import atomic_path

COLORS = ("#1f5fbf", "#c2410c", "#0f7b4f", "#7a3e9d", "#8a6d00", "#30343b")
WIDEST_PERCENT = 150.0
"""Where the axes end: percent of a value near zero mean nothing."""
MARKERS = ("o", "s", "^", "D", "v", "P")


def draw_differences(comparison: Comparison, path: Path) -> Path | None:
    """A panel per metric: every variant's difference to the first by class, in percent of the first's value.

    Filled marks stand where the interval excludes zero. None if there is only one variant.
    """
    names = [name for name, numbers in comparison.variants.items() if numbers.difference is not None]
    if not names:
        return None
    classes = comparison.shown_classes()
    figure, axes = new_figure(1, len(SHOWN), width=3.0 * len(SHOWN), height=2.0 + 0.42 * len(classes) * max(len(names), 2))
    clipped = False
    for panel, metric in zip(axes[0], SHOWN, strict=True):
        column = METRIC_NAMES.index(metric)
        for place, name in enumerate(names):
            difference = comparison.variants[name].difference
            assert difference is not None
            base = base_of(comparison, name)[:, -1]
            shift = (place - 0.5 * (len(names) - 1)) * 0.7 / max(len(names), 2)
            color, marker = look_of(comparison, name)
            for row, (position, _) in enumerate(classes):
                parts = (difference.estimate, difference.low, difference.high)
                estimate, low, high = (float(part[position, -1, column]) for part in parts)
                if np.isnan(estimate) or not base[position, column]:
                    continue
                scale = 100.0 / abs(float(base[position, column]))
                told = bool(better_or_worse(metric, low, high))
                if np.isnan(low):
                    low = high = estimate  # a mark without whiskers, and open
                beyond = scale * estimate
                if abs(beyond) > WIDEST_PERCENT:
                    side = 1.0 if beyond > 0 else -1.0
                    panel.plot(side * WIDEST_PERCENT, row + shift, marker=">" if side > 0 else "<", color=color, clip_on=False)
                panel.errorbar(
                    scale * estimate, row + shift, xerr=[[scale * (estimate - low)], [scale * (high - estimate)]],
                    fmt=marker, color=color, capsize=3, markersize=6, markerfacecolor=color if told else "white", linewidth=1.4,
                )  # fmt: skip
        panel.axvline(0.0, color="#30343b", linewidth=1.0)
        left, right = panel.get_xlim()
        clipped |= left < -WIDEST_PERCENT or right > WIDEST_PERCENT
        panel.set_xlim(max(left, -WIDEST_PERCENT), min(right, WIDEST_PERCENT))
        better = "right" if metric in HIGHER_IS_BETTER else "left"
        panel.set_title(f"{NAMES[metric]}\n(better to the {better})", fontsize=10)
        panel.set_xlabel(f"% of {as_label(comparison.baseline)}", fontsize=9)
        panel.set_yticks(range(len(classes)), [class_name(kind) for _, kind in classes])
        panel.set_ylim(len(classes) - 0.5, -0.5)
        panel.grid(axis="x", color="#e3e6ea")
        if panel is not axes[0][0]:
            panel.set_yticklabels([])
    level = comparison.variants[comparison.baseline].values.level
    title = (
        f"difference to {as_label(comparison.baseline)}, {percent(level)} intervals over {coverage(comparison)}; "
        "filled: excludes zero"
        + (
            f"\naxes end at {WIDEST_PERCENT:g} %: some intervals go on, and a triangle stands for a mark beyond"
            if clipped
            else ""
        )
    )
    figure.legend(
        handles=legend_of(comparison, names), loc="outside lower center", ncols=min(len(names), 4), frameon=False, title=title,
    )  # fmt: skip
    return save_figure(figure, path)


def draw_pareto(comparison: Comparison, costs: Mapping[str, Cost], path: Path) -> Path:
    """Quality (mean of classes, with its interval) over cost; the dashed line joins what nothing beats in both.

    Operations are those of the links, which are all weights of a dense variant. Variants of one cost stand side by side.
    """
    names = list(comparison.variants)
    figure, axes = new_figure(2, 2, width=10.5, height=7.5)
    some_sparse = any(costs[name].is_sparse for name in names)
    flops_label = "MFLOP per agent" + (", of sparse variants at their links" if some_sparse else "")
    kinds = ((flops_label, [costs[name].sparse_flops_per_agent / 1e6 for name in names]),
             ("training CPU-seconds", [costs[name].training_cpu_s for name in names]))  # fmt: skip
    for row, metric in enumerate(("minADE", "mAP")):
        column = METRIC_NAMES.index(metric)
        for panel, (label, spent) in zip(axes[row], kinds, strict=True):
            reached: list[float] = []
            place = side_by_side(spent)
            for index, name in enumerate(names):
                values = comparison.variants[name].values
                estimate, low, high = (float(part[-1, -1, column]) for part in (values.estimate, values.low, values.high))
                reached.append(estimate)
                color, marker = look_of(comparison, name)
                if np.isnan(low):
                    low = high = estimate  # nothing is known of its spread
                panel.errorbar(
                    place[index], estimate, yerr=[[estimate - low], [high - estimate]], fmt=marker, color=color, capsize=3,
                    markersize=7,
                )  # fmt: skip
            front = pareto_front(spent, reached, higher_is_better=metric in HIGHER_IS_BETTER)
            panel.plot([place[i] for i in front], [reached[i] for i in front], "--", color="#8a8f98", linewidth=1.2, zorder=0)
            panel.set_xlabel(label)
            panel.set_ylabel(
                f"{NAMES[metric]}, {_what(comparison)}\n({'higher' if metric in HIGHER_IS_BETTER else 'lower'} is better)"
            )
            panel.margins(x=0.15)
            panel.grid(color="#e3e6ea")
    level = comparison.variants[names[0]].values.level
    figure.legend(
        handles=legend_of(comparison, names), loc="outside lower center", ncols=min(len(names), 4), frameon=False,
        title=f"{percent(level)} intervals of each variant alone, not of the paired differences",
    )  # fmt: skip
    return save_figure(figure, path)


def side_by_side(spent: Sequence[float], *, near: float = 0.002, apart: float = 0.02) -> list[float]:
    """Where to draw costs so that those of one size do not hide each other.

    Args:
        spent: costs.
        near: costs that differ by less than this share of their span are of one size.
        apart: distance between two of them, as a share of the span.
    """
    span = max(spent) - min(spent) or abs(max(spent)) or 1.0
    place = list(spent)
    left = sorted(range(len(spent)), key=lambda index: (spent[index], index))
    while left:
        group = [index for index in left if spent[index] - spent[left[0]] <= near * span]
        left = left[len(group) :]
        for number, index in enumerate(sorted(group)):
            place[index] = spent[index] + (number - (len(group) - 1) / 2) * apart * span
    return place


def pareto_front(spent: Sequence[float], reached: Sequence[float], *, higher_is_better: bool) -> list[int]:
    """Positions of the points that no other beats in both, from the cheapest on."""
    sign = -1.0 if higher_is_better else 1.0
    front: list[int] = []
    best = np.inf
    for index in sorted(range(len(spent)), key=lambda i: (spent[i], sign * reached[i])):
        if sign * reached[index] < best:
            front.append(index)
            best = sign * reached[index]
    return front


def _what(comparison: Comparison) -> str:
    return class_name(comparison.shown_classes()[-1][1])


def look_of(comparison: Comparison, name: str) -> tuple[str, str]:
    """Colour and marker of a variant, the same in every picture; no two of 36 variants look alike."""
    index = list(comparison.variants).index(name)
    return COLORS[index % len(COLORS)], MARKERS[(index + index // len(COLORS)) % len(MARKERS)]


def legend_of(comparison: Comparison, names: Sequence[str]) -> list[Any]:
    """Handles of a legend of variants."""
    from matplotlib.lines import Line2D

    looks = {name: look_of(comparison, name) for name in names}
    return [
        Line2D([], [], color=color, marker=marker, linewidth=1.4, label=as_label(name))
        for name, (color, marker) in looks.items()
    ]


def as_label(name: str) -> str:
    """A name as Matplotlib shows it letter by letter: no formula between dollars, no entry hidden by a leading underscore."""
    label = name.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def new_figure(rows: int, columns: int, *, width: float, height: float) -> tuple[Any, Any]:
    """A figure without a window, and its panels as (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: Any, path: Path) -> Path:
    """Write a PNG in one step."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path
