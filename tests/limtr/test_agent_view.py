from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limtr.agent_batch import AgentBatch
from limtr.agent_features import HISTORY_CHANNELS
from limtr.agent_view import build_agent_batch
from limtr.batch import SceneBatch, collate
from limtr.config import ViewConfig
from limtr.lidar_view import lidar_frames
from limtr.prediction import Prediction
from limtr.scene import ObjectType, Scene
from limtr.world_view import to_world
from tests.builders import tiny_scene

VIEW = ViewConfig(num_polylines=5, use_lidar=True, lidar_features=("elongation", "range"), traffic_signals=True)
X, AX = HISTORY_CHANNELS.index("x"), HISTORY_CHANNELS.index("ax")


def tensors(agents: AgentBatch) -> dict[str, torch.Tensor]:
    values = {field.name: getattr(agents, field.name) for field in fields(agents)}
    return {name: value for name, value in values.items() if value is not None}


def channel(agents: AgentBatch, name: str) -> torch.Tensor:
    return agents.agent_history[..., HISTORY_CHANNELS.index(name)]


def turned(scene: Scene, angle: float, shift: tuple[float, float, float]) -> Scene:
    """The scene after the whole world was turned about the scene frame's zero and then shifted."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    states = scene.track_states.astype(np.float64)
    states[..., 0:2], states[..., 7:9] = states[..., 0:2] @ turn.T, states[..., 7:9] @ turn.T
    states[..., 6] += angle
    states[..., 0:3] += shift
    states[~scene.track_valid] = 0.0
    points = scene.map_points_m.astype(np.float64)
    points[:, 0:2] = points[:, 0:2] @ turn.T
    return replace(scene, track_states=states.astype(np.float32), map_points_m=(points + shift).astype(np.float32))


def with_states(scene: Scene, track: int, steps: list[int], values: dict[int, list[float]]) -> Scene:
    """The scene with one track valid at these steps only and columns set to these values there."""
    states, valid = scene.track_states.copy(), scene.track_valid.copy()
    states[track], valid[track] = 0.0, False
    valid[track, steps] = True
    for column, entries in values.items():
        states[track, steps, column] = entries
    return replace(scene, track_states=states, track_valid=valid).validate()


def test_shapes_and_types() -> None:
    agents = build_agent_batch(collate([tiny_scene(0), tiny_scene(1, num_tracks=9, num_targets=2)]), VIEW)
    assert agents.agent_history.shape == (5, 9, 11, 29)
    assert agents.polylines.shape == (5, 5, 20, VIEW.num_polyline_channels)
    assert agents.lidar_points is not None
    assert agents.lidar_points.shape[-1] == VIEW.num_lidar_channels == 8
    assert agents.agent_future is not None
    assert agents.agent_future.shape == (5, 9, 80, 4)
    assert {value.dtype for value in tensors(agents).values()} == {torch.float32, torch.bool, torch.int64}


def test_centre_agent_stands_at_zero_and_looks_along_x() -> None:
    agents = build_agent_batch(collate([tiny_scene(0), tiny_scene(1)]), VIEW)
    own = agents.agent_history[torch.arange(6), agents.center_index, 10]
    torch.testing.assert_close(own[:, 0:3], torch.zeros(6, 3))
    assert own[:, HISTORY_CHANNELS.index("sin_heading")].abs().max() == 0
    assert (own[:, HISTORY_CHANNELS.index("cos_heading")] == 1).all()
    assert (own[:, HISTORY_CHANNELS.index("is_center")] == 1).all()
    assert own[:, HISTORY_CHANNELS.index("vy")].abs().max() < 1e-5
    assert channel(agents, "is_center")[:, :, 10].sum() == 6


def test_flags_and_time_channels() -> None:
    scene = tiny_scene(0, gaps=False)
    agents = build_agent_batch(collate([scene]), VIEW)
    for name, kind in (("is_vehicle", 1), ("is_pedestrian", 2), ("is_cyclist", 3)):
        np.testing.assert_array_equal(channel(agents, name)[0, :, 4], scene.track_type == kind)
    np.testing.assert_array_equal(channel(agents, "is_sdc")[0, :, 4], np.arange(6) == scene.sdc_track)
    np.testing.assert_allclose(channel(agents, "time_s")[1, 3], np.arange(11) * 0.1, atol=1e-6)
    steps = [HISTORY_CHANNELS.index(f"is_step_{step}") for step in range(11)]
    torch.testing.assert_close(agents.agent_history[2, 1][:, steps], torch.eye(11))
    unknown = build_agent_batch(collate([replace(scene, sdc_track=-1)]), VIEW)
    assert not channel(unknown, "is_sdc").any()


def test_reference_pedestrian_channel_is_always_zero() -> None:
    scenes = collate([tiny_scene(0)])
    plain = build_agent_batch(scenes, VIEW)
    quirk = build_agent_batch(scenes, replace(VIEW, reference_pedestrian_channel=True))
    assert channel(plain, "is_pedestrian").any()
    assert not channel(quirk, "is_pedestrian").any()
    torch.testing.assert_close(channel(quirk, "is_cyclist"), channel(plain, "is_cyclist"))


def test_accelerations_need_both_steps_unless_the_reference_is_wanted() -> None:
    speed = {0: 2.0, 1: 3.0, 2: 5.0, 5: 7.0, 6: 8.0, 10: 6.0}
    scene = with_states(tiny_scene(0), 0, list(speed), {7: list(speed.values())})
    batch = collate([scene])
    plain = build_agent_batch(batch, VIEW).agent_history[0, 0, :, AX]
    quirk = build_agent_batch(batch, replace(VIEW, reference_gap_acceleration=True)).agent_history[0, 0, :, AX]
    expected = {0: 10.0, 1: 10.0, 2: 20.0, 5: 0.0, 6: 10.0, 10: 0.0}
    garbage = {**expected, 5: speed[5] / 0.1, 10: speed[10] / 0.1}
    for step in speed:
        assert float(plain[step]) == pytest.approx(expected[step], abs=1e-4)
        assert float(quirk[step]) == pytest.approx(garbage[step], abs=1e-4)


def test_first_step_before_a_gap_has_no_acceleration() -> None:
    batch = collate([with_states(tiny_scene(0), 0, [0, 10], {7: [2.0, 3.0]})])
    plain = build_agent_batch(batch, VIEW).agent_history[0, 0, :, AX]
    quirk = build_agent_batch(batch, replace(VIEW, reference_gap_acceleration=True)).agent_history[0, 0, :, AX]
    assert float(plain[0]) == 0.0
    assert float(quirk[0]) == pytest.approx(-20.0)


def test_context_agents_are_those_seen_in_the_history_in_their_order() -> None:
    scene = with_states(tiny_scene(0, gaps=False), 1, [40], {0: [5.0]})
    scene = replace(scene, tracks_to_predict=np.array([2, 0]), difficulty=np.zeros(2, np.int64), lidar=None)
    agents = build_agent_batch(collate([scene]), VIEW)
    assert agents.agent_history.shape[1] == 5
    assert agents.center_index.tolist() == [1, 0]
    assert agents.center_type.tolist() == [ObjectType.CYCLIST, ObjectType.VEHICLE]
    assert agents.agent_future_mask is not None
    assert agents.agent_future_mask.all()


def test_last_position_is_that_of_the_last_valid_history_step() -> None:
    scene = with_states(tiny_scene(0, gaps=False), 1, [2, 7, 30], {0: [1.0, 2.0, 3.0]})
    agents = build_agent_batch(collate([scene.keep_targets(np.array([0]))]), VIEW)
    torch.testing.assert_close(agents.agent_last_position[0, 1], agents.agent_history[0, 1, 7, 0:3])
    torch.testing.assert_close(agents.agent_last_position[0, 2], agents.agent_history[0, 2, 10, 0:3])


def test_futures_are_in_the_centre_frame_and_zero_where_invalid() -> None:
    scene = tiny_scene(2)
    agents = build_agent_batch(collate([scene]), VIEW)
    assert agents.agent_future is not None
    assert agents.agent_future_mask is not None
    assert agents.center_future is not None
    assert not agents.agent_future[~agents.agent_future_mask].any()
    state = scene.track_states[1]
    turn, zero = state[10, 6], state[10, 0:2]
    forward = np.array([np.cos(turn), np.sin(turn)])
    valid = scene.track_valid[1, 11:]
    along = (state[11:, 0:2] - zero) @ forward
    np.testing.assert_allclose(agents.center_future[1, :, 0][valid], along[valid], atol=1e-4)
    np.testing.assert_array_equal(agents.agent_future_mask[0].sum(), scene.track_valid[:, 11:].sum())
    assert build_agent_batch(collate([tiny_scene(2, num_steps=11)]), VIEW).center_future is None


def test_the_nearest_polylines_around_the_offset_point_are_chosen() -> None:
    scene = tiny_scene(3, num_features=8)
    batch = collate([scene])
    every = build_agent_batch(batch, replace(VIEW, num_polylines=1000))
    assert every.polylines.shape[1] == len(scene.polyline_length)
    agents = build_agent_batch(batch, VIEW)
    distance = (every.polyline_center[..., 0:2] - torch.tensor([30.0, 0.0])).norm(dim=-1)
    for row in range(3):
        nearest = distance[row].argsort()[:5].sort().values
        torch.testing.assert_close(agents.polylines[row], every.polylines[row, nearest])


def test_polyline_channels() -> None:
    scene = tiny_scene(3)
    agents = build_agent_batch(collate([scene]), replace(VIEW, num_polylines=1000))
    points, mask = agents.polylines[1], agents.polyline_mask[1]
    torch.testing.assert_close(points[:, 1:, 7:9][mask[:, 1:]], points[:, :-1, 0:2][mask[:, 1:]])
    torch.testing.assert_close(points[:, 0, 7:9], points[:, 0, 0:2])
    step = (points[:, 1:, 0:2] - points[:, :-1, 0:2])[mask[:, 1:]]
    torch.testing.assert_close(points[:, 1:, 3:5][mask[:, 1:]], step / step.norm(dim=-1, keepdim=True), atol=1e-4, rtol=0)
    mean = points[0, mask[0], 0:3].mean(dim=0)
    torch.testing.assert_close(agents.polyline_center[1, 0], mean)
    lit = points[..., 9:].sum(dim=-1) > 0
    first_lane = np.repeat(np.arange(5), -(-scene.feature_length // 20)) == 0
    np.testing.assert_array_equal(lit, mask.numpy() & first_lane[:, None])
    assert (points[..., 9 + 4][lit] == 1).all()
    assert build_agent_batch(collate([scene]), ViewConfig()).polylines.shape[-1] == 9


@pytest.mark.parametrize(("number", "frames"), [(1, [10]), (2, [0, 10]), (4, [0, 3, 6, 10]), (11, list(range(11)))])
def test_lidar_frames_are_spread_over_the_history(number: int, frames: list[int]) -> None:
    assert lidar_frames(number) == frames


def test_lidar_channels_follow_the_configuration() -> None:
    batch = collate([tiny_scene(4)], num_lidar_points=None)
    agents = build_agent_batch(batch, replace(VIEW, num_lidar_frames=4, num_lidar_points=6))
    assert agents.lidar_points is not None
    assert agents.lidar_mask is not None
    assert batch.lidar_points is not None
    assert agents.lidar_points.shape == (3, 4, 6, 8)
    stored = batch.lidar_points[:, [0, 3, 6, 10], :6]
    torch.testing.assert_close(agents.lidar_points[..., :5], stored[..., [0, 1, 2, 5, 3]])
    for row, label in enumerate((0, 1, 2)):
        kinds = agents.lidar_points[row][agents.lidar_mask[row]][:, 5:]
        torch.testing.assert_close(kinds, torch.eye(3)[label].expand(len(kinds), -1))
    assert not agents.lidar_points[~agents.lidar_mask].any()
    plain = build_agent_batch(batch, ViewConfig(use_lidar=True, lidar_features=(), lidar_class_channels=False))
    assert plain.lidar_points is not None
    assert plain.lidar_points.shape[-1] == 3
    assert build_agent_batch(batch, ViewConfig()).lidar_points is None


def test_without_lidar_the_axes_exist_and_are_masked() -> None:
    agents = build_agent_batch(collate([tiny_scene(4, with_lidar=False)]), VIEW)
    assert agents.lidar_points is not None
    assert agents.lidar_mask is not None
    assert agents.lidar_points.shape == (3, 11, 1, 8)
    assert not agents.lidar_mask.any()


def poisoned(batch: SceneBatch) -> SceneBatch:
    """The batch with NaN and infinity wherever a mask says that nothing is."""
    bad, endless = torch.tensor(float("nan")), torch.tensor(float("inf"))
    assert batch.lidar_points is not None
    assert batch.lidar_mask is not None
    return replace(
        batch,
        track_states=torch.where(batch.track_valid[..., None], batch.track_states, bad),
        polylines=torch.where(batch.polyline_mask[..., None], batch.polylines, endless),
        lidar_points=torch.where(batch.lidar_mask[..., None], batch.lidar_points, bad),
    )


@pytest.mark.parametrize("quirks", [False, True])
def test_garbage_in_padding_and_invalid_states_never_gets_through(quirks: bool) -> None:
    batch = collate([tiny_scene(0, num_tracks=4, num_features=3), tiny_scene(1, num_tracks=8), tiny_scene(2, num_features=0)])
    view = replace(VIEW, reference_gap_acceleration=quirks)
    clean, dirty = tensors(build_agent_batch(batch, view)), tensors(build_agent_batch(poisoned(batch), view))
    for name, value in clean.items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, dirty[name]), name


def test_everything_padded_is_zero() -> None:
    agents = build_agent_batch(collate([tiny_scene(0, num_tracks=4, num_features=2), tiny_scene(1)]), VIEW)
    assert not agents.agent_history[~agents.agent_history_mask].any()
    assert not agents.agent_last_position[~agents.agent_history_mask.any(dim=-1)].any()
    assert not agents.polylines[~agents.polyline_mask].any()
    assert not agents.polyline_center[~agents.polyline_mask.any(dim=-1)].any()


def test_permuting_scenes_permutes_rows() -> None:
    scenes = [tiny_scene(0, num_targets=1), tiny_scene(1, num_tracks=8), tiny_scene(2, num_targets=2)]
    forth, back = collate(scenes), collate(scenes[::-1])
    rows = torch.cat([torch.where(back.center_scene == 2 - row)[0] for row in range(3)])
    there, here = tensors(build_agent_batch(forth, VIEW)), tensors(build_agent_batch(back, VIEW))
    for name, value in there.items():
        assert torch.equal(value, here[name][rows]), name


def test_a_scene_sees_the_same_alone_and_among_others() -> None:
    """Padding to larger neighbours adds masked places only."""
    alone = build_agent_batch(collate([tiny_scene(0)]), VIEW)
    among = build_agent_batch(collate([tiny_scene(0), tiny_scene(1, num_tracks=12, num_features=9)]), VIEW)
    torch.testing.assert_close(among.agent_history[:3, :6], alone.agent_history, rtol=0, atol=0)
    assert not among.agent_history_mask[:3, 6:].any()
    torch.testing.assert_close(among.polylines[:3], alone.polylines, rtol=0, atol=0)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 50), st.floats(-3.0, 3.0), st.tuples(st.floats(-99, 99), st.floats(-99, 99), st.floats(-9, 9)))
def test_moving_the_whole_world_changes_nothing(seed: int, angle: float, shift: tuple[float, float, float]) -> None:
    scene = tiny_scene(seed, num_tracks=5)
    still = tensors(build_agent_batch(collate([scene]), VIEW))
    moved = tensors(build_agent_batch(collate([turned(scene, angle, shift)]), VIEW))
    for name in still.keys() - {"center_position", "center_heading"}:
        torch.testing.assert_close(moved[name], still[name], rtol=0, atol=5e-4, msg=name)


def test_no_targets_give_empty_rows() -> None:
    agents = build_agent_batch(collate([tiny_scene(0, num_targets=0, num_features=0)]), VIEW)
    assert agents.agent_history.shape[0] == agents.polylines.shape[0] == len(agents.center_index) == 0


def test_float64_batches_give_float64_views() -> None:
    batch = collate([tiny_scene(0)])
    double = build_agent_batch(batch.to(dtype=torch.float64), VIEW)
    assert double.agent_history.dtype == double.polylines.dtype == torch.float64
    torch.testing.assert_close(double.agent_history.float(), build_agent_batch(batch, VIEW).agent_history, rtol=1e-4, atol=1e-4)


def test_true_futures_come_back_to_their_world_positions() -> None:
    scenes = [tiny_scene(0, gaps=False), tiny_scene(1, num_targets=0), tiny_scene(2, num_targets=2, gaps=False)]
    batch = collate(scenes).to(dtype=torch.float64)
    agents = build_agent_batch(batch, VIEW)
    assert agents.center_future is not None
    truth = torch.zeros(5, 2, 80, 7, dtype=torch.float64)
    truth[..., 0:2] = agents.center_future[:, None, :, 0:2]
    scores = torch.linspace(0, 1, 10).reshape(5, 2)
    worlds = to_world(Prediction(trajectories=truth, scores=scores), agents, batch)
    assert [world.scenario_id for world in worlds] == list(batch.scenario_ids)
    assert [len(world.object_id) for world in worlds] == [3, 0, 2]
    for world, scene in zip(worlds, scenes, strict=True):
        expected = scene.track_states[scene.tracks_to_predict, 11:, 0:2] + scene.origin_m[0:2]
        for mode in range(2):
            np.testing.assert_allclose(world.xy_m[:, mode], expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(world.object_id, scene.track_id[scene.tracks_to_predict])
        assert world.xy_m.dtype == np.float64
    np.testing.assert_allclose(worlds[2].scores, scores[3:])


def test_predictions_of_other_agents_are_refused() -> None:
    batch = collate([tiny_scene(0)])
    agents = build_agent_batch(batch, VIEW)
    wrong = Prediction(trajectories=torch.zeros(2, 1, 80, 7), scores=torch.ones(2, 1))
    with pytest.raises(ValueError, match="same centre agents"):
        to_world(wrong, agents, batch)
    right = Prediction(trajectories=torch.zeros(3, 1, 80, 7), scores=torch.ones(3, 1))
    with pytest.raises(ValueError, match="build_agent_batch"):
        to_world(right, replace(agents, center_position=None), batch)
