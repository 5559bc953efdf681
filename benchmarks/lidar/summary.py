"""What LiDAR brings by class and lead of the cue: a table and a picture from the comparisons of `study.sh`.

usage: python benchmarks/lidar/summary.py OUT [PICTURE.png]

Reads OUT/lead*/CLASS/results.json and prints a Markdown table; a difference is bold where its interval excludes zero.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from evaluation.comparison.tables import with_interval
from evaluation.comparison.verdicts import NAMES, SHOWN, excludes_zero, metric_title
from evaluation.table import DIGITS
from limtr.files import read_json

CLASSES = ("pedestrian", "cyclist", "vehicle")
COLORS = {"pedestrian": "#0072b2", "cyclist": "#d55e00", "vehicle": "#009e73"}
SHIFT_S = {"pedestrian": -0.08, "cyclist": 0.0, "vehicle": 0.08}
Found = dict[tuple[str, float], dict[str, Any]]


def read(out: Path) -> Found:
    """Results by class and lead in seconds."""
    found = {}
    for path in out.glob("lead*/*/results.json"):
        lead, kind = path.parts[-3], path.parts[-2]
        if kind in CLASSES:
            found[kind, float(lead.removeprefix("lead"))] = read_json(path)
    return dict(sorted(found.items(), key=lambda item: (CLASSES.index(item[0][0]), -item[0][1])))


def parts(results: dict[str, Any], kind: str, metric: str) -> tuple[float, float, dict[str, float], int]:
    """Value of the first variant and of the second, their difference, and the number of shared seeds."""
    base = results["variants"][results["baseline"]]
    (other,) = (item for name, item in results["variants"].items() if name != results["baseline"])
    values = [item["values"][kind.upper()]["mean"][metric]["estimate"] for item in (base, other)]
    return values[0], values[1], other["difference"][kind.upper()]["mean"][metric], len(other["shared_seeds"])


def table(found: Found) -> str:
    """A row per class, lead and metric."""
    lines = ["| class | cue's lead | metric | without LiDAR | with LiDAR | difference and 95 % interval | | seeds |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for (kind, lead), results in found.items():
        for metric in SHOWN:
            base, other, difference, seeds = parts(results, kind, metric)
            label = f"{kind} | {lead:g} s" if metric == SHOWN[0] else " | "
            cell = with_interval(metric, difference["estimate"], difference["low"], difference["high"])
            share = f"{difference['estimate'] / base:+.1%}"
            digits = DIGITS[metric]
            lines.append(
                f"| {label} | {metric_title(metric)} | {base:.{digits}f} | {other:.{digits}f} | {cell} | {share} | {seeds} |"
            )
    return "\n".join(lines)


def draw(found: Found, path: Path) -> None:
    """A panel per metric: the difference in percent over the lead; full dots where the interval excludes zero."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    leads = sorted({lead for _, lead in found})
    for panel, metric in zip(figure.subplots(1, len(SHOWN)), SHOWN, strict=True):
        named = set()
        for (kind, lead), results in found.items():
            base, _, difference, _ = parts(results, kind, metric)
            estimate, low, high = (100.0 * difference[name] / base for name in ("estimate", "low", "high"))
            panel.errorbar(
                lead + SHIFT_S[kind], estimate, yerr=[[estimate - low], [high - estimate]], fmt="o", color=COLORS[kind],
                capsize=4, markersize=7, markerfacecolor=COLORS[kind] if excludes_zero(low, high) else "white",
                label=None if kind in named else kind,
            )  # fmt: skip
            named.add(kind)
        panel.axhline(0.0, color="#30343b", linewidth=1.0)
        panel.set_title(f"{NAMES[metric]}\n({'higher' if 'mAP' in metric else 'lower'} is better)", fontsize=10)
        panel.set_xticks(leads, [f"{lead:g} s" for lead in leads])
        panel.set_xlim(min(leads) - 0.4, max(leads) + 0.4)
        panel.set_xlabel("lead of the cue")
        panel.grid(axis="y", color="#e3e6ea")
    figure.axes[0].set_ylabel("with LiDAR, % of without")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(CLASSES), fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("picture", type=Path, nargs="?")
    arguments = parser.parse_args()
    found = read(arguments.out)
    if not found:
        raise SystemExit(f"{arguments.out}: no lead*/CLASS/results.json there; run benchmarks/lidar/study.sh first")
    print(table(found))
    if arguments.picture is not None:
        draw(found, arguments.picture)


if __name__ == "__main__":
    main()
