"""A comparison as plain values: what results.json holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from evaluation.bootstrap import Intervals
from evaluation.comparison.analyse import Comparison
from evaluation.comparison.cost import Cost
from evaluation.comparison.perform import Outcome
from evaluation.comparison.runs import training_options
from evaluation.comparison.variants import Variant
from evaluation.comparison.verdicts import count_intervals, verdicts
from evaluation.metric_config import METRIC_NAMES, MotionMetricsConfig
from evaluation.resampling import CLASSES
from limtr.scene import PREDICTED_TYPES
from preprocessing.shard_metadata import indexed_scenes


@dataclass(frozen=True, kw_only=True)
class Context:
    """What belongs to a comparison beside its numbers.

    Attributes:
        variants: as they were read, in order.
        costs: by variant.
        failed: runs without a result.
        same_order: why the variants did not all see the scenes in one order; empty if they did.
    """

    variants: Sequence[Variant]
    costs: Mapping[str, Cost]
    failed: Sequence[Outcome]
    same_order: str


def horizon_names() -> list[str]:
    """The axis of horizons: `3s`, `5s`, `8s`, `mean`."""
    return [*(horizon.name for horizon in MotionMetricsConfig().horizons), "mean"]


def why_order_differs(variants: Sequence[Variant]) -> str:
    """Which options make the order of the scenes another one for the same seed; empty if none does.

    The order is a function of the seed, the epoch and the number of selected scenes; batches are cut from it.
    """
    names = ("batch_size", "accumulate", "fraction", "classes", "max_distance_m", "drop_vehicles", "mirror")
    recipes = [variant.recipe(seed=0) for variant in variants]
    differing = [name for name in names if any(recipe[name] != recipes[0][name] for recipe in recipes)]
    if len({variant.data for variant in variants}) > 1:
        scenes = [[entry.scenario_id for entry in indexed_scenes(variant.data, "train")] for variant in variants]
        differing += ["data"] if any(listed != scenes[0] for listed in scenes) else []
    return ", ".join(differing)


def same_trainings(variants: Sequence[Variant]) -> list[tuple[str, str]]:
    """Names of variants that differ in nothing that a training depends on, two by two."""
    wholes = [
        (variant.data, variant.recipe(seed=0), training_options(variant), variant.options.get("init_from"))
        for variant in variants
    ]
    return [
        (variants[first].name, variants[second].name)
        for first, second in combinations(range(len(variants)), 2)
        if wholes[first] == wholes[second]
    ]


def as_results(comparison: Comparison, context: Context) -> dict[str, Any]:
    """Everything, as JSON can hold it; unknown values are null."""
    kinds = comparison.scenes.rows["object_type"]
    looked, excluded = count_intervals(comparison)
    return {
        "baseline": comparison.baseline,
        "scenes": len(comparison.scenes.scenario_ids),
        "objects": {kind.name: int((kinds == kind).sum()) for kind in PREDICTED_TYPES},
        "resamples": comparison.num_resamples,
        "intervals_looked_at": looked,
        "intervals_excluding_zero": excluded,
        "order_differs_by": context.same_order,
        "variants": {variant.name: _variant(comparison, context, variant) for variant in context.variants
                     if variant.name in comparison.variants},
        "failed": [{"run": item.run.name, "error": item.error, "log": str(item.run.log)} for item in context.failed],
    }  # fmt: skip


def _variant(comparison: Comparison, context: Context, variant: Variant) -> dict[str, Any]:
    numbers = comparison.variants[variant.name]
    cost = context.costs.get(variant.name)
    content: dict[str, Any] = {
        "file": str(variant.file),
        "data": str(variant.data),
        "options": dict(variant.options),
        "seeds": list(numbers.seeds),
        "cost": asdict(cost) if cost else None,
        "values": _table(numbers.values),
        "by_seed": {
            str(seed): {kind: {metric: _known(float(values[row, -1, column])) for column, metric in enumerate(METRIC_NAMES)}
                        for row, kind in enumerate(CLASSES)}
            for seed, values in zip(numbers.seeds, numbers.by_seed, strict=True)
        },
    }  # fmt: skip
    if numbers.difference is not None:
        content["difference"] = _table(numbers.difference)
        content["shared_seeds"] = list(numbers.shared_seeds)
        content["verdicts"] = list(verdicts(comparison, variant.name))
    return content


def _table(item: Intervals) -> dict[str, Any]:
    """By class, horizon and metric: estimate, low, high."""
    return {
        kind: {
            horizon: {
                metric: {
                    name: _known(float(part[row, column, place]))
                    for name, part in (("estimate", item.estimate), ("low", item.low), ("high", item.high))
                }
                for place, metric in enumerate(METRIC_NAMES)
            }
            for column, horizon in enumerate(horizon_names())
        }
        for row, kind in enumerate(CLASSES)
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
