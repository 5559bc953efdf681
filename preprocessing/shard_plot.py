"""A picture of what shards hold: agents, polylines, targets, and LiDAR points over distance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from limtr.files import atomic_path
from limtr.scene import PREDICTED_TYPES
from preprocessing.shard_statistics import NUM_BINS, ShardStatistics, bin_name

_COLORS = ("#1f5fbf", "#c2410c", "#0f7b4f")
_HATCHES = ("", "//", "..")


def plot_statistics(splits: Mapping[str, ShardStatistics], path: Path) -> Path:
    """Write a PNG; returns `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {name: item for name, item in splits.items() if item.agents}
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    _histogram(axes[0, 0], {name: item.agents for name, item in shown.items()}, "agents in a scene")
    _histogram(axes[0, 1], {name: item.polylines for name, item in shown.items()}, "polylines in a scene")
    _targets(axes[1, 0], shown)
    _points(axes[1, 1], shown)
    scenes = ", ".join(f"{len(item.agents)} of {name}" for name, item in shown.items())
    figure.suptitle(f"scenes in the shards: {scenes or 'none'}", x=0.02, ha="left")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path


def _histogram(axes: Any, values: Mapping[str, list[int]], title: str) -> None:
    whole = [value for part in values.values() for value in part]
    edges = np.histogram_bin_edges(whole, bins=min(30, max(5, len(whole) // 3))) if whole else [0, 1]
    axes.hist(list(values.values()), bins=edges, label=list(values), stacked=True)
    axes.set_xlabel(title)
    axes.set_ylabel("scenes")
    axes.yaxis.get_major_locator().set_params(integer=True)
    if len(values) > 1:
        axes.legend(frameon=False)


def _targets(axes: Any, splits: Mapping[str, ShardStatistics]) -> None:
    width = 0.8 / max(len(splits), 1)
    for index, (name, item) in enumerate(splits.items()):
        counts = [item.targets[kind.name] for kind in PREDICTED_TYPES]
        bars = axes.bar(np.arange(3) + index * width, counts, width, color=_COLORS, hatch=_HATCHES[index], edgecolor="white")
        axes.bar_label(bars, [f"{count}\n{name}" for count in counts], fontsize=8)
    axes.set_xticks(np.arange(3) + width * (len(splits) - 1) / 2, [kind.name.lower() for kind in PREDICTED_TYPES])
    axes.set_ylabel("tracks to predict")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.margins(y=0.2)


def _points(axes: Any, splits: Mapping[str, ShardStatistics]) -> None:
    total, frames = (sum((getattr(item, name) for item in splits.values()), np.zeros((3, NUM_BINS), np.int64))
                     for name in ("points_in_box", "frames"))  # fmt: skip
    drawn = False
    for row, kind in enumerate(PREDICTED_TYPES):
        bins = np.flatnonzero((frames[row] > 0) & (total[row] > 0))
        if bins.size:
            drawn = True
            axes.plot(bins, total[row, bins] / frames[row, bins], "o-", color=_COLORS[row], label=kind.name.lower())
    axes.set_xticks(range(NUM_BINS), [bin_name(place) for place in range(NUM_BINS)], rotation=20)
    axes.set_xlim(-0.3, NUM_BINS - 0.7)
    axes.set_xlabel("distance from the recording vehicle")
    axes.set_ylabel("mean LiDAR points in the box, one frame")
    if drawn:
        axes.set_yscale("log")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no LiDAR", ha="center", transform=axes.transAxes)
