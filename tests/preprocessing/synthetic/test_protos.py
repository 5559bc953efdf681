"""The motion record holds the world: tracks, every kind of map feature, signals, targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from preprocessing.synthetic.protos import motion_record
from preprocessing.synthetic.world import World
from preprocessing.womd import schema
from tests.preprocessing.synthetic.worlds import small_world


def written(num_steps: int = 91) -> tuple[World, Any]:
    world = small_world()
    valid = np.ones(world.present.shape, dtype=bool)
    valid[1] = False
    valid[2, 20:] = False
    record = motion_record(world, valid, [4, 2], num_steps=num_steps, difficulty=[2, 1], track_ids=[10, 11, 12, 13, 14, 15])
    return world, schema.Scenario.FromString(record)


def test_tracks_without_a_state_are_left_out_and_targets_are_indices_of_the_rest() -> None:
    world, scenario = written()
    assert [track.id for track in scenario.tracks] == [12, 13, 14, 15, 10]
    assert scenario.sdc_track_index == 4
    assert [(required.track_index, required.difficulty) for required in scenario.tracks_to_predict] == [(2, 2), (0, 1)]
    assert [track.object_type for track in scenario.tracks] == [1, 1, 2, 3, 1]
    assert [state.valid for state in scenario.tracks[0].states] == [True] * 20 + [False] * 71
    state = scenario.tracks[2].states[7]
    expected = world.position_m[4, 7] + world.origin_m
    assert [state.center_x, state.center_y, state.center_z] == pytest.approx(expected.tolist(), abs=1e-9)
    assert [state.length, state.width, state.height] == pytest.approx(world.size_m[4].tolist())
    assert [state.velocity_x, state.velocity_y] == pytest.approx(world.velocity_mps[4, 7].tolist(), rel=1e-6)


def test_every_kind_of_map_feature_is_written() -> None:
    world, scenario = written()
    features = {feature.id: feature for feature in scenario.map_features}
    kinds = {number: feature.WhichOneof("feature_data") for number, feature in features.items()}
    assert kinds == {feature.id: feature.kind for feature in world.features}
    lane = features[1].lane
    assert list(lane.exit_lanes) == [2]
    assert lane.speed_limit_mph == 25.0
    assert [(near.feature_id, near.self_end_index, near.neighbor_end_index) for near in lane.left_neighbors] == [(2, 79, 79)]
    assert [(edge.boundary_feature_id, edge.boundary_type) for edge in lane.right_boundaries] == [(3, 2)]
    assert list(features[5].stop_sign.lane) == [1, 2]
    assert features[5].stop_sign.position.x == pytest.approx(20.0 + world.origin_m[0])
    for number, field in ((6, "crosswalk"), (7, "speed_bump"), (8, "driveway")):
        assert len(getattr(features[number], field).polygon) == 4
    first = features[4].road_edge.polyline[0]
    assert [first.x, first.y, first.z] == pytest.approx((world.origin_m + np.array([0, 5.2, 0])).tolist())


def test_signals_change_with_the_steps() -> None:
    world, scenario = written()
    assert len(scenario.dynamic_map_states) == 91
    states = [step.lane_states[0].state for step in scenario.dynamic_map_states]
    assert states == world.signal_state[0].tolist()
    assert scenario.dynamic_map_states[0].lane_states[0].lane == 1
    assert scenario.dynamic_map_states[0].lane_states[0].stop_point.x == pytest.approx(18.0 + world.origin_m[0])


def test_test_split_ends_at_the_current_step() -> None:
    _, scenario = written(num_steps=11)
    assert len(scenario.timestamps_seconds) == len(scenario.dynamic_map_states) == 11
    assert all(len(track.states) == 11 for track in scenario.tracks)
