from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from limtr.batch import collate
from limtr.polylines import polyline_tensor
from limtr.scene import Scene, SceneError
from tests.builders import tiny_scene


def invalid_now(scene: Scene, track: int) -> Scene:
    valid, states = scene.track_valid.copy(), scene.track_states.copy()
    valid[track, scene.current_step], states[track, scene.current_step] = False, 0.0
    return replace(scene, track_valid=valid, track_states=states).validate()


def test_scenes_of_different_size_are_padded_and_every_target_gets_a_row() -> None:
    small, large = tiny_scene(1, num_tracks=3, num_targets=1, num_features=2), tiny_scene(2, num_tracks=7, num_features=6)
    batch = collate([small, large])
    assert batch.scenario_ids == ("tiny0001", "tiny0002")
    assert batch.track_states.shape == (2, 7, 91, 9)
    assert batch.center_scene.tolist() == [0, 1, 1, 1]
    assert batch.center_track.tolist() == [0, 0, 1, 2]
    assert batch.center_object_id.tolist() == [100, 100, 107, 114]
    assert batch.num_centers == 4
    assert batch.origin_m.dtype == np.float64
    np.testing.assert_array_equal(batch.track_states[0, :3], small.track_states)
    assert not batch.track_valid[0, 3:].any()
    for row, scene in enumerate((small, large)):
        polylines, mask = polyline_tensor(scene)
        np.testing.assert_array_equal(batch.polylines[row, : len(mask)], polylines)
        np.testing.assert_array_equal(batch.polyline_mask[row, : len(mask)], mask)
        assert not batch.polyline_mask[row, len(mask) :].any()
        assert (batch.polyline_signal[row, len(mask) :] == -1).all()


def test_lidar_points_land_at_their_agent_and_frame() -> None:
    scene = tiny_scene(3)
    assert scene.lidar is not None
    batch = collate([tiny_scene(4), scene], num_lidar_points=None)
    assert batch.lidar_points is not None
    assert batch.lidar_mask is not None
    for agent, frame in np.ndindex(scene.lidar.count.shape):
        points, features = scene.lidar.frame(agent, frame)
        mask = batch.lidar_mask[3 + agent, frame]
        assert int(mask.sum()) == len(points)
        np.testing.assert_array_equal(batch.lidar_points[3 + agent, frame][mask], np.hstack((points, features)))


def test_only_the_first_stored_points_are_taken() -> None:
    scene = tiny_scene(3)
    assert scene.lidar is not None
    batch = collate([scene], num_lidar_points=4)
    assert batch.lidar_points is not None
    assert batch.lidar_mask is not None
    np.testing.assert_array_equal(batch.lidar_mask.sum(dim=-1), np.minimum(scene.lidar.count, 4))
    agent, frame = np.argwhere(scene.lidar.count > 4)[0]
    np.testing.assert_array_equal(batch.lidar_points[agent, frame, :, :3], scene.lidar.frame(agent, frame)[0][:4])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["with first", "without first"])
def test_scenes_with_and_without_lidar_and_map_mix(order: tuple[int, int]) -> None:
    scenes = [tiny_scene(1), tiny_scene(2, with_lidar=False, num_features=0, with_signals=False)]
    batch = collate([scenes[index] for index in order])
    assert batch.lidar_mask is not None
    rows = [bool(batch.lidar_mask[batch.center_scene == row].any()) for row in range(2)]
    assert rows == [index == 0 for index in order]
    assert [bool(batch.polyline_mask[row].any()) for row in range(2)] == rows


def test_batch_without_any_lidar_map_or_targets_keeps_its_axes() -> None:
    batch = collate([tiny_scene(1, with_lidar=False, num_features=0, num_targets=0)])
    assert batch.lidar_points is None
    assert batch.polylines.shape == (1, 1, 20, 7)
    assert not batch.polyline_mask.any()
    assert batch.num_centers == 0
    assert batch.center_track.dtype == torch.int64


def test_target_invalid_at_the_current_step_is_left_out_with_a_warning_and_the_others_keep_their_points() -> None:
    scene = tiny_scene(5)
    with pytest.warns(UserWarning, match=r"tiny0005.*\[107\]"):
        batch = collate([invalid_now(scene, 1)], num_lidar_points=None)
    assert batch.center_track.tolist() == [0, 2]
    whole = collate([scene], num_lidar_points=None)
    assert batch.lidar_points is not None
    assert whole.lidar_points is not None
    torch.testing.assert_close(batch.lidar_points, whole.lidar_points[[0, 2]])


def test_valid_targets_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collate([tiny_scene(5)])


def test_scenes_with_and_without_a_future_do_not_mix() -> None:
    assert collate([tiny_scene(1, num_steps=11)]).has_future is False
    with pytest.raises(SceneError, match=r"tiny0002.*11.*apart"):
        collate([tiny_scene(1), tiny_scene(2, num_steps=11)])


def test_other_lengths_are_refused() -> None:
    with pytest.raises(SceneError, match=r"tiny0001.*timestamps_s.*has 50 steps"):
        collate([tiny_scene(1, num_steps=50)])


def test_nothing_to_collate_and_wrong_number_of_points_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one scene"):
        collate([])
    with pytest.raises(ValueError, match="num_lidar_points"):
        collate([tiny_scene(1)], num_lidar_points=-1)
    assert collate([tiny_scene(1)], num_lidar_points=0).lidar_points is None


def test_batch_moves_and_changes_only_floating_types() -> None:
    batch = collate([tiny_scene(1)]).to("cpu", dtype=torch.float64)
    assert batch.track_states.dtype == batch.polylines.dtype == torch.float64
    assert batch.track_valid.dtype == torch.bool
    assert batch.center_track.dtype == torch.int64
    assert collate([tiny_scene(1)]).to("meta").track_states.device.type == "meta"
