import re
from dataclasses import replace

import numpy as np
import pytest

from evaluation.comparison.analyse import Comparison, analyse
from evaluation.comparison.verdicts import SHOWN, count_intervals, coverage, verdicts
from evaluation.metric_config import METRIC_NAMES
from evaluation.scene_scores import SceneScores
from tests.evaluation.made_scores import made_scores

MIN_ADE = METRIC_NAMES.index("minADE")


def compared(gain_m: float, *, seeds: int = 3, scenes: int = 40, trial: int = 0, seed_noise_m: float = 0.05) -> Comparison:
    """Two made models of which the second is `gain_m` better."""
    scores = {
        name: {
            seed: made_scores(
                scenes, truth_seed=trial, model_seed=1000 * trial + 10 * seed + number, gain_m=gain_m * number,
                seed_noise_m=seed_noise_m,
            )
            for seed in range(seeds)
        }
        for number, name in enumerate(("plain", "better"))
    }  # fmt: skip
    return analyse(scores, num_resamples=200, level=0.9, seed=0)


def test_intervals_of_equal_variants_hold_zero_about_as_often_as_they_say() -> None:
    looked = excluded = 0
    for trial in range(30):
        number, outside = count_intervals(compared(0.0, trial=trial, scenes=25))
        looked, excluded = looked + number, excluded + outside
    assert looked == 30 * 4 * len(SHOWN)
    # Metrics of one trial go together, so that 30 trials tell no more than some hundred independent intervals.
    assert 0.02 <= excluded / looked <= 0.18


def test_a_known_difference_is_found_and_put_in_words() -> None:
    found = compared(0.3, seeds=5)
    difference = found.variants["better"].difference
    assert difference is not None
    estimate, low, high = (float(part[-1, -1, MIN_ADE]) for part in (difference.estimate, difference.low, difference.high))
    assert low < estimate < high < 0
    assert low < -0.3 * 1.1 < high  # the gain, times the mean of the three horizons' factors
    said = [sentence for sentence in verdicts(found, "better") if sentence.startswith("mean of classes, minADE")]
    assert len(said) == 1
    assert re.search(r"better is better than plain by 0\.\d{3} m \(\d+\.\d%\), 90% interval 0\.\d{3} to 0\.\d{3} m", said[0])


def test_a_loss_is_called_worse() -> None:
    said = list(verdicts(compared(-0.3), "better"))
    assert said
    assert all(" is worse than plain by " in sentence for sentence in said)


def test_nothing_is_said_where_the_interval_holds_zero() -> None:
    runs = {seed: made_scores(30, model_seed=seed) for seed in range(3)}
    found = analyse({"one": runs, "same": runs}, num_resamples=200, level=0.95, seed=0)
    assert list(verdicts(found, "same")) == []
    assert count_intervals(found) == (20, 0)


def test_pairing_takes_away_what_the_variants_share() -> None:
    """Scenes of unlike difficulty spread both variants' values, and not their difference."""
    found = compared(0.0, seed_noise_m=0.0)
    difference = found.variants["better"].difference
    assert difference is not None
    alone = found.variants["plain"].values
    width = difference.high - difference.low
    assert width[-1, -1, MIN_ADE] < 0.5 * (alone.high - alone.low)[-1, -1, MIN_ADE]


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_scene_proves_nothing(seeds: int) -> None:
    """Resamples of one scene are all alike: an interval over them would have no width."""
    found = compared(5.0, seeds=seeds, scenes=1, trial=3)
    difference = found.variants["better"].difference
    assert difference is not None
    assert difference.estimate[-1, -1, MIN_ADE] < 0
    assert np.isnan(difference.low).all()
    assert list(verdicts(found, "better")) == []
    assert count_intervals(found) == (0, 0)


def test_a_class_of_one_scene_has_no_interval_and_leaves_those_of_others() -> None:
    def rare(seed: int, gain_m: float) -> SceneScores:
        scores = made_scores(30, model_seed=seed, gain_m=gain_m)
        kinds = np.where(scores.scene == 0, 3, np.minimum(scores.rows["object_type"], 2))
        return replace(scores, rows={**scores.rows, "object_type": kinds})

    runs = {name: {seed: rare(seed, gain_m) for seed in range(3)} for name, gain_m in (("plain", 0.0), ("better", 0.4))}
    difference = analyse(runs, num_resamples=200, level=0.95, seed=0).variants["better"].difference
    assert difference is not None
    assert np.isfinite(difference.estimate[2, -1, MIN_ADE])
    assert np.isnan(difference.low[[2, 3], -1, MIN_ADE]).all()
    assert (difference.high[:2, -1, MIN_ADE] < 0).all()


