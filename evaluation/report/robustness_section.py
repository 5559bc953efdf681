"""The section of the report on degraded inputs: metrics over severity, a line per corruption, numbers per class."""

from __future__ import annotations

from evaluation.corruptions.catalogue import CORRUPTIONS
from evaluation.report.chart import WIDE, Series, category_axis, legend, line_chart, number_axis
from evaluation.report.markup import Child, Html, details, join, number, table, tag
from evaluation.report.page import Section
from evaluation.report.results_section import METRIC_LABELS
from evaluation.robustness import Curves
from evaluation.robustness_table import SHOWN, STYLES
from evaluation.table import DIGITS

_MARKERS = {"o": "circle", "s": "square", "^": "triangle", "D": "diamond"}


def robustness_section(curves: Curves) -> Section:
    """Two charts, what the severities are, and tables of every class."""
    severities = sorted({severity for curve in curves.values() for severity in curve})
    names = ["undisturbed" if severity == 0 else str(severity) for severity in severities]
    charts, lines = [], []
    for metric in SHOWN:
        lines = [
            Series(
                name=CORRUPTIONS[name].title, color=STYLES[name][0], marker=_MARKERS[STYLES[name][1]],
                dash="6 3" if CORRUPTIONS[name].needs_lidar else "", x=list(range(len(severities))),
                y=[curve[severity].values["mean"]["mean"].get(metric) for severity in severities],
            )
            for name, curve in curves.items()
        ]  # fmt: skip
        label = METRIC_LABELS[metric]
        y = number_axis(label, [value for line in lines for value in line.y])
        title = f"{label.partition(' [')[0]}, mean of classes and horizons"
        charts.append(line_chart(title, category_axis("severity", names), y, lines, width=WIDE))
    note = tag(
        "p",
        "What the model reads is degraded, the truth is not. Random numbers are shared by all severities of a corruption. "
        "Dashed lines: only LiDAR points are degraded.",
    )
    meanings = table(
        "What the severities are",
        ["corruption", "amount", *(str(severity) for severity in severities if severity)],
        [_meaning(name, severities) for name in curves],
    )
    numbers = details("Values as numbers", *(_numbers(curves, metric, severities, names) for metric in SHOWN))
    body = join([note, legend(lines), tag("div", *charts, class_="charts pairs"), meanings, numbers])
    return Section("robustness", "Degraded inputs", body)


def _meaning(name: str, severities: list[int]) -> list[Child]:
    kind = CORRUPTIONS[name]
    return [kind.title, kind.unit, *(f"{kind.amounts[severity - 1]:g}" for severity in severities if severity)]


def _numbers(curves: Curves, metric: str, severities: list[int], names: list[str]) -> Html:
    rows: list[list[Child]] = []
    for name, curve in curves.items():
        for kind in curve[0].values:
            label = "mean of classes" if kind == "mean" else kind.lower()
            found = [curve[severity].values.get(kind, {}).get("mean", {}).get(metric) for severity in severities]
            rows.append([f"{CORRUPTIONS[name].title}, {label}", *(number(value, DIGITS[metric]) for value in found)])
    return table(f"{METRIC_LABELS[metric]} by severity, mean over horizons", ["corruption and class", *names], rows)
