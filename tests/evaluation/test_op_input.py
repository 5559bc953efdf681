"""The arrays that Waymo's op reads: padding, its traps, and buckets of a rule that it does not know."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.baselines import constant_velocity, turn_rate_fan
from evaluation.buckets import Bucket, classify
from evaluation.metric_config import CURRENT_STEP
from evaluation.op_input import bucket_cases, op_arrays, rounded
from evaluation.scenario_predictions import pair_with_truth
from tests.builders import tiny_scene


def scenario(seed=0, predict=turn_rate_fan, **options):
    scene = tiny_scene(seed, with_lidar=False, **options)
    return pair_with_truth(scene, predict(scene))


def test_scenarios_of_other_sizes_are_padded_with_what_the_op_ignores():
    arrays = op_arrays([scenario(0, num_tracks=6, num_targets=3), scenario(1, num_tracks=9, num_targets=2)])
    assert arrays["pred"].shape == (2, 3, 6, 1, 16, 2)
    assert arrays["gt"].shape == (2, 9, 91, 7)
    assert not arrays["gt_valid"][0, 6:].any()
    assert arrays["idx_mask"][..., 0].tolist() == [[True, True, True], [True, True, False]]


def test_object_ids_are_rows_whatever_the_record_calls_them():
    assert op_arrays([scenario(num_tracks=6)])["oid"].tolist() == [[0, 1, 2, 3, 4, 5]]


def test_all_tracks_are_given_because_any_may_be_overlapped():
    item = scenario(num_tracks=8, num_targets=1)
    arrays = op_arrays([item])
    np.testing.assert_array_equal(arrays["gt_valid"][0], item.track_valid)


def test_empty_slots_of_a_group_are_masked():
    item = scenario()
    joint = replace(
        item, group_rows=np.array([[0, 1], [2, -1]]), xy_m=np.repeat(item.xy_m[:2], 2, axis=2), scores=item.scores[:2]
    )
    arrays = op_arrays([joint])
    assert arrays["idx_mask"][0].tolist() == [[True, True], [True, False]]
    assert (arrays["idx"] >= 0).all()


def test_a_predicted_track_that_is_never_valid_is_refused_before_the_op_aborts():
    item = scenario()
    item.track_valid[1] = False
    with pytest.raises(ValueError, match=r"'tiny0000': predicted track rows \[1\] have no valid step"):
        op_arrays([item])


def test_numbers_of_modes_may_not_differ():
    with pytest.raises(ValueError, match="'tiny0001': 1 modes, others have 6"):
        op_arrays([scenario(0), scenario(1, constant_velocity)])


def test_nothing_to_judge_is_an_error():
    with pytest.raises(ValueError, match="no predictions"):
        op_arrays([])


def test_scores_that_tie_in_float32_tie_after_rounding():
    item = scenario()
    item.scores[0, :2] = (0.1, 0.1 + 1e-12)
    assert len(set(rounded(item).scores[0, :2])) == 1


def test_each_bucket_case_holds_its_groups_alone_and_the_op_sees_one_bucket():
    scenarios = [rounded(scenario(seed, gaps=False)) for seed in range(6)]
    arrays = op_arrays(scenarios)
    cases = bucket_cases(arrays, "2021")
    assert len(cases) > 1
    together = np.sum([case["idx_mask"] for case in cases.values()], axis=0)
    np.testing.assert_array_equal(together, arrays["idx_mask"])
    for bucket, case in cases.items():
        for row, item in enumerate(scenarios):
            own = classify(item.track_states, item.track_valid, CURRENT_STEP, "2021")
            members = case["idx"][row][case["idx_mask"][row]]
            named = np.where(own == Bucket.RIGHT_U_TURN, Bucket.RIGHT_TURN, own)
            assert (named[members] == bucket).all()
            seen = classify(case["gt"][row].astype(float), case["gt_valid"][row], CURRENT_STEP, "2024")
            assert (seen[members] == Bucket.STRAIGHT).all()
            np.testing.assert_array_equal(case["gt"][row][:, 11:], arrays["gt"][row][:, 11:])
            np.testing.assert_array_equal(case["gt"][row][:, 10, 5:], arrays["gt"][row][:, 10, 5:])
