"""What degraded inputs do to each variant: the values that `limtr evaluate --corrupt` measured, over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evaluation.comparison.analyse import Comparison
from evaluation.comparison.plots import legend_of, look_of, new_figure, save_figure
from evaluation.comparison.tables import TextTable
from evaluation.corruptions.catalogue import CORRUPTIONS
from evaluation.metric_config import METRIC_NAMES
from evaluation.table import DIGITS, HIGHER_IS_BETTER, TITLES
from limtr.files import read_json

METRICS = ("minADE", "mAP")
Curves = dict[str, dict[str, dict[int, dict[str, list[float]]]]]
"""By variant, corruption, severity (0: undisturbed) and metric: a value for each seed, the mean over horizons and classes."""


def read_curves(folders: Mapping[str, Sequence[Path]], classes: Sequence[str]) -> Curves:
    """Read the evaluations of each variant.

    Args:
        folders: `limtr evaluate`'s of each seed, by variant.
        classes: WOMD's names of the classes whose mean counts.
    """
    curves: Curves = {}
    for variant, evaluations in folders.items():
        for folder in evaluations:
            for corruption, found in read_json(folder / "metrics.json").get("robustness", {}).items():
                for severity, values in found["severities"].items():
                    place = curves.setdefault(variant, {}).setdefault(corruption, {}).setdefault(int(severity), {})
                    for metric in METRICS:
                        known = [values[kind]["mean"][metric] for kind in classes if kind in values]
                        known = [value for value in known if value is not None]
                        if known:
                            place.setdefault(metric, []).append(float(np.mean(known)))
    return curves


def curves_table(curves: Curves) -> TextTable:
    """A row per metric, corruption and variant: means over seeds by severity, and the change at the highest."""
    severities = sorted({severity for of in curves.values() for curve in of.values() for severity in curve})
    rows = []
    for metric in METRICS:
        for corruption in _corruptions(curves):
            for variant, of in curves.items():
                if corruption not in of:
                    continue  # a model without LiDAR does not feel what befalls the points
                means = [_mean(of[corruption].get(severity, {}).get(metric)) for severity in severities]
                change = (means[-1] - means[0]) / means[0] if means[0] else float("nan")
                cells = ["-" if np.isnan(value) else f"{value:.{DIGITS[metric]}f}" for value in means]
                rows.append((TITLES[metric], corruption, variant, *cells, "-" if np.isnan(change) else f"{change:+.1%}"))
    names = ["undisturbed" if severity == 0 else f"severity {severity}" for severity in severities]
    return TextTable(head=("metric", "corruption", "variant", *names, "change"), rows=tuple(rows), left=3)


def draw_curves(comparison: Comparison, curves: Curves, path: Path) -> Path:
    """A column of panels per corruption, a row per metric: every variant's mean over seeds, bars from lowest to highest.

    A variant that a corruption does not touch is a dotted line at its undisturbed value.
    """
    corruptions = _corruptions(curves)
    left_out = untouched(curves, list(comparison.variants))
    figure, axes = new_figure(len(METRICS), len(corruptions), width=2.9 * max(len(corruptions), 2) + 0.6, height=6.2)
    for row, metric in enumerate(METRICS):
        for column, corruption in enumerate(corruptions):
            panel = axes[row][column]
            for variant, of in curves.items():
                points = [
                    (severity, values[metric])
                    for severity, values in sorted(of.get(corruption, {}).items())
                    if metric in values
                ]
                if not points:
                    continue
                means = np.array([np.mean(values) for _, values in points])
                ends = np.array([[min(values), max(values)] for _, values in points])
                color, marker = look_of(comparison, variant)
                panel.errorbar(
                    [severity for severity, _ in points], means, yerr=[means - ends[:, 0], ends[:, 1] - means], color=color,
                    marker=marker, capsize=2, linewidth=1.4, markersize=5,
                )  # fmt: skip
            for variant in left_out.get(corruption, []):
                level = comparison.variants[variant].values.estimate[-1, -1, METRIC_NAMES.index(metric)]
                panel.axhline(level, color=look_of(comparison, variant)[0], linestyle=":", linewidth=1.4)
            panel.set_ylim(bottom=0.0)
            panel.grid(color="#e3e6ea")
            if row == 0:
                panel.set_title(CORRUPTIONS[corruption].title, fontsize=10)
            if row == len(METRICS) - 1:
                panel.set_xlabel("severity (0: undisturbed)")
            if column == 0:
                better = "higher" if metric in HIGHER_IS_BETTER else "lower"
                panel.set_ylabel(f"{TITLES[metric]} ({better} is better)")
    figure.legend(
        handles=legend_of(comparison, list(comparison.variants)), loc="outside lower center", ncols=4, frameon=False,
        title="means over seeds; bars from the lowest to the highest seed" + ("\ndotted: reads no LiDAR" if left_out else ""),
    )  # fmt: skip
    return save_figure(figure, path)


def untouched(curves: Curves, variants: Sequence[str]) -> dict[str, list[str]]:
    """By corruption the variants that were not measured under it, as what they read stays the same (models without LiDAR)."""
    missing = {
        corruption: [name for name in variants if corruption not in curves.get(name, {})] for corruption in _corruptions(curves)
    }
    return {corruption: names for corruption, names in missing.items() if names}


def _corruptions(curves: Curves) -> list[str]:
    return [name for name in CORRUPTIONS if any(name in of for of in curves.values())]


def _mean(values: Sequence[float] | None) -> float:
    return float(np.mean(values)) if values else float("nan")
