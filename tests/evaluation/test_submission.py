"""From predictions to the messages and the archive of a submission."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.baselines import turn_rate_fan
from evaluation.joint import best_products
from evaluation.submission import (
    interaction_message,
    motion_message,
    parameters_text,
    scenario_messages,
    write_archive,
)
from evaluation.submission_archive import read_messages
from evaluation.submission_problems import Problems
from evaluation.submission_targets import targets_of
from limtr.prediction import ScenePrediction
from tests.builders import tiny_scene
from tests.evaluation.submissions import INFO, scenes


def prediction(num_modes=8):
    """Two objects whose position is (step number, mode number) at each of the 80 steps: 0.1 s is step 1."""
    xy = np.zeros((2, num_modes, 80, 2))
    xy[..., 0] = np.arange(1, 81)
    xy[..., 1] = np.arange(num_modes)[:, None]
    scores = np.tile(np.array([0.2, 0.5, 0.1, 0.5, 0.0, 0.3, 0.9, 0.9])[:num_modes], (2, 1))
    return ScenePrediction(scenario_id="s", object_id=np.array([7, 3]), xy_m=xy, scores=scores)


def test_sixteen_positions_start_half_a_second_from_now():
    item = motion_message(prediction()).single_predictions.predictions[0]
    assert list(item.trajectories[0].trajectory.center_x) == list(range(5, 81, 5))


def test_the_first_six_modes_are_kept_and_stand_best_first_ties_in_their_order():
    item = motion_message(prediction()).single_predictions.predictions[1]
    assert item.object_id == 3
    assert [mode.trajectory.center_y[0] for mode in item.trajectories] == [1, 3, 5, 0, 2, 4]
    assert [mode.confidence for mode in item.trajectories] == pytest.approx([0.5, 0.5, 0.3, 0.2, 0.1, 0.0])


def test_an_interaction_is_the_six_best_products_with_both_objects_in_the_order_of_the_pair():
    item = prediction(num_modes=3)
    item.scores[1] = (0.9, 0.2, 0.6)
    message = interaction_message(item, (3, 7))
    of_first, of_second, scores = best_products(item.scores[1], item.scores[0])
    modes = message.joint_prediction.joint_trajectories
    assert len(modes) == 6
    assert [mode.confidence for mode in modes] == pytest.approx(scores)
    for mode, first, second in zip(modes, of_first, of_second, strict=True):
        assert [part.object_id for part in mode.trajectories] == [3, 7]
        assert [part.trajectory.center_y[0] for part in mode.trajectories] == [first, second]


def test_an_interaction_without_one_of_the_pair_is_named():
    with pytest.raises(ValueError, match=r"'s': objects \[5\] of the interacting pair are not predicted"):
        interaction_message(prediction(), (3, 5))


@pytest.mark.parametrize(
    ("number", "text"), [(64_139_094, "64M"), (825_874, "826K"), (1_500_000_000, "2B"), (12, "1K"), (999_999, "1M")]
)
def test_parameters_are_a_whole_number_and_a_suffix(number, text):
    assert parameters_text(number) == text


def test_objects_and_scenarios_that_are_not_asked_for_are_named_and_left_out():
    items = scenes()
    predictions = [turn_rate_fan(scene) for scene in (*items, tiny_scene(9, with_lidar=False))]
    fewer = replace(items[0], tracks_to_predict=items[0].tracks_to_predict[[2, 0]], difficulty=items[0].difficulty[:2])
    problems: list[str] = []
    messages = list(scenario_messages(predictions, "motion", targets_of([fewer, *items[1:]]), problems))
    assert [message.scenario_id for message in messages] == ["tiny0000", "tiny0001", "tiny0002"]
    assert [item.object_id for item in messages[0].single_predictions.predictions] == [114, 100]
    assert problems == [
        "scenario 'tiny0000': objects [107] are no tracks to predict and are left out",
        "scenario 'tiny0009' is not in the split and is left out",
    ]


def test_a_scenario_without_a_pair_is_no_interaction():
    problems: list[str] = []
    items = scenes()[:1]
    assert list(scenario_messages([turn_rate_fan(items[0])], "interaction", targets_of(items), problems)) == []
    assert problems == ["scenario 'tiny0000' names no pair of interacting objects and is left out"]


def test_shards_hold_all_scenarios_and_the_bytes_are_the_same_each_time(tmp_path):
    messages = [motion_message(turn_rate_fan(scene)) for scene in scenes()]
    for name in ("a", "b"):
        assert write_archive(tmp_path / name, iter(messages), INFO, "motion", scenarios_per_shard=2) == 3
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    problems = Problems()
    read = list(read_messages(tmp_path / "a", problems))
    assert [name for name, _ in read] == ["predictions.binproto-00000-of-00002", "predictions.binproto-00001-of-00002"]
    assert [scenario for _, message in read for scenario in message.scenario_predictions] == messages
    assert {message.account_name for _, message in read} == {"someone@example.org"}
    assert problems.rejected == []


def test_nothing_to_submit_leaves_no_archive(tmp_path):
    with pytest.raises(ValueError, match="no scenario can be submitted"):
        write_archive(tmp_path / "a", [], INFO, "motion", scenarios_per_shard=2)
    assert list(tmp_path.iterdir()) == []
