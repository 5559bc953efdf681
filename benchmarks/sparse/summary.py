"""What sparse encoders cost and keep: tables and a picture from the comparisons of `study.sh`.

usage: python benchmarks/sparse/summary.py OUT [PICTURE.png] [--scores {minADE,minFDE,miss_rate,mAP,soft_mAP} ...]

Reads OUT/*/comparison/results.json (against dense), OUT/*/at-DENSITY/results.json (against static at that density) and
OUT/*/of-METHOD/results.json; prints Markdown tables of means over classes and horizons. A difference is bold where its interval
excludes zero.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from evaluation.comparison.tables import with_interval
from evaluation.comparison.verdicts import SHOWN, excludes_zero, metric_title
from evaluation.table import DIGITS
from limtr.files import read_json

STARTS = {"new": "from new weights", "trained": "from a trained dense model"}
METHODS = {"static": "#0072b2", "set": "#d55e00", "rigl": "#009e73"}
Variants = dict[str, dict[str, Any]]
SHIFT = {"static": -0.12, "set": 0.0, "rigl": 0.12}


def by_links(variants: Variants) -> Variants:
    """Those with most links first, in the order of `METHODS` where they have as many."""
    order = {method: place for place, method in enumerate(METHODS)}
    names = sorted(variants, key=lambda name: (-variants[name]["cost"]["links"], order.get(name.split()[0], len(order))))
    return {name: variants[name] for name in names}


def difference(variant: dict[str, Any], score: str) -> str:
    """The difference to the comparison's first variant with its interval; empty for that variant itself."""
    if "difference" not in variant:
        return ""
    found = variant["difference"]["mean"]["mean"][score]
    return with_interval(score, found["estimate"], found["low"], found["high"])


def table(variants: Variants, scores: list[str], against: dict[str, Variants]) -> str:
    """A row per variant: links, operations, then each score and its differences.

    Args:
        variants: of one comparison.
        scores: metrics.
        against: by what it is compared with, the variants of the comparison that does so.
    """
    heads = [text for score in scores for text in (metric_title(score), *(f"against {name}" for name in against))]
    lines = ["| encoders | links | MFLOP | " + " | ".join(heads) + " |", "|---" * (3 + len(heads)) + "|"]
    for name, variant in by_links(variants).items():
        cost = variant["cost"]
        cells = [name, f"{cost['links']:,}", f"{cost['sparse_flops_per_agent'] / 1e6:.1f}"]
        for score in scores:
            value = variant["values"]["mean"]["mean"][score]["estimate"]
            cells.append(f"{value:.{DIGITS[score]}f}")
            cells += [difference(compared.get(name, {}), score) for compared in against.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def print_tables(folder: Path, scores: list[str]) -> None:
    """All variants against dense and against static at their density; then what was compared besides."""
    dense = read_json(folder / "comparison" / "results.json")["variants"]
    static: Variants = {}
    for path in folder.glob("at-*/results.json"):
        static |= read_json(path)["variants"]
    print(f"{STARTS.get(folder.name, folder.name)}:\n\n{table(dense, scores, {'dense': dense, 'static': static})}\n")
    for path in sorted(folder.glob("of-*/results.json")):
        results = read_json(path)
        print(f"{table(results['variants'], scores, {results['baseline']: results['variants']})}\n")


def draw(folders: list[Path], scores: list[str], path: Path) -> None:
    """A row per start and a panel per score: difference to dense in percent by density; full dots where it excludes zero."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(scores), 3.3 * len(folders)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(folders), len(scores), squeeze=False)
    for row, folder in zip(panels, folders, strict=True):
        variants = read_json(folder / "comparison" / "results.json")["variants"]
        densities = sorted({name.split()[1] for name in variants if " " in name}, reverse=True)
        for panel, score in zip(row, scores, strict=True):
            dense = variants["dense"]["values"]["mean"]["mean"][score]["estimate"]
            for name, variant in by_links(variants).items():
                if "difference" not in variant:
                    continue
                method, density = name.split()
                found = variant["difference"]["mean"]["mean"][score]
                estimate, low, high = (100.0 * found[key] / dense for key in ("estimate", "low", "high"))
                panel.errorbar(
                    densities.index(density) + SHIFT[method], estimate, yerr=[[estimate - low], [high - estimate]], fmt="o",
                    color=METHODS[method], capsize=4, markersize=7,
                    markerfacecolor=METHODS[method] if excludes_zero(low, high) else "white",
                    label=method if density == densities[0] else None,
                )  # fmt: skip
            panel.axhline(0.0, color="black", linewidth=0.8)
            panel.set_xticks(range(len(densities)), densities)
            panel.set_title(f"{STARTS.get(folder.name, folder.name)}: {metric_title(score)}", fontsize=10)
            panel.set_ylabel("% of dense")
            panel.grid(axis="y", alpha=0.3)
    for panel in panels[-1]:
        panel.set_xlabel("density of the encoders")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(METHODS), fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("picture", type=Path, nargs="?")
    parser.add_argument("--scores", nargs="+", choices=SHOWN, default=["minADE", "mAP"])
    options = parser.parse_args()
    folders = sorted(path.parent.parent for path in options.out.glob("*/comparison/results.json"))
    if not folders:
        raise SystemExit(f"{options.out}: no */comparison/results.json; let benchmarks/sparse/study.sh finish first")
    for folder in folders:
        print_tables(folder, options.scores)
    if options.picture is not None:
        draw(folders, options.scores, options.picture)


if __name__ == "__main__":
    main()
