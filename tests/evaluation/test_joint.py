"""Joint predictions as the best products of what is predicted of each agent alone."""

from dataclasses import replace

import numpy as np

from evaluation.baselines import turn_rate_fan
from evaluation.joint import best_products, interactive_pair, joint_of_groups
from evaluation.scenario_predictions import pair_with_truth
from tests.builders import tiny_scene


def test_the_best_products_come_first_and_equal_ones_in_the_order_of_the_modes():
    first, second, score = best_products(np.array([0.5, 0.1]), np.array([0.2, 0.4, 0.2]), number=4)
    assert first.tolist() == [0, 0, 0, 1]
    assert second.tolist() == [1, 0, 2, 1]
    np.testing.assert_allclose(score, [0.2, 0.1, 0.1, 0.04])


def test_there_are_no_more_products_than_pairs():
    assert len(best_products(np.array([0.5, 0.1]), np.array([1.0]))[2]) == 2


def test_the_pair_is_that_of_interest_or_else_two_tracks_to_predict():
    scene = tiny_scene(0, with_lidar=False)
    assert interactive_pair(scene) is None
    assert interactive_pair(replace(scene, objects_of_interest=np.array([114, 100]))) == (114, 100)
    assert interactive_pair(tiny_scene(0, num_targets=2, with_lidar=False)) == (100, 107)


def test_a_joint_prediction_holds_the_paths_of_the_modes_that_make_its_product():
    scene = tiny_scene(0, with_lidar=False)
    alone = pair_with_truth(scene, turn_rate_fan(scene))
    joint = joint_of_groups(alone, [(2, 0), (1, 2)])
    assert joint.group_rows.tolist() == [[2, 0], [1, 2]]
    of_first, of_second, scores = best_products(alone.scores[2], alone.scores[0])
    np.testing.assert_array_equal(joint.xy_m[0, :, 0], alone.xy_m[2, of_first, 0])
    np.testing.assert_array_equal(joint.xy_m[0, :, 1], alone.xy_m[0, of_second, 0])
    np.testing.assert_array_equal(joint.scores[0], scores)
