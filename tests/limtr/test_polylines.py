"""Polylines of a scene as padded arrays."""

from dataclasses import replace

import numpy as np
import pytest

from limtr.polylines import polyline_feature, polyline_signal, polyline_tensor
from limtr.scene import Scene
from tests.builders import tiny_scene


def scene_with_map(points: list[list[float]], feature_length: list[int], polyline_length: list[int]) -> Scene:
    """A scene whose map is these points; feature i has type i + 1 and id 100 + i."""
    number = len(feature_length)
    return replace(
        tiny_scene(with_lidar=False),
        map_points_m=np.array(points, dtype=np.float32).reshape(-1, 3),
        feature_length=np.array(feature_length, dtype=np.int64),
        feature_type=np.arange(number, dtype=np.int64) + 1,
        feature_id=np.arange(number, dtype=np.int64) + 100,
        polyline_length=np.array(polyline_length, dtype=np.int64),
    ).validate()


def test_points_keep_their_order_and_padding_is_zero() -> None:
    scene = tiny_scene()
    polylines, mask = polyline_tensor(scene)
    assert polylines.shape == (len(scene.polyline_length), 20, 7)
    assert polylines.dtype == np.float32
    np.testing.assert_array_equal(mask.sum(axis=1), scene.polyline_length)
    np.testing.assert_array_equal(polylines[mask][:, :3], scene.map_points_m)
    np.testing.assert_array_equal(polylines[mask][:, 6], np.repeat(scene.feature_type, scene.feature_length))
    assert not polylines[~mask].any()


def test_direction_crosses_pieces_but_not_features() -> None:
    line = [[0.5 * step, 0.0, 0.0] for step in range(23)]
    side = [[11.0, 0.5, 0.0], [11.0, 1.0, 0.0]]
    polylines, mask = polyline_tensor(scene_with_map(line + side, [23, 2], [20, 5]))
    np.testing.assert_array_equal(polylines[0, 0, 3:6], [0, 0, 0])
    np.testing.assert_array_equal(polylines[1, 0, 3:6], [1, 0, 0])  # the 21st point of the first feature
    np.testing.assert_array_equal(polylines[1, 3, 3:6], [0, 0, 0])  # the second feature begins
    np.testing.assert_array_equal(polylines[1, 4, 3:6], [0, 1, 0])
    assert mask.sum() == 25


def test_directions_are_unit_vectors_in_three_dimensions_and_zero_for_a_repeated_point() -> None:
    polylines, _ = polyline_tensor(scene_with_map([[0, 0, 0], [3, 0, 4], [3, 0, 4]], [3], [1, 2]))
    np.testing.assert_allclose(polylines[1, 0, 3:6], [0.6, 0.0, 0.8], atol=1e-7)
    np.testing.assert_array_equal(polylines[1, 1, 3:6], [0, 0, 0])


def test_scene_without_map_has_no_polylines() -> None:
    scene = scene_with_map([], [], [])
    polylines, mask = polyline_tensor(scene)
    assert polylines.shape == (0, 20, 7)
    assert mask.shape == (0, 20)
    assert polyline_signal(scene, 10).shape == (0,)


@pytest.mark.parametrize(("lengths", "expected"), [([3, 2], 0), ([2, 3], 1), ([2, 2], 0), ([1, 1, 3], 2)])
def test_a_polyline_belongs_to_the_feature_of_most_of_its_points(lengths: list[int], expected: int) -> None:
    total = sum(lengths)
    scene = scene_with_map([[0.5 * step, 0, 0] for step in range(total)], lengths, [total])
    assert polyline_feature(scene).tolist() == [expected]


def test_signal_is_that_of_the_lane_at_the_step() -> None:
    base = scene_with_map([[0, 0, 0], [0, 1, 0], [9, 9, 0]], [1, 1, 1], [1, 1, 1])
    scene = replace(
        base,
        signal_step=np.array([9, 10, 10, 10, 11]),
        signal_lane=np.array([100, 100, 102, 999, 101]),
        signal_state=np.array([6, 4, 0, 8, 5]),
        signal_stop_m=np.zeros((5, 3), dtype=np.float32),
    ).validate()
    assert polyline_signal(scene, 10).tolist() == [4, -1, 0]
    assert polyline_signal(scene, 9).tolist() == [6, -1, -1]
    assert polyline_signal(scene, 50).tolist() == [-1, -1, -1]