def test_pairing_takes_away_what_a_seed_does_to_both() -> None:
    """Seed by seed the luck of both variants is one; paired otherwise it would spread their difference."""
    runs = {
        name: {seed: made_scores(30, model_seed=number, gain_m=0.4 * seed) for seed in range(4)}
        for number, name in enumerate(("plain", "other"))
    }
    found = analyse(runs, num_resamples=200, level=0.95, seed=0)
    difference, alone = found.variants["other"].difference, found.variants["plain"].values
    assert difference is not None
    width, wide = ((item.high - item.low)[-1, -1, MIN_ADE] for item in (difference, alone))
    assert width < 0.3 * wide


def test_relative_differences_are_of_the_shared_seeds() -> None:
    """The first variant's other seeds are much worse: they are no part of the difference."""
    first = {seed: made_scores(40, model_seed=seed, gain_m=0.0 if seed < 2 else -5.0) for seed in range(4)}
    found = analyse(
        {"first": first, "second": {seed: made_scores(40, model_seed=seed, gain_m=0.3) for seed in range(2)}},
        num_resamples=200, level=0.9, seed=0,
    )  # fmt: skip
    difference = found.variants["second"].difference
    assert difference is not None
    base = found.variants["first"].by_seed[:2, -1, -1, MIN_ADE].mean()
    (said,) = [item for item in verdicts(found, "second") if item.startswith("mean of classes, minADE")]
    assert f"({-difference.estimate[-1, -1, MIN_ADE] / base:.1%})" in said


def test_a_verdict_of_one_seed_says_so() -> None:
    said = list(verdicts(compared(0.5, seeds=1, seed_noise_m=0.0), "better"))
    assert said
    assert all(sentence.endswith("(over scenes, one seed)") for sentence in said)
    assert not any("one seed" in sentence for sentence in verdicts(compared(0.5), "better"))


@pytest.mark.parametrize(
    ("seeds", "told"), [((3, 3), "scenes and seeds"), ((1, 1), "scenes (one seed)"),
                        ((3, 1), "scenes and seeds (scenes alone where there is one seed)")],
)  # fmt: skip
def test_what_the_intervals_are_over_is_told(seeds: tuple[int, int], told: str) -> None:
    runs = {seed: made_scores(10, model_seed=seed) for seed in range(3)}
    others = {f"v{number}": {seed: runs[seed] for seed in range(count)} for number, count in enumerate(seeds)}
    assert coverage(analyse({"first": runs, **others}, num_resamples=100, level=0.9, seed=0)) == told


def test_only_seeds_that_both_have_are_compared() -> None:
    runs = {seed: made_scores(30, model_seed=seed) for seed in range(4)}
    found = analyse({"one": runs, "two": {3: runs[0], 7: runs[1]}}, num_resamples=100, level=0.95, seed=0)
    assert found.variants["two"].shared_seeds == (3,)
    none = analyse({"one": {0: runs[0]}, "two": {1: runs[1]}}, num_resamples=100, level=0.95, seed=0)
    assert none.variants["two"].difference is None


def test_runs_on_different_scenes_or_objects_are_refused() -> None:
    one = made_scores(20)
    with pytest.raises(ValueError, match=r"two, seed 0 and one, seed 0 were evaluated on different scenes \(1 are in one"):
        analyse({"one": {0: one}, "two": {0: made_scores(21)}}, num_resamples=100, level=0.95, seed=0)
    other = SceneScores(
        bucketing="2024", scenario_ids=one.scenario_ids, scene=one.scene, object_id=one.object_id + 1, rows=one.rows
    )
    with pytest.raises(ValueError, match=r"different objects \(their object_id differs\)"):
        analyse({"one": {0: one}, "two": {0: other}}, num_resamples=100, level=0.95, seed=0)
    # Truth of another length or kind: the same ids, and nothing to pair all the same.
    turned = replace(one, rows={**one.rows, "bucket": one.rows["bucket"][::-1]})
    with pytest.raises(ValueError, match=r"different objects \(their bucket differs\)"):
        analyse({"one": {0: one}, "two": {0: turned}}, num_resamples=100, level=0.95, seed=0)
    older = replace(one, bucketing="2021")
    with pytest.raises(ValueError, match=r"different rules of buckets \(2024, 2021\)"):
        analyse({"one": {0: one}, "two": {0: older}}, num_resamples=100, level=0.95, seed=0)


def test_one_seed_gives_an_interval_over_scenes() -> None:
    found = compared(0.3, seeds=1, seed_noise_m=0.0)
    difference = found.variants["better"].difference
    assert difference is not None
    assert np.isfinite(difference.low[-1, -1]).all()
    assert difference.high[-1, -1, MIN_ADE] < 0
