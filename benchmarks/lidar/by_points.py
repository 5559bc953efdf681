"""How what LiDAR brings depends on the number of points: the differences of a comparison for agents with few and with many.

usage: python benchmarks/lidar/by_points.py COMPARISON SHARDS [--bins 1 30 80 200]

Reads what `limtr compare --out COMPARISON` kept of its finished runs, counts the points in each predicted agent's box in the
current frame, and resamples scenes and seeds as the comparison does, for each group of agents alone. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np

from evaluation.comparison.analyse import Comparison, analyse
from evaluation.comparison.tables import with_interval
from evaluation.comparison.verdicts import metric_title
from evaluation.metric_config import METRIC_NAMES
from evaluation.resampling import CLASSES
from evaluation.scene_scores import FILE, SceneScores, read_scene_scores
from evaluation.table import DIGITS
from limtr.files import read_json
from limtr.scene import ObjectType
from preprocessing.shards import SceneSource

METRICS = ("minADE", "minFDE", "miss_rate", "mAP")
"""Title, place on the axis of metrics, digits."""


def read_runs(comparison: Path) -> tuple[str, dict[str, dict[int, SceneScores]]]:
    """The class that was compared and the scores of every finished run by variant and seed, the baseline first."""
    results = read_json(comparison / "results.json")
    names = sorted(results["variants"], key=lambda name: name != results["baseline"])
    found: dict[str, dict[int, SceneScores]] = {name: {} for name in names}
    for name in names:
        for seed in results["variants"][name]["seeds"]:
            (path,) = comparison.glob(f"runs/{name.replace(' ', '-').lower()}-seed{seed}-*/evaluation-*/{FILE}")
            found[name][seed] = read_scene_scores(path)
    classes = [name for name, count in results["objects"].items() if count]
    if len(classes) != 1:
        raise SystemExit(f"{comparison}: compares {', '.join(classes)}; this script takes a comparison of one class")
    return classes[0], found


def points_of_objects(shards: Path, split: str) -> dict[tuple[str, int], int]:
    """Points in the box of every agent to predict in the current frame, by scenario and object."""
    counts: dict[tuple[str, int], int] = {}
    for scene in SceneSource(shards, split):
        for position, track in enumerate(scene.tracks_to_predict.tolist()):
            points = 0 if scene.lidar is None else int(scene.lidar.count_in_box[position, scene.current_step])
            counts[scene.scenario_id, int(scene.track_id[track])] = points
    return counts


def line(title: str, comparison: Comparison, row: int, objects: int) -> str:
    """One row of the table: the baseline's value, and the difference in bold where its interval excludes zero."""
    (other,) = (item for name, item in comparison.variants.items() if name != comparison.baseline)
    base, difference = comparison.variants[comparison.baseline].values.estimate[row, -1], other.difference
    assert difference is not None
    cells = [title, str(objects)]
    for metric in METRICS:
        column = METRIC_NAMES.index(metric)
        parts = (float(values[row, -1, column]) for values in (difference.estimate, difference.low, difference.high))
        cells += [f"{base[column]:.{DIGITS[metric]}f}", with_interval(metric, *parts)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--bins", type=int, nargs="+", default=[1, 30, 80, 200], help="fewest points of each group")
    given = parser.parse_args()
    kind, runs = read_runs(given.comparison)
    counts = points_of_objects(given.shards, given.split)
    example = next(iter(next(iter(runs.values())).values())).of_types([ObjectType[kind]])
    row = CLASSES.index(kind)
    ids = example.scenario_ids[example.scene]
    points = np.array([counts[str(scenario), int(item)] for scenario, item in zip(ids, example.object_id, strict=True)])
    print("| points | agents | " + " | ".join(f"{metric_title(metric)} without | difference with" for metric in METRICS) + " |")
    print("|---" * (2 + 2 * len(METRICS)) + "|")
    edges = [0, *given.bins, None]
    for low, high in pairwise(edges):
        inside = (points >= low) & (points < (high if high is not None else np.inf))
        if not inside.any():
            continue
        title = f"{low} and more" if high is None else str(low) if high == low + 1 else f"{low}-{high - 1}"
        scores: dict[str, dict[int, SceneScores]] = defaultdict(dict)
        for name, seeds in runs.items():
            for seed, item in seeds.items():
                scores[name][seed] = item.of_types([ObjectType[kind]]).only(inside)
        print(line(title, analyse(scores, num_resamples=2000, level=0.95, seed=0), row, int(inside.sum())), flush=True)


if __name__ == "__main__":
    main()
