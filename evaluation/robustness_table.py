"""Robustness on screen and as a picture: metrics over the severity of degraded inputs."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from evaluation.corruptions.catalogue import CORRUPTIONS
from evaluation.palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILLION
from evaluation.robustness import Curves, relative_change
from evaluation.table import DIGITS, TITLES
from limtr.files import atomic_path

SHOWN = ("minADE", "mAP")
STYLES = dict(
    zip(
        CORRUPTIONS,
        ((BLUE, "o"), (SKY_BLUE, "s"), (GREEN, "^"), (PURPLE, "D"), (VERMILLION, "o"), (ORANGE, "s"), (BLACK, "^")),
        strict=True,
    )
)
"""Colour and marker of each corruption."""


def print_curves(curves: Curves) -> None:
    """A table per metric: a row per corruption, a column per severity, and the change at the highest."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=170)
    for metric in SHOWN:
        severities = sorted({severity for curve in curves.values() for severity in curve})
        table = Table(
            title=f"{TITLES[metric]} on degraded inputs, mean of classes and horizons",
            title_justify="left", title_style="bold", header_style="bold",
        )  # fmt: skip
        table.add_column("corruption")
        for severity in severities:
            table.add_column("undisturbed" if severity == 0 else f"severity {severity}", justify="right")
        table.add_column("change", justify="right")
        if metric == SHOWN[0]:
            table.add_column("amounts")
        for name, curve in curves.items():
            values = [curve[severity].values["mean"]["mean"].get(metric) for severity in severities]
            change = relative_change(curve, metric)[severities[-1]]
            kind = CORRUPTIONS[name]
            amounts = ", ".join(f"{kind.amounts[severity - 1]:g}" for severity in severities if severity)
            cells = ["-" if value is None else f"{value:.{DIGITS[metric]}f}" for value in values]
            cells.append("-" if change is None else f"{change:+.1%}")
            table.add_row(name, *cells, *([f"{kind.unit}: {amounts}"] if metric == SHOWN[0] else []))
        console.print(table)


def draw_curves(curves: Curves, path: Path) -> Path:
    """Write a PNG: minADE and mAP over severity, a line per corruption; returns `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(SHOWN))
    for axes, metric in zip(panels, SHOWN, strict=True):
        for name, curve in curves.items():
            color, marker = STYLES[name]
            known = [(severity, curve[severity].values["mean"]["mean"].get(metric)) for severity in sorted(curve)]
            points = [(severity, value) for severity, value in known if value is not None]
            axes.plot(*zip(*points, strict=True), color=color, marker=marker, label=CORRUPTIONS[name].title) if points else None
        axes.set_xlabel("severity (0: undisturbed)")
        axes.set_ylabel(TITLES[metric].replace(" m", " [m]"))
        axes.set_xticks(range(6))
        axes.set_ylim(bottom=0.0)
        axes.grid(alpha=0.3)
        axes.set_title(f"{TITLES[metric].removesuffix(' m')}, mean of classes and horizons", loc="left", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path
