"""What LiDAR brings over the lead of the cue: a table and a picture from the comparisons of `study.sh`.

usage: python benchmarks/lidar/summary.py OUT [PICTURE.png]

Reads OUT/lead*/comparison/results.json and prints a Markdown table; a difference is bold where its interval excludes zero.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from limtr.files import read_json

METRICS = (("minADE", "minADE m", 3), ("minFDE", "minFDE m", 3), ("miss_rate", "miss rate", 3), ("mAP", "mAP", 4),
           ("soft_mAP", "soft mAP", 4))  # fmt: skip
CLASS = "PEDESTRIAN"


def read(out: Path) -> dict[float, dict[str, Any]]:
    """Results by lead in seconds."""
    found = {float(path.parts[-3].removeprefix("lead")): read_json(path) for path in out.glob("lead*/comparison/results.json")}
    return dict(sorted(found.items()))


def parts(results: dict[str, Any], metric: str) -> tuple[float, float, dict[str, float], int]:
    """Value of the first variant and of the second, their difference, and the number of shared seeds."""
    base = results["variants"][results["baseline"]]
    (other,) = (item for name, item in results["variants"].items() if name != results["baseline"])
    values = [item["values"][CLASS]["mean"][metric]["estimate"] for item in (base, other)]
    return values[0], values[1], other["difference"][CLASS]["mean"][metric], len(other["shared_seeds"])


def table(found: dict[float, dict[str, Any]]) -> str:
    """A row per lead and metric."""
    lines = ["| cue's lead | metric | without LiDAR | with LiDAR | difference and 95 % interval | | seeds |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for lead, results in found.items():
        for metric, title, digits in METRICS:
            base, other, difference, seeds = parts(results, metric)
            text = f"{difference['estimate']:+.{digits}f} [{difference['low']:+.{digits}f}, {difference['high']:+.{digits}f}]"
            told = difference["low"] > 0 or difference["high"] < 0
            share = f"{difference['estimate'] / base:+.1%}"
            label = f"{lead:g} s" if metric == METRICS[0][0] else ""
            cell = f"**{text}**" if told else text
            lines.append(f"| {label} | {title} | {base:.{digits}f} | {other:.{digits}f} | {cell} | {share} | {seeds} |")
    return "\n".join(lines)


def draw(found: dict[float, dict[str, Any]], path: Path) -> None:
    """A panel per metric: the difference in percent over the lead."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, (metric, title, _) in zip(figure.subplots(1, len(METRICS)), METRICS, strict=True):
        for lead, results in found.items():
            base, _, difference, _ = parts(results, metric)
            estimate, low, high = (100.0 * difference[name] / base for name in ("estimate", "low", "high"))
            told = low > 0 or high < 0
            panel.errorbar(
                lead, estimate, yerr=[[estimate - low], [high - estimate]], fmt="o", color="#1f5fbf", capsize=4, markersize=7,
                markerfacecolor="#1f5fbf" if told else "white",
            )  # fmt: skip
        panel.axhline(0.0, color="#30343b", linewidth=1.0)
        panel.set_title(f"{title.removesuffix(' m')}\n({'higher' if 'mAP' in metric else 'lower'} is better)", fontsize=10)
        panel.set_xticks(list(found), [f"{lead:g} s" for lead in found])
        panel.set_xlim(-0.4, 2.4)
        panel.set_xlabel("lead of the cue")
        panel.grid(axis="y", color="#e3e6ea")
    figure.axes[0].set_ylabel("with LiDAR, % of without")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("picture", type=Path, nargs="?")
    arguments = parser.parse_args()
    found = read(arguments.out)
    if not found:
        raise SystemExit(f"{arguments.out}: no lead*/comparison/results.json there; run benchmarks/lidar/study.sh first")
    print(table(found))
    if arguments.picture is not None:
        draw(found, arguments.picture)


if __name__ == "__main__":
    main()
