"""Lines, boxes and points of a scene in three dimensions."""

import numpy as np

from evaluation.baselines import turn_rate_fan
from evaluation.view.geometry import Boxes, box_edges, boxes_at, lidar_points, map_lines, mode_paths, true_paths
from tests.builders import tiny_scene


def test_edges_of_a_turned_box():
    box = Boxes(np.array([0]), np.array([[10.0, 20.0, 1.0]]), np.array([[4.0, 2.0, 1.0]]), np.array([np.pi / 2]))
    corners, pairs = box_edges(box)
    np.testing.assert_allclose(corners.min(axis=0), [9.0, 18.0, 0.5])
    np.testing.assert_allclose(corners.max(axis=0), [11.0, 22.0, 1.5])
    lengths = np.linalg.norm(corners[pairs[:, 0]] - corners[pairs[:, 1]], axis=1)
    assert sorted(lengths.round(6).tolist()) == [1.0] * 4 + [2.0] * 4 + [4.0] * 4


def test_edges_of_several_boxes_stay_with_their_own_box():
    boxes = boxes_at(tiny_scene(0), 10)
    corners, pairs = box_edges(boxes)
    assert len(corners) == 8 * 6
    assert (pairs // 8 == np.repeat(np.arange(6), 12)[:, None]).all()


def test_only_valid_tracks_have_boxes():
    scene = tiny_scene(0)
    scene.track_valid[2, 30], scene.track_states[2, 30] = False, 0.0
    assert 2 not in boxes_at(scene, 30).rows


def test_lidar_points_lie_in_the_boxes_of_their_step():
    scene = tiny_scene(1)
    assert len(lidar_points(scene, 7)) == scene.lidar.count[:, 7].sum()
    found = 0
    for position, row in enumerate(scene.tracks_to_predict.tolist()):
        state, number = scene.track_states[row, 7].astype(float), int(scene.lidar.count[position, 7])
        offset = lidar_points(scene, 7)[found : found + number] - state[:3]
        cos, sin = np.cos(state[6]), np.sin(state[6])
        along, across = cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0]
        assert (np.abs(along) <= state[3] / 2 + 1e-4).all()
        assert (np.abs(across) <= state[4] / 2 + 1e-4).all()
        found += number
    assert found > 0


def test_there_are_no_points_after_now_or_without_lidar():
    assert len(lidar_points(tiny_scene(1), 11)) == 0
    assert len(lidar_points(tiny_scene(1, with_lidar=False), 7)) == 0


def test_polygons_of_the_map_are_closed_and_lines_are_not():
    lines = map_lines(tiny_scene(0, num_features=8))
    assert {name for name, items in lines.items() if items} == {"lane", "roadline", "edge", "crosswalk", "driveway"}
    assert all((item[0] == item[-1]).all() for item in lines["crosswalk"] + lines["driveway"])
    assert not any((item[0] == item[-1]).all() for item in lines["lane"])


def test_modes_begin_where_the_object_is_and_know_their_share():
    scene = tiny_scene(2)
    paths = mode_paths(scene, turn_rate_fan(scene))
    assert len(paths) == 3 * 6
    np.testing.assert_allclose(paths[6].points_m[0], scene.track_states[1, 10, :3], atol=1e-6)
    assert paths[6].points_m.shape == (81, 3)
    assert [path.share for path in paths[:2]] == [1.0, 0.15 / 0.4]


def test_an_object_without_a_future_has_no_true_path():
    scene = tiny_scene(2, gaps=False)
    scene.track_valid[0, 11:], scene.track_states[0, 11:] = False, 0.0
    found = true_paths(scene, turn_rate_fan(scene))
    assert [row for row, _ in found] == [1, 2]
    assert len(found[0][1]) == 81
