from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from limtr.scene import LidarCrops, Scene, SceneError
from tests.builders import tiny_scene


@pytest.mark.parametrize("num_steps", [91, 11])
def test_a_built_scene_is_valid_and_knows_whether_it_has_a_future(num_steps: int) -> None:
    scene = tiny_scene(num_steps=num_steps)
    assert scene.validate() is scene
    assert scene.has_future == (num_steps == 91)


def _nan_state(scene: Scene) -> Scene:
    states = scene.track_states.copy()
    states[0, scene.current_step, 0] = np.nan
    return replace(scene, track_states=states)


def _state_where_invalid(scene: Scene) -> Scene:
    valid = scene.track_valid.copy()
    valid[1, 20] = False
    states = scene.track_states.copy()
    states[1, 20, 0] = 1.0
    return replace(scene, track_valid=valid, track_states=states)


def _lidar_count(scene: Scene) -> Scene:
    assert isinstance(scene.lidar, LidarCrops)
    return replace(scene, lidar=replace(scene.lidar, count=scene.lidar.count + 1))


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (_nan_state, "track_states"),
        (_state_where_invalid, "track_states"),
        (_lidar_count, "lidar.points_m"),
        (lambda s: replace(s, tracks_to_predict=s.tracks_to_predict + 99), "tracks_to_predict"),
        (lambda s: replace(s, tracks_to_predict=np.zeros(3, np.int64)), "tracks_to_predict"),
        (lambda s: replace(s, sdc_track=99), "sdc_track"),
        (lambda s: replace(s, current_step=91), "current_step"),
        (lambda s: replace(s, polyline_length=s.polyline_length[:-1]), "polyline_length"),
        (lambda s: replace(s, feature_length=s.feature_length + 1), "feature_length"),
        (lambda s: replace(s, track_type=s.track_type[:-1]), "track_type"),
    ],
    ids=["nan", "invalid-state", "lidar-count", "target-range", "target-twice", "sdc", "now", "polylines", "features", "types"],
)
def test_a_contradiction_is_named_with_scenario_and_field(spoil: Callable[[Scene], Scene], field: str) -> None:
    with pytest.raises(SceneError, match=rf"tiny0000.*{field}"):
        spoil(tiny_scene()).validate()


def test_targets_invalid_now_are_not_predictable() -> None:
    scene = tiny_scene()
    valid = scene.track_valid.copy()
    valid[1, scene.current_step] = False
    assert replace(scene, track_valid=valid).predictable().tolist() == [0, 2]


def test_lidar_frames_are_cut_from_the_flat_points() -> None:
    scene = tiny_scene()
    assert scene.lidar is not None
    cut = [scene.lidar.frame(agent, frame)[0] for agent in range(3) for frame in range(11)]
    assert [len(points) for points in cut] == scene.lidar.count.ravel().tolist()
    np.testing.assert_array_equal(np.concatenate(cut), scene.lidar.points_m)


def test_keeping_targets_keeps_their_points_in_order() -> None:
    scene = tiny_scene()
    assert scene.lidar is not None
    kept = scene.keep_targets(np.array([2, 0])).validate()
    assert kept.lidar is not None
    assert kept.tracks_to_predict.tolist() == [2, 0]
    for new, old in ((0, 2), (1, 0)):
        for frame in range(11):
            for mine, original in zip(kept.lidar.frame(new, frame), scene.lidar.frame(old, frame), strict=True):
                np.testing.assert_array_equal(mine, original)
    nothing = scene.keep_targets(np.zeros(0, np.int64)).validate()
    assert nothing.predictable().size == 0
