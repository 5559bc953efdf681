"""Words and counts, from intervals that are given."""

import numpy as np
import pytest

from evaluation.bootstrap import Intervals
from evaluation.comparison.analyse import Comparison, VariantNumbers
from evaluation.comparison.verdicts import better_or_worse, count_intervals, percent, verdicts
from evaluation.metric_config import METRIC_NAMES
from tests.evaluation.made_scores import made_scores

MIN_ADE, MAP = METRIC_NAMES.index("minADE"), METRIC_NAMES.index("mAP")
SHAPE = (4, 4, len(METRIC_NAMES))


def given(**differences: tuple[int, int, int, float]) -> Comparison:
    """Two variants of two seeds; each difference is (class, horizon, metric, estimate) with an interval of +- 0.01."""
    estimate, half = np.zeros(SHAPE), np.full(SHAPE, 0.01)
    for kind, horizon, metric, value in differences.values():
        estimate[kind, horizon, metric] = value
    base = np.arange(1.0, 1.0 + np.prod(SHAPE)).reshape(SHAPE)
    alone = Intervals(estimate=base, low=base, high=base, level=0.975)
    difference = Intervals(estimate=estimate, low=estimate - half, high=estimate + half, level=0.975)
    by_seed = np.stack([0.5 * base, 1.5 * base])
    first = VariantNumbers(seeds=(0, 1), by_seed=by_seed, values=alone)
    second = VariantNumbers(seeds=(0, 1), by_seed=by_seed, values=alone, shared_seeds=(0, 1), difference=difference)
    return Comparison(variants={"first": first, "second": second}, scenes=made_scores(20), num_resamples=100)


def test_the_mean_over_horizons_is_told_of_the_class_and_metric_that_it_is_of() -> None:
    found = given(better=(0, 3, MIN_ADE, -0.1), worse=(1, 3, MAP, -0.2), elsewhere=(2, 0, MIN_ADE, -0.3))
    base = found.variants["first"].values.estimate
    assert list(verdicts(found, "second")) == [
        f"vehicle, minADE: second is better than first by 0.100 m ({0.1 / base[0, 3, MIN_ADE]:.1%}), "
        "97.5% interval 0.090 to 0.110 m",
        f"pedestrian, mAP: second is worse than first by 0.2000 ({0.2 / base[1, 3, MAP]:.1%}), 97.5% interval 0.1900 to 0.2100",
    ]
    assert count_intervals(found) == (20, 2)
    assert count_intervals(found, ["first"]) == (0, 0)


@pytest.mark.parametrize(
    ("metric", "low", "high", "word"),
    [("minADE", -2.0, -1.0, "better"), ("minADE", 1.0, 2.0, "worse"), ("miss_rate", 0.1, 0.2, "worse"),
     ("mAP", 0.1, 0.2, "better"),
     ("soft_mAP", -0.2, -0.1, "worse"), ("mAP", -0.1, 0.1, ""), ("mAP", 0.0, 0.1, ""),
     ("mAP", -0.1, 0.0, ""), ("mAP", np.nan, 0.1, "")],
)  # fmt: skip
def test_a_word_stands_only_where_the_interval_excludes_zero(metric: str, low: float, high: float, word: str) -> None:
    assert better_or_worse(metric, low, high) == word


@pytest.mark.parametrize(("level", "told"), [(0.95, "95%"), (0.975, "97.5%"), (0.999, "99.9%"), (0.9, "90%")])
def test_levels_are_not_rounded(level: float, told: str) -> None:
    assert percent(level) == told
