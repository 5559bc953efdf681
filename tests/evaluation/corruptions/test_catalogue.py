"""What every corruption promises: the truth and the targets stay, the scene stays sound, severities share their draws."""

from dataclasses import fields, replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.corruptions.catalogue import CORRUPTIONS, SEVERITIES, Corruption, CorruptionName, corrupt
from limtr.scene import Scene
from tests.builders import tiny_scene

names = pytest.mark.parametrize("name", CORRUPTIONS)


def plain(scene: Scene) -> dict[str, bytes]:
    arrays = {field.name: getattr(scene, field.name) for field in fields(scene)}
    if scene.lidar is not None:
        arrays |= {f"lidar.{field.name}": getattr(scene.lidar, field.name) for field in fields(scene.lidar)}
    return {name: value.tobytes() for name, value in arrays.items() if isinstance(value, np.ndarray)}


def test_the_command_line_knows_every_corruption():
    assert set(get_args(CorruptionName)) == {"all", *CORRUPTIONS}


@names
@given(number=st.integers(0, 10_000), severity=st.sampled_from(SEVERITIES), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_a_degraded_scene_is_sound_and_keeps_the_future_and_the_targets(name, number, severity, seed):
    scene = tiny_scene(number)
    before = plain(scene)
    worse = corrupt(scene, name, severity, seed).validate()
    assert plain(scene) == before, "the scene itself was changed"
    future = slice(scene.current_step + 1, None)
    np.testing.assert_array_equal(worse.track_states[:, future], scene.track_states[:, future])
    np.testing.assert_array_equal(worse.track_valid[:, scene.current_step :], scene.track_valid[:, scene.current_step :])
    np.testing.assert_array_equal(worse.tracks_to_predict, scene.tracks_to_predict)
    np.testing.assert_array_equal(worse.track_id, scene.track_id)


@names
def test_the_same_seed_degrades_alike_and_severity_zero_not_at_all(name):
    scene = tiny_scene(1)
    assert plain(corrupt(scene, name, 3, seed=5)) == plain(corrupt(scene, name, 3, seed=5))
    assert corrupt(scene, name, 0, seed=5) is scene


@pytest.mark.parametrize("name", ["lidar-dropout", "lidar-range-noise", "lidar-fog", "track-noise", "missing-map"])
def test_seed_and_scenario_decide_what_is_hit(name):
    scene = tiny_scene(1, num_features=40)
    first = plain(corrupt(scene, name, 3, seed=5))
    assert first != plain(corrupt(scene, name, 3, seed=6))
    assert first != plain(corrupt(replace(scene, scenario_id="another"), name, 3, seed=5))


@names
def test_every_severity_changes_more_than_the_one_before(name):
    def distance(scene: Scene, severity: int) -> float:
        worse = corrupt(scene, name, severity, seed=0)
        tracks = float(np.abs(worse.track_states - scene.track_states).sum())
        lost_map = len(scene.map_points_m) - len(worse.map_points_m)
        lost = len(scene.lidar.points_m) - len(worse.lidar.points_m)
        moved = float(np.abs(worse.lidar.points_m - scene.lidar.points_m).sum()) if lost == 0 else 0.0
        return tracks + lost_map + lost + moved

    found = [
        sum(distance(tiny_scene(number, num_features=30), severity) for number in range(4)) for severity in (0, *SEVERITIES)
    ]
    assert found[0] == 0.0
    assert all(mild < strong for mild, strong in pairwise(found)), found


@names
def test_scenes_without_tracks_map_or_points_are_no_trouble(name):
    scene = tiny_scene(2, num_features=0, num_targets=0)
    corrupt(scene, name, 5, seed=0).validate()


def test_a_scene_that_does_not_know_its_recorder_can_be_degraded():
    scene = replace(tiny_scene(2), sdc_track=-1)
    for name in CORRUPTIONS:
        corrupt(scene, name, 4, seed=0).validate()


def test_bad_questions_are_told():
    scene = tiny_scene(0)
    with pytest.raises(ValueError, match="no corruption 'rain'; there are lidar-dropout"):
        corrupt(scene, "rain", 1, 0)
    with pytest.raises(ValueError, match=r"severity must be one of 0\.\.5, is 6"):
        corrupt(scene, "lidar-fog", 6, 0)
    with pytest.raises(ValueError, match="'tiny0000' has no LiDAR"):
        corrupt(replace(scene, lidar=None), "lidar-fog", 1, 0)
    with pytest.raises(ValueError, match="one amount for each of the severities"):
        Corruption(title="x", apply=lambda scene, amount, rng: scene, amounts=(1.0,), unit="m")
