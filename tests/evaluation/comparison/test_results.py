"""results.json holds the numbers at their places."""

from dataclasses import replace
from pathlib import Path

from evaluation.comparison.analyse import analyse
from evaluation.comparison.results import Context, as_results, horizon_names, why_order_differs
from evaluation.comparison.tables import quality_table
from evaluation.comparison.variants import Variant
from evaluation.metric_config import METRIC_NAMES
from evaluation.resampling import CLASSES
from tests.evaluation.made_scores import made_scores

VARIANTS = [Variant(name=name, file=Path("x.yaml"), data=Path("d"), options={"steps": 4}) for name in ("one", "two")]


def test_every_class_horizon_metric_and_seed_has_its_own_place() -> None:
    runs = {
        name: {seed: made_scores(30, model_seed=10 * seed + number, gain_m=0.1 * seed) for seed in (0, 3)}
        for number, name in enumerate(("one", "two"))
    }
    found = analyse(runs, num_resamples=100, level=0.9, seed=0)
    results = as_results(found, Context(variants=VARIANTS, costs={}, failed=[], same_order=""))
    two, numbers = results["variants"]["two"], found.variants["two"]
    assert numbers.difference is not None
    for kind_at, kind in enumerate(CLASSES):
        for metric_at, metric in enumerate(METRIC_NAMES):
            for horizon_at, horizon in enumerate(horizon_names()):
                at = (kind_at, horizon_at, metric_at)
                for name, item in (("values", numbers.values), ("difference", numbers.difference)):
                    told = two[name][kind][horizon][metric]
                    assert (told["estimate"], told["low"], told["high"]) == (item.estimate[at], item.low[at], item.high[at])
                    assert told["low"] <= told["estimate"] <= told["high"]
            for place, seed in enumerate(("0", "3")):
                assert two["by_seed"][seed][kind][metric] == numbers.by_seed[place, kind_at, -1, metric_at]
    assert "verdicts" not in results["variants"]["one"]


def test_the_table_shows_low_before_high() -> None:
    runs = {name: {seed: made_scores(30, model_seed=seed + 7 * number) for seed in (0, 1)} for number, name in enumerate("ab")}
    found = analyse(runs, num_resamples=100, level=0.9, seed=0)
    cells = [cell for row in quality_table(found).rows if row[1].strip() == "difference" for cell in row[2:]]
    assert len(cells) == 20
    for cell in cells:
        low, high = map(float, cell.strip("*").split("[")[1].split("]")[0].split(","))
        assert low < high


def test_what_changes_the_order_of_scenes_is_named() -> None:
    one = VARIANTS[0]
    changes = {
        "batch_size": 1, "accumulate": 2, "fraction": 0.5, "classes": ["cyclist"], "max_distance_m": 30.0, "drop_vehicles": 0.5,
        "mirror": 0.5,
    }  # fmt: skip
    for name, value in changes.items():
        assert why_order_differs([one, replace(one, options={"steps": 4, name: value})]) == name
    assert why_order_differs([one, replace(one, options={"steps": 8, "lidar": False, "learning_rate": 1e-4})]) == ""
