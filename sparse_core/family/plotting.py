"""The pictures of the studies. The only file here that knows matplotlib, which it imports when something is drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_core.family.intervals import mean_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that stay apart for every kind of colour vision (Okabe and Ito 2008); line styles and markers tell the same.
BLACK, ORANGE, SKY, GREEN, BLUE, RED, GREY = "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#7F7F7F"
STYLES = {"dense": (BLACK, "dashed"), "static": (ORANGE, "dashdot"), "SET": (BLUE, "solid")}
INTERVAL = "95 % interval of the mean (Student t)"


def draw_set_mlp(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], maps: Mapping[str, Sequence[Sequence[float]]], path: Path
) -> Path:
    """Accuracy over steps, and links per input pixel at the end.

    Args:
        curves: by method, the curve of every seed.
        maps: by method, mean links per pixel as 28 rows.
        path: a PNG to write; returned.
    """
    figure = _figure(11, 3.9)
    axes, *images = figure.subplots(1, 1 + len(maps), width_ratios=[1.7, *(1 for _ in maps)])
    for method, seeds in curves.items():
        color, style = STYLES[method]
        means = [mean_of([100 * value for value in values]) for values in zip(*(one["accuracy"] for one in seeds), strict=True)]
        steps = seeds[0]["steps"]
        low = [mean.value - (mean.half_width or 0) for mean in means]
        high = [mean.value + (mean.half_width or 0) for mean in means]
        axes.plot(steps, [mean.value for mean in means], color=color, linestyle=style, linewidth=1.8, label=method)
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    axes.set(xlabel="optimizer steps", ylabel="test accuracy [%]", title=f"mean of {len(seeds)} seeds, {INTERVAL}")
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    highest = max(max(max(row) for row in rows) for rows in maps.values())
    shown: Any = None
    for image, (method, rows) in zip(images, maps.items(), strict=True):
        shown = image.imshow(rows, cmap="cividis", vmin=0, vmax=highest)
        image.set(title=f"{method}: links per pixel", xlabel="pixel column")
        image.title.set_fontsize(10)
    images[0].set_ylabel("pixel row")
    figure.colorbar(shown, ax=images, label="links per input pixel, mean of the seeds", shrink=0.85)
    return _save(figure, path)


def draw_accuracies(found: Mapping[str, Any], path: Path) -> Path:
    """A panel per density: the mean accuracy of every criterion with its interval, the dense network's beside them.

    Args:
        found: the summary of `pruning_criteria`.
        path: a PNG to write; returned.
    """
    densities: Mapping[str, Any] = found["densities"]
    names = ["static", *found["criteria"]]
    figure = _figure(1.9 + 2.5 * len(densities), 4.2)
    panels = figure.subplots(1, len(densities), sharex=True, sharey=True, squeeze=False)[0]
    dense = found["dense"]["accuracy"]
    for axes, (density, cells) in zip(panels, densities.items(), strict=True):
        value, half = 100 * dense["value"], 100 * (dense["half_width"] or 0)
        axes.axvspan(value - half, value + half, color=GREY, alpha=0.3, linewidth=0)
        axes.axvline(value, color=GREY, linestyle="dashed", linewidth=1.2, label="dense")
        for place, name in enumerate(names):
            accuracy = cells[name]["accuracy"]
            color, marker = (ORANGE, "s") if name == "static" else (BLUE, "o")
            error = 100 * (accuracy["half_width"] or 0)
            axes.errorbar(100 * accuracy["value"], place, xerr=error, color=color, fmt=marker, markersize=5, capsize=3)
        axes.set(title=f"density {density}", xlabel="test accuracy [%]", yticks=range(len(names)), yticklabels=names)
        axes.grid(alpha=0.3)
    panels[0].invert_yaxis()
    panels[0].legend(loc="lower left", fontsize=9)
    figure.suptitle(f"mean of {found['seeds']} seeds, {INTERVAL}", fontsize=10)
    return _save(figure, path)


def draw_overlaps(found: Mapping[str, Any], path: Path) -> Path:
    """How alike the criteria's choices are: a matrix per moment, at the largest and the smallest density.

    Args:
        found: the summary of `pruning_criteria`.
        path: a PNG to write; returned.
    """
    overlaps: Mapping[str, Any] = found["overlap"]
    ends = list(dict.fromkeys([next(iter(overlaps)), list(overlaps)[-1]]))
    shown = [(density, moment) for density in ends for moment in overlaps[density]]
    names = [name.replace("reciprocal", "recip.") for name in found["criteria"]]
    columns = 2
    figure = _figure(10.5, 0.9 + 4.4 * len(ends))
    panels = figure.subplots(len(ends), columns, sharex=True, sharey=True, squeeze=False)
    image: Any = None
    for axes, (density, moment) in zip(panels.flat, shown, strict=True):
        matrix = overlaps[density][moment]
        image = axes.imshow(matrix, cmap="cividis", vmin=0, vmax=1)
        for row, values in enumerate(matrix):
            for column, value in enumerate(values):
                color = "black" if value > 0.55 else "white"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)
        axes.set(title=f"density {density}, {moment}", xticks=range(len(names)), yticks=range(len(names)))
        axes.title.set_fontsize(10)
        axes.set_xticklabels(names, rotation=45, ha="right")
        axes.set_yticklabels(names)
    figure.colorbar(image, ax=panels, label="Jaccard similarity of the dropped links, mean of the seeds", shrink=0.7)
    return _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png", dpi=110)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
