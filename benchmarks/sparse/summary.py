"""What sparse encoders cost and keep: a table from the comparisons of `study.sh`.

usage: python benchmarks/sparse/summary.py OUT [--scores {minADE,minFDE,miss_rate,mAP,soft_mAP} ...]

Reads OUT/comparison/results.json (against dense) and OUT/at-DENSITY/results.json (against static at that density) and prints a
Markdown table of means over classes and horizons; a difference is bold where its interval excludes zero.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from limtr.files import read_json

TITLES = {"minADE": "minADE m", "minFDE": "minFDE m", "miss_rate": "miss rate", "mAP": "mAP", "soft_mAP": "soft mAP"}
DIGITS = {"minADE": 3, "minFDE": 3, "miss_rate": 3, "mAP": 4, "soft_mAP": 4}


def difference(variant: dict[str, Any], score: str) -> str:
    """The difference to the comparison's first variant with its interval; empty for that variant itself."""
    if "difference" not in variant:
        return ""
    found = variant["difference"]["mean"]["mean"][score]
    digits = DIGITS[score]
    text = f"{found['estimate']:+.{digits}f} [{found['low']:+.{digits}f}, {found['high']:+.{digits}f}]"
    return f"**{text}**" if found["low"] > 0 or found["high"] < 0 else text


def table(out: Path, scores: list[str]) -> str:
    """A row per variant: links, operations, then each score, its difference to dense, and that to static with as many links."""
    whole = read_json(out / "comparison" / "results.json")
    static: dict[str, Any] = {}
    for path in sorted(out.glob("at-*/results.json")):
        static |= read_json(path)["variants"]
    heads = [text for score in scores for text in (TITLES[score], f"{score} against dense", f"{score} against static")]
    lines = ["| encoders | links | MFLOP | " + " | ".join(heads) + " |", "|---" * (3 + len(heads)) + "|"]
    for name, variant in whole["variants"].items():
        cost = variant["cost"]
        cells = [name, f"{cost['links']:,}", f"{cost['sparse_flops_per_agent'] / 1e6:.1f}"]
        for score in scores:
            value = variant["values"]["mean"]["mean"][score]["estimate"]
            cells += [f"{value:.{DIGITS[score]}f}", difference(variant, score), difference(static.get(name, {}), score)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scores", nargs="+", choices=sorted(TITLES), default=["minADE", "mAP"])
    options = parser.parse_args()
    print(table(options.out, options.scores))


if __name__ == "__main__":
    main()
