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

from limtr.files import read_json

TITLES = {"minADE": "minADE m", "minFDE": "minFDE m", "miss_rate": "miss rate", "mAP": "mAP", "soft_mAP": "soft mAP"}
DIGITS = {"minADE": 3, "minFDE": 3, "miss_rate": 3, "mAP": 4, "soft_mAP": 4}
STARTS = {"new": "from new weights", "trained": "from a trained dense model"}
METHODS = {"static": "#0072b2", "set": "#d55e00", "rigl": "#009e73"}
SHIFT = {"static": -0.12, "set": 0.0, "rigl": 0.12}


def by_links(variants: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Variants, those with most links first, in the order of `METHODS` where they have as many."""
    order = list(METHODS)
    return sorted(
        variants.items(),
        key=lambda item: (-item[1]["cost"]["links"], order.index(method) if (method := item[0].split()[0]) in order else -1),
    )


def difference(variant: dict[str, Any], score: str) -> str:
    """The difference to the comparison's first variant with its interval; empty for that variant itself."""
    if "difference" not in variant:
        return ""
    found = variant["difference"]["mean"]["mean"][score]
    digits = DIGITS[score]
    text = f"{found['estimate']:+.{digits}f} [{found['low']:+.{digits}f}, {found['high']:+.{digits}f}]"
    return f"**{text}**" if found["low"] > 0 or found["high"] < 0 else text


def table(folder: Path, scores: list[str]) -> str:
    """A row per variant: links, operations, then each score, its difference to dense, and that to static with as many links."""
    static: dict[str, Any] = {}
    for path in sorted(folder.glob("at-*/results.json")):
        static |= read_json(path)["variants"]
    heads = [text for score in scores for text in (TITLES[score], "against dense", "against static")]
    lines = ["| encoders | links | MFLOP | " + " | ".join(heads) + " |", "|---" * (3 + len(heads)) + "|"]
    for name, variant in by_links(read_json(folder / "comparison" / "results.json")["variants"]):
        cost = variant["cost"]
        cells = [name, f"{cost['links']:,}", f"{cost['sparse_flops_per_agent'] / 1e6:.1f}"]
        for score in scores:
            value = variant["values"]["mean"]["mean"][score]["estimate"]
            cells += [f"{value:.{DIGITS[score]}f}", difference(variant, score), difference(static.get(name, {}), score)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plain_table(results: dict[str, Any], scores: list[str]) -> str:
    """A row per variant: each score and its difference to the comparison's first variant."""
    heads = [text for score in scores for text in (TITLES[score], f"against {results['baseline']}")]
    lines = ["| encoders | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for name, variant in by_links(results["variants"]):
        values = variant["values"]["mean"]["mean"]
        cells = [text for score in scores
                 for text in (f"{values[score]['estimate']:.{DIGITS[score]}f}", difference(variant, score))]  # fmt: skip
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


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
            for name, variant in by_links(variants):
                if "difference" not in variant:
                    continue
                method, density = name.split()
                found = variant["difference"]["mean"]["mean"][score]
                estimate, low, high = (100.0 * found[key] / dense for key in ("estimate", "low", "high"))
                panel.errorbar(
                    densities.index(density) + SHIFT[method], estimate, yerr=[[estimate - low], [high - estimate]], fmt="o",
                    color=METHODS[method], capsize=4, markersize=7,
                    markerfacecolor=METHODS[method] if low > 0 or high < 0 else "white",
                    label=method if density == densities[0] else None,
                )  # fmt: skip
            panel.axhline(0.0, color="black", linewidth=0.8)
            panel.set_xticks(range(len(densities)), densities)
            panel.set_title(f"{STARTS.get(folder.name, folder.name)}: {TITLES[score]}", fontsize=10)
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
    parser.add_argument("--scores", nargs="+", choices=sorted(TITLES), default=["minADE", "mAP"])
    options = parser.parse_args()
    folders = sorted(path.parent.parent for path in options.out.glob("*/comparison/results.json"))
    if not folders:
        raise SystemExit(f"{options.out}: no */comparison/results.json; let benchmarks/sparse/study.sh finish first")
    for folder in folders:
        print(f"{STARTS.get(folder.name, folder.name)}:\n\n{table(folder, options.scores)}\n")
        for path in sorted(folder.glob("of-*/results.json")):
            print(f"{plain_table(read_json(path), options.scores)}\n")
    if options.picture is not None:
        draw(folders, options.scores, options.picture)


if __name__ == "__main__":
    main()
