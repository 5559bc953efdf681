"""From finished runs to numbers: every variant's metrics, and their differences to the first variant, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.bootstrap import Draws, Intervals, draw, intervals
from evaluation.resampling import CLASSES, resampled_values, scenes_that_tell
from evaluation.scene_scores import SceneScores
from limtr.progress import progress
from limtr.scene import PREDICTED_TYPES

Float = npt.NDArray[np.float64]
Scores = Mapping[str, Mapping[int, SceneScores]]
"""By variant (the first is the one that the others are compared with) and seed."""


@dataclass(frozen=True, kw_only=True)
class VariantNumbers:
    """What one variant reached.

    Attributes:
        seeds: of its finished runs.
        by_seed: (S, classes, H + 1, metrics) on all scenes; the axes are those of `evaluation.resampling`.
        values: means over its seeds, with intervals of their own.
        shared_seeds: seeds that the first variant finished too.
        difference: this variant minus the first, over shared seeds; None for the first, and where no seed is shared.
    """

    seeds: tuple[int, ...]
    by_seed: Float
    values: Intervals
    shared_seeds: tuple[int, ...] = ()
    difference: Intervals | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All numbers of a comparison; `scenes` are those that every run was evaluated on."""

    variants: dict[str, VariantNumbers]
    scenes: SceneScores
    num_resamples: int

    @property
    def baseline(self) -> str:
        """The variant that the others are compared with."""
        return next(iter(self.variants))

    def shown_classes(self) -> list[tuple[int, str]]:
        """Rows of the axis of classes that have objects; the mean of classes only where it is one of several."""
        kinds = set(self.scenes.rows["object_type"].tolist())
        rows = [(row, kind.name) for row, kind in enumerate(PREDICTED_TYPES) if kind in kinds]
        return [*rows, (len(CLASSES) - 1, CLASSES[-1])] if len(rows) > 1 else rows


def analyse(scores: Scores, *, num_resamples: int, level: float, seed: int) -> Comparison:
    """Resample scenes and seeds, the same for all variants.

    Args:
        scores: at least one run of each variant.
        num_resamples: B.
        level: of the intervals.
        seed: of the draws.

    Raises:
        ValueError: runs were evaluated on different scenes or objects.
    """
    require_same_objects(scores)
    example = next(iter(next(iter(scores.values())).values()))
    num_scenes = len(example.scenario_ids)
    telling = scenes_that_tell(example)
    draws = draw(num_resamples, num_scenes, 1, seed)
    every = np.ones((1, num_scenes))
    total = sum(len(runs) for runs in scores.values())
    own: dict[str, dict[int, tuple[Float, Float]]] = {name: {} for name in scores}
    with progress("resampling", total, "runs") as advance:
        for name, runs in scores.items():
            for number, item in runs.items():
                own[name][number] = (resampled_values(item, every)[0], resampled_values(item, draws.scenes))
                advance()
    baseline = next(iter(scores))
    variants = {}
    for name, mine in own.items():
        shared = tuple(number for number in mine if number in own[baseline])
        difference = None
        if name != baseline and shared:
            pairs = [(mine[number], own[baseline][number]) for number in shared]
            difference = _intervals(
                [(left[0] - right[0], left[1] - right[1]) for left, right in pairs], telling, num_scenes, level, seed
            )
        variants[name] = VariantNumbers(
            seeds=tuple(mine),
            by_seed=np.stack([point for point, _ in mine.values()]),
            values=_intervals(list(mine.values()), telling, num_scenes, level, seed),
            shared_seeds=shared,
            difference=difference,
        )
    return Comparison(variants=variants, scenes=example, num_resamples=num_resamples)


def _intervals(
    pairs: Sequence[tuple[Float, Float]], telling: npt.NDArray[np.int64], num_scenes: int, level: float, seed: int
) -> Intervals:
    points, resampled = (np.stack(parts) for parts in zip(*pairs, strict=True))
    draws: Draws = draw(resampled.shape[1], num_scenes, len(points), seed)
    return intervals(points, resampled, draws, level, telling=telling)


def require_same_objects(scores: Scores) -> None:
    """All runs must have scored the same objects of the same scenes, or there is nothing to pair.

    Raises:
        ValueError: they did not; names two runs and what differs.
    """
    first: tuple[str, SceneScores] | None = None
    for name, runs in scores.items():
        for number, item in runs.items():
            label = f"{name}, seed {number}"
            if first is None:
                first = (label, item)
                continue
            what = _difference(first[1], item)
            if what:
                raise ValueError(
                    f"{label} and {first[0]} were evaluated on different {what}: their differences cannot be paired; compare "
                    "variants whose data have the same validation scenes"
                )


def _difference(left: SceneScores, right: SceneScores) -> str | None:
    if left.bucketing != right.bucketing:
        return f"rules of buckets ({left.bucketing}, {right.bucketing})"
    if not np.array_equal(left.scenario_ids, right.scenario_ids):
        only = sorted(set(left.scenario_ids.tolist()) ^ set(right.scenario_ids.tolist()))
        return f"scenes ({len(only)} are in one of them alone, such as {only[0]!r})"
    for name, there, here in (("scene", left.scene, right.scene), ("object_id", left.object_id, right.object_id),
                              ("object_type", left.rows["object_type"], right.rows["object_type"]),
                              ("bucket", left.rows["bucket"], right.rows["bucket"])):  # fmt: skip
        if not np.array_equal(there, here):
            return f"objects (their {name} differs)"
    return None
