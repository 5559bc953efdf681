"""Metrics of resampled scenes are those of the accumulator on copied scenes."""

import numpy as np
import pytest

from evaluation import resampling
from evaluation.accumulate import MotionMetrics
from evaluation.metric_config import METRIC_NAMES
from evaluation.resampling import CLASSES, resampled_values, scenes_that_tell
from evaluation.scene_scores import SceneScores
from limtr.scene import ObjectType
from tests.evaluation.made_scores import made_scores


def accumulated(scores: SceneScores, copies: np.ndarray) -> np.ndarray:
    """The values of `MotionMetrics` for scenes that come so many times, as (classes, horizons and mean, metrics)."""
    metrics = MotionMetrics()
    for scene, number in enumerate(copies):
        inside = scores.scene == scene
        for copy in range(int(number)):
            metrics.add_rows(f"{scene}-{copy}", {name: values[inside] for name, values in scores.rows.items()})
    found = metrics.compute()
    result = np.full((len(CLASSES), 4, len(METRIC_NAMES)), np.nan)
    for row, kind in enumerate(CLASSES):
        for column, horizon in enumerate(("3s", "5s", "8s", "mean")):
            values = found.get(kind, {}).get(horizon, {})
            result[row, column] = [np.nan if values.get(name) is None else values[name] for name in METRIC_NAMES]
    return result


@pytest.mark.parametrize("ties", [False, True], ids=["scores all different", "many equal scores"])
@pytest.mark.parametrize("seed", range(4))
def test_a_weighting_gives_what_the_copied_scenes_give(seed: int, ties: bool) -> None:
    scores = made_scores(12, truth_seed=seed, model_seed=seed, ties=ties)
    rng = np.random.default_rng(seed)
    weights = np.stack([np.ones(12), rng.multinomial(12, np.full(12, 1 / 12)), 12 * (np.arange(12) == 3)]).astype(np.float64)
    found = resampled_values(scores, weights)
    for row, copies in enumerate(weights):
        np.testing.assert_allclose(found[row], accumulated(scores, copies), rtol=1e-12, atol=1e-12)


def test_single_precision_weights_change_nothing_that_counts() -> None:
    scores = made_scores(60)
    weights = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=20)
    exact = resampled_values(scores, weights.astype(np.float64))
    np.testing.assert_allclose(resampled_values(scores, weights.astype(np.float32)), exact, rtol=1e-5, atol=1e-7)


def test_a_class_without_objects_is_unknown_and_does_not_weigh_in_the_mean() -> None:
    scores = made_scores(10)
    kept = scores.rows["object_type"] != 3
    fewer = SceneScores(
        bucketing="2024", scenario_ids=scores.scenario_ids, scene=scores.scene[kept], object_id=scores.object_id[kept],
        rows={name: values[kept] for name, values in scores.rows.items()},
    )  # fmt: skip
    values = resampled_values(fewer, np.ones((1, 10)))[0]
    assert np.isnan(values[2]).all()
    np.testing.assert_allclose(values[-1, -1], values[:2, -1].mean(axis=0))


def test_blocks_of_weightings_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = made_scores(20)
    weights = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), size=11).astype(np.float32)
    whole = resampled_values(scores, weights)
    monkeypatch.setattr(resampling, "BLOCK_ENTRIES", 3 * scores.rows["scores"].size)
    np.testing.assert_allclose(resampled_values(scores, weights), whole, rtol=1e-12)


def test_scenes_that_tell_of_a_value_are_counted_by_class_horizon_and_metric() -> None:
    scores = made_scores(30)
    found = scenes_that_tell(scores)
    assert found.shape == (len(CLASSES), 4, len(METRIC_NAMES))
    for row, kind in enumerate((1, 2, 3)):
        inside = scores.rows["object_type"] == kind
        for horizon in range(3):
            for column in (0, 2, 3):
                known = inside & ~np.isnan(scores.rows["distances"][:, horizon, column])
                assert found[row, horizon, column] == len(set(scores.scene[known].tolist()))
            ranked = inside & (scores.rows["outcomes"][:, horizon] >= 0).any(axis=1)
            assert found[row, horizon, 4] == found[row, horizon, 5] == len(set(scores.scene[ranked].tolist()))
        assert found[row, 3, 3] == len(set(scores.scene[inside].tolist()))
    np.testing.assert_array_equal(found[-1], found[:-1].min(axis=0))


def test_an_absent_class_is_not_the_rarest() -> None:
    scores = made_scores(30)
    found = scenes_that_tell(scores.of_types([ObjectType.VEHICLE, ObjectType.CYCLIST]))
    assert (found[1] == 0).all()
    np.testing.assert_array_equal(found[-1], np.minimum(found[0], found[2]))
    assert (scenes_that_tell(scores.of_types([])) == 0).all()
