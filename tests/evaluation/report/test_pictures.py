"""Scenes and LiDAR crops as SVG."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from evaluation.report.labels import label_spots
from evaluation.report.lidar_svg import crop_of, lidar_svg
from evaluation.report.scene_svg import View, _box_path, _labels, path_data, scene_svg
from evaluation.report.simplify import clip_runs, simplify
from evaluation.signals import SignalMeaning, signal_meaning, signals_at
from tests.builders import tiny_scene


def picture(scene, row=0, num_modes=3):
    modes = scene.track_states[row, 10, :2] + np.linspace(0, 20, 80)[None, :, None] * np.ones((num_modes, 1, 2))
    return ET.fromstring(scene_svg(scene, row, modes, np.linspace(1, 0.2, num_modes), "label"))


def classes(element):
    return [word for item in element.iter() for word in (item.get("class") or "").split()]


def test_a_picture_has_map_signals_boxes_truth_and_modes_with_their_probabilities():
    element = picture(tiny_scene(1, num_features=8, gaps=False))
    assert element.get("aria-label") == "label"
    found = classes(element)
    assert {"other", "past", "agent", "truth", "truthend", "scene"} <= set(found)
    assert found.count("mode") == 3
    assert [item.text for item in element.iter("text")][:3] == ["1.00", "0.60", "0.20"]


@pytest.mark.parametrize(
    "options", [{"num_steps": 11}, {"num_features": 0}, {"with_signals": False}, {"num_tracks": 3}], ids=str
)
def test_any_scene_can_be_drawn(options):
    assert "agent" in classes(picture(tiny_scene(2, **options)))


def test_without_a_future_there_is_no_truth():
    assert "truth" not in classes(picture(tiny_scene(2, num_steps=11)))


def test_no_modes_are_no_error():
    assert "mode" not in classes(picture(tiny_scene(2), num_modes=0))


def test_the_heading_points_up():
    view = View(np.array([5.0, 5.0]), np.pi / 2)  # looks along y
    np.testing.assert_allclose(view.units(np.array([[5.0, 6.0], [4.0, 5.0]])), [[0.0, -10.0], [-10.0, 0.0]], atol=1e-9)


def test_a_box_is_turned_by_its_heading():
    state = np.array([0.0, 0.0, 0.0, 4.0, 2.0, 1.5, np.deg2rad(30.0), 0.0, 0.0])
    outline, nose = _box_path(state, View(np.zeros(2), 0.0)).split("z")
    # Ahead is up, left is left: the front's middle, 2 m from the centre, is 10 units to the left and 17 up.
    assert nose == "M-10 -17l10 17"
    assert outline == "M-19 -12l18 -10 20 34 -18 10"


def test_a_far_signal_is_not_drawn_and_a_near_one_is():
    scene = tiny_scene(0)
    at = scene.track_states[0, 10, :2]
    near = replace(scene, signal_stop_m=np.tile(np.append(at, 0.0).astype(np.float32), (91, 1)))
    far = replace(scene, signal_stop_m=near.signal_stop_m + np.float32(900.0))
    assert "signal" in classes(picture(near))
    assert "signal" not in classes(picture(far))


def test_only_signals_of_the_step_count():
    scene = tiny_scene(0)
    assert [meaning for _, meaning in signals_at(scene, 10)] == [SignalMeaning.STOP]
    assert signals_at(replace(scene, signal_step=scene.signal_step + 1), 0) == []


def test_lane_states_have_their_meaning():
    words = ["unknown", "stop", "caution", "go", "stop", "caution", "go", "stop", "caution"]
    assert [signal_meaning(state).value for state in range(9)] == words
    assert signal_meaning(77) is signal_meaning(-1) is SignalMeaning.UNKNOWN


def test_paths_are_whole_numbers_with_relative_steps():
    assert path_data([np.array([[0.2, 0.0], [3.4, -1.2], [3.3, -1.1], [9.0, 0.0]])]) == "M0 0l3 -1 6 1"
    assert path_data([np.zeros((3, 2))]) == ""


def test_simplifying_keeps_corners_and_drops_what_lies_on_a_line():
    points = np.array([[0.0, 0.0], [1.0, 0.01], [2.0, 0.0], [2.0, 1.0], [2.0, 2.0]])
    assert simplify(points, 0.1).tolist() == [[0.0, 0.0], [2.0, 0.0], [2.0, 2.0]]
    assert simplify(points[:1], 0.1).tolist() == [[0.0, 0.0]]
    assert len(simplify(np.zeros((0, 2)), 0.1)) == 0


def test_simplifying_a_closed_line_keeps_its_shape():
    ring = np.array([[0.0, 0.0], [5.0, 0.0], [5.0, 5.0], [0.0, 0.0]])
    assert len(simplify(ring, 0.1)) == 4


def test_clipping_keeps_runs_inside_with_the_way_in_and_out():
    line = np.stack([np.arange(10.0), np.zeros(10)], axis=1)
    runs = clip_runs(line, (2.5, -1.0, 2.0, 2.0))
    assert [run[:, 0].tolist() for run in runs] == [[2.0, 3.0, 4.0, 5.0]]
    assert clip_runs(line, (20.0, 20.0, 1.0, 1.0)) == []
    assert len(clip_runs(line, (2.5, -1.0, 2.0, 2.0), whole=True)[0]) == 10


def test_labels_at_one_place_do_not_cover_each_other():
    spots = label_spots(np.zeros((6, 2)), 20.0, 8.0)
    for index, (x, y) in enumerate(spots):
        assert all(abs(x - other_x) >= 20 or abs(y - other_y) >= 8 for other_x, other_y in spots[:index])


def test_labels_end_before_the_edge():
    spots = label_spots(np.array([[95.0, 0.0], [95.0, 0.0], [0.0, 0.0]]), 20.0, 8.0, right=100.0)
    assert [x + 20 <= 100 for x, _ in spots] == [True] * 3
    assert spots[2][0] > 0


def test_the_crop_is_of_the_latest_step_with_points():
    scene = tiny_scene(0)
    lidar = scene.lidar
    points, found, age = crop_of(scene, 1)
    last = int(np.flatnonzero(lidar.count[1])[-1])
    assert age == 10 - last
    np.testing.assert_array_equal(points, lidar.frame(1, last)[0])
    assert found == lidar.count_in_box[1, last]
    element = ET.fromstring(lidar_svg(scene, 1))
    assert [item.get("class") for item in element.iter("path")] == ["outline", "points"] * 2
    assert f"{found} LiDAR points" in element.find("p").text


def test_points_that_preprocessing_left_out_are_told_of():
    scene = tiny_scene(0)
    more = replace(scene, lidar=replace(scene.lidar, count_in_box=scene.lidar.count_in_box + 1000))
    points, found, _ = crop_of(more, 1)
    assert found >= 1000 + len(points)
    text = ET.fromstring(lidar_svg(more, 1)).find("p").text
    assert text.startswith(f"{found} LiDAR points")
    assert text.endswith(f", {len(points)} of them kept")


def test_an_agent_without_points_has_no_crop():
    assert lidar_svg(tiny_scene(0, with_lidar=False), 0) is None
    assert lidar_svg(tiny_scene(0), 5) is None  # no track to predict


def test_each_probability_stands_at_the_end_of_its_mode():
    modes = np.zeros((2, 80, 2))
    modes[0, :, 0], modes[1, :, 1] = np.linspace(0, 30, 80), np.linspace(0, 30, 80)  # ahead, and to the left
    labels = ET.fromstring(_labels(View(np.zeros(2), 0.0), modes, np.array([0.2, 0.8]), (-400.0, -400.0, 800.0, 800.0)))
    at = {item.text: (float(item.get("x")), float(item.get("y"))) for item in labels.iter("text")}
    assert abs(at["0.20"][0]) < 60 > abs(at["0.20"][1] + 300)
    assert abs(at["0.80"][0] + 300) < 60 > abs(at["0.80"][1])


def test_points_are_seen_from_above_and_from_the_side():
    scene = tiny_scene(0)
    row = int(scene.tracks_to_predict[np.flatnonzero(scene.lidar.count[:, 10])[0]])
    points, _, age = crop_of(scene, row)
    assert age == 0
    above, side = ET.fromstring(lidar_svg(scene, row)).findall("svg")
    for picture, axis in ((above, 1), (side, 2)):
        data = next(path.get("d") for path in picture.iter("path") if path.get("class") == "points")
        across, down = np.round(points[:, [0, axis]] * (100, -100)).astype(int).T.tolist()
        assert data == "".join(f"M{x} {y}h0" for x, y in zip(across, down, strict=True))
