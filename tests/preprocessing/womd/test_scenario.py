"""Scenario records become scenes: frames, validity, map types, lights, and clear words about what is wrong."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limtr.polylines import polyline_tensor
from preprocessing.polylines import cut_polylines
from preprocessing.womd import schema
from preprocessing.womd.scenario import ScenarioError, parse_scenario, scenario_to_scene
from preprocessing.womd.tfrecord import iter_records

FAR_M = (-7785.123456789, 6398.987654321, 12.25)
GOLDEN_CROPS = Path(__file__).parents[2] / "golden" / "lidar" / "crops_golden.tfrecord"


def add_track(scenario: Any, *, id: int, kind: int, start_m: tuple[float, float], num_steps: int) -> None:
    track = scenario.tracks.add(id=id, object_type=kind)
    for step in range(num_steps):
        track.states.add(
            center_x=FAR_M[0] + start_m[0] + 0.5 * step,
            center_y=FAR_M[1] + start_m[1],
            center_z=FAR_M[2],
            length=4.5,
            width=2.0,
            height=1.5,
            heading=0.25,
            velocity_x=5.0,
            velocity_y=-1.0,
            valid=True,
        )


def small_scenario(num_steps: int = 91) -> Any:
    """Three tracks (the last is the recording vehicle), one feature of every kind, two lights."""
    scenario = schema.Scenario(scenario_id="small", current_time_index=10, sdc_track_index=2)
    scenario.timestamps_seconds.extend(0.1 * step for step in range(num_steps))
    for row, kind in enumerate((2, 3, 1)):
        add_track(scenario, id=70 + row, kind=kind, start_m=(10.0 * row, 3.0 * row), num_steps=num_steps)
    scenario.tracks_to_predict.add(track_index=1, difficulty=2)
    scenario.tracks_to_predict.add(track_index=0, difficulty=1)
    scenario.objects_of_interest.extend([70, 71])

    def points(container: Any, number: int, y: float) -> None:
        for step in range(number):
            container.add(x=FAR_M[0] + 0.5 * step, y=FAR_M[1] + y, z=FAR_M[2])

    points(scenario.map_features.add(id=1, lane=schema.LaneCenter(type=2, speed_limit_mph=25.0)).lane.polyline, 25, 0.0)
    points(scenario.map_features.add(id=2, road_line=schema.RoadLine(type=8)).road_line.polyline, 3, 10.0)
    points(scenario.map_features.add(id=3, road_edge=schema.RoadEdge(type=2)).road_edge.polyline, 2, 20.0)
    sign = scenario.map_features.add(id=4).stop_sign
    sign.lane.append(1)
    sign.position.x, sign.position.y, sign.position.z = FAR_M
    points(scenario.map_features.add(id=5).crosswalk.polygon, 4, 30.0)
    points(scenario.map_features.add(id=6).speed_bump.polygon, 4, 40.0)
    points(scenario.map_features.add(id=7).driveway.polygon, 4, 50.0)
    for step in range(num_steps):
        light = scenario.dynamic_map_states.add().lane_states.add(lane=1, state=4 if step < 20 else 6)
        light.stop_point.x, light.stop_point.y, light.stop_point.z = FAR_M
    return scenario


def test_frame_is_centred_on_the_recording_vehicle_now_in_float64() -> None:
    scenario = small_scenario()
    # A tenth of what float32 resolves at these coordinates.
    scenario.tracks[0].states[3].center_x += 5e-5
    scenario.map_features[0].lane.polyline[4].y += 5e-5
    scene = scenario_to_scene(scenario)
    expected = (FAR_M[0] + 20.0 + 5.0, FAR_M[1] + 6.0, FAR_M[2])
    np.testing.assert_array_equal(scene.origin_m, expected)
    np.testing.assert_array_equal(scene.track_states[2, 10, :3], [0, 0, 0])
    np.testing.assert_allclose(scene.track_states[0, 0, :3], [-25.0, -6.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(scene.track_states[0, 3, :3], [-23.49995, -6.0, 0.0], atol=4e-6)
    np.testing.assert_allclose(scene.map_points_m[1], [-24.5, -6.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(scene.map_points_m[4], [-23.0, -5.99995, 0.0], atol=4e-6)
    np.testing.assert_allclose(scene.signal_stop_m[0], [-25.0, -6.0, 0.0], atol=1e-6)


def test_fields_of_the_record() -> None:
    scene = scenario_to_scene(small_scenario())
    assert scene.scenario_id == "small"
    assert (scene.current_step, scene.num_steps, scene.sdc_track, scene.lidar) == (10, 91, 2, None)
    assert scene.track_id.tolist() == [70, 71, 72]
    assert scene.track_type.tolist() == [2, 3, 1]
    assert scene.track_valid.all()
    np.testing.assert_array_equal(scene.track_states[1, 4, 3:], np.array([4.5, 2.0, 1.5, 0.25, 5.0, -1.0], np.float32))
    assert (scene.tracks_to_predict.tolist(), scene.difficulty.tolist()) == ([1, 0], [2, 1])
    assert scene.objects_of_interest.tolist() == [70, 71]


def test_map_features_have_mtrs_types_and_driveways_their_own() -> None:
    scene = scenario_to_scene(small_scenario())
    assert scene.feature_type.tolist() == [2, 13, 16, 17, 18, 19, 20]
    assert scene.feature_length.tolist() == [25, 3, 2, 1, 4, 4, 4]
    assert scene.feature_id.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert scene.polyline_length.tolist() == [20, 5, 3, 2, 1, 4, 4, 4]


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        *[(schema.MapFeature(lane=schema.LaneCenter(type=kind)), mtr) for kind, mtr in enumerate((-1, 1, 2, 3))],
        *[(schema.MapFeature(road_line=schema.RoadLine(type=kind)), mtr) for kind, mtr in enumerate((-1, *range(6, 14)))],
        *[(schema.MapFeature(road_edge=schema.RoadEdge(type=kind)), mtr) for kind, mtr in enumerate((-1, 15, 16))],
        (schema.MapFeature(lane=schema.LaneCenter()), -1),
    ],
)
def test_type_numbers(feature: Any, expected: int) -> None:
    getattr(feature, feature.WhichOneof("feature_data")).polyline.add(x=1.0, y=2.0, z=3.0)
    scenario = small_scenario()
    del scenario.map_features[:]
    scenario.map_features.append(feature)
    assert scenario_to_scene(scenario).feature_type.tolist() == [expected]


def test_features_without_points_are_left_out() -> None:
    scenario = small_scenario()
    scenario.map_features.insert(0, schema.MapFeature(id=90))
    scenario.map_features.insert(1, schema.MapFeature(id=91, lane=schema.LaneCenter(type=1)))
    scenario.map_features.insert(2, schema.MapFeature(id=92, stop_sign=schema.StopSign(lane=[1])))
    scene = scenario_to_scene(scenario)
    np.testing.assert_array_equal(scene.map_points_m, scenario_to_scene(small_scenario()).map_points_m)
    assert scene.feature_id.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_traffic_lights_are_kept_per_step() -> None:
    scene = scenario_to_scene(small_scenario())
    assert scene.signal_step.tolist() == list(range(91))
    assert set(scene.signal_lane.tolist()) == {1}
    assert scene.signal_state.tolist() == [4] * 20 + [6] * 71


def test_invalid_states_are_zero_whatever_they_hold() -> None:
    scenario = small_scenario()
    scenario.tracks[0].states[3].CopyFrom(schema.ObjectState(center_z=-1.0, valid=False))
    scenario.tracks[0].states[4].center_x = math.nan
    scenario.tracks[0].states[4].velocity_y = math.inf
    scenario.tracks[0].states[4].valid = False
    scenario.tracks[0].states[5].ClearField("valid")
    scene = scenario_to_scene(scenario)
    assert np.flatnonzero(~scene.track_valid[0]).tolist() == [3, 4, 5]
    assert not scene.track_states[0, 3:6].any()


def test_a_record_of_the_test_split_ends_now() -> None:
    scene = scenario_to_scene(small_scenario(num_steps=11))
    assert (scene.num_steps, scene.has_future) == (11, False)
    longer_clock = small_scenario()
    for track in longer_clock.tracks:
        del track.states[11:]
    scene = scenario_to_scene(longer_clock)
    assert (scene.num_steps, scene.has_future, int(scene.signal_step.max())) == (11, False, 10)


@pytest.mark.parametrize("how", ["invalid", "unnamed"])
def test_without_a_recording_vehicle_the_frame_is_centred_on_the_valid_tracks(how: str) -> None:
    scenario = small_scenario()
    if how == "invalid":
        scenario.tracks[2].states[10].valid = False
    else:
        scenario.ClearField("sdc_track_index")
    scene = scenario_to_scene(scenario)
    assert scene.sdc_track == (2 if how == "invalid" else -1)
    now = scene.track_states[scene.track_valid[:, 10], 10, :3]
    np.testing.assert_allclose(now.mean(axis=0), [0, 0, 0], atol=1e-5)


def test_without_a_map_and_without_targets_the_scene_is_still_a_scene() -> None:
    scenario = small_scenario()
    del scenario.map_features[:]
    del scenario.tracks_to_predict[:]
    del scenario.dynamic_map_states[:]
    scene = scenario_to_scene(scenario)
    assert scene.map_points_m.shape == (0, 3)
    assert (len(scene.feature_type), len(scene.polyline_length), len(scene.tracks_to_predict), len(scene.signal_step)) == (
        0,
    ) * 4


def test_without_any_track_the_frame_is_centred_on_the_map() -> None:
    scenario = small_scenario()
    del scenario.tracks[:]
    del scenario.tracks_to_predict[:]
    scenario.ClearField("sdc_track_index")
    scene = scenario_to_scene(scenario)
    assert scene.track_states.shape == (0, 91, 9)
    np.testing.assert_allclose(scene.map_points_m.mean(axis=0), [0, 0, 0], atol=1e-4)


def test_a_target_that_is_invalid_now_stays_in_the_scene_but_is_not_predictable() -> None:
    scenario = small_scenario()
    scenario.tracks[1].states[10].valid = False
    scene = scenario_to_scene(scenario)
    assert scene.tracks_to_predict.tolist() == [1, 0]
    assert scene.predictable().tolist() == [1]


def _nan_position(scenario: Any) -> None:
    scenario.tracks[1].states[7].center_y = math.nan


def _infinite_speed(scenario: Any) -> None:
    scenario.tracks[0].states[90].velocity_x = -math.inf


def _nan_map(scenario: Any) -> None:
    scenario.map_features[2].road_edge.polyline[1].z = math.nan


def _nan_stop_point(scenario: Any) -> None:
    scenario.dynamic_map_states[3].lane_states[0].stop_point.x = math.nan


def _short_track(scenario: Any) -> None:
    del scenario.tracks[1].states[40:]


def _few_timestamps(scenario: Any) -> None:
    del scenario.timestamps_seconds[5:]


def _now_beyond_the_record(scenario: Any) -> None:
    scenario.current_time_index = 91


def _no_id(scenario: Any) -> None:
    scenario.ClearField("scenario_id")


def _sdc_beyond(scenario: Any) -> None:
    scenario.sdc_track_index = 3


def _target_beyond(scenario: Any) -> None:
    scenario.tracks_to_predict[1].track_index = -1


def _target_twice(scenario: Any) -> None:
    scenario.tracks_to_predict[1].track_index = 1


def _beyond_float32(scenario: Any) -> None:
    scenario.tracks[1].states[7].center_x = 1e300


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_nan_position, r"tracks\[1\] \(id 71\) states\[7\]\.center_y must be finite in a valid state, is nan"),
        (_infinite_speed, r"tracks\[0\] \(id 70\) states\[90\]\.velocity_x .* is -inf"),
        (_nan_map, r"map feature of id 3 must be made of finite points"),
        (_nan_stop_point, r"field signal_stop_m must have finite"),
        (_short_track, r"tracks\[1\] \(id 71\) must be 91 states long \(one per timestamp\), has 40"),
        (_few_timestamps, r"timestamps_seconds must be at least 11 \(the history\), has 5"),
        (_now_beyond_the_record, r"current_time_index must be 10 .*, is 91"),
        (_no_id, r"scenario_id must be a text, is ''; give the scenario files"),
        (_sdc_beyond, r"sdc_track_index must be the index of one of its 3 tracks, is 3"),
        (_target_beyond, r"tracks_to_predict\[1\]\.track_index must be the index of one of its 3 tracks, is -1"),
        (_target_twice, r"field tracks_to_predict must have no row twice"),
        (_beyond_float32, r"field track_states must have finite numbers"),
    ],
)
def test_damage_is_told_with_source_scenario_and_field(damage: Callable[[Any], None], words: str) -> None:
    scenario = small_scenario()
    damage(scenario)
    with pytest.raises(ScenarioError, match=words) as caught:
        scenario_to_scene(scenario, source="shard-7 record 12")
    assert str(caught.value).startswith("shard-7 record 12: scenario ")


@pytest.mark.parametrize("data", [b"", b"garbage!garbage!", b"\x0a\x0f" + bytes(15)], ids=["empty", "garbage", "tf-example"])
def test_bytes_that_are_no_scenario_are_refused(data: bytes) -> None:
    with pytest.raises(ScenarioError, match=r"shard-7 record 12: .* must be a serialized Scenario"):
        parse_scenario(data, source="shard-7 record 12")


def test_a_lidar_file_is_parsed_but_is_no_scene() -> None:
    message = parse_scenario(schema.Scenario(scenario_id="a", compressed_frame_laser_data=[{}]).SerializeToString(), source="f")
    with pytest.raises(ScenarioError, match="current_time_index"):
        scenario_to_scene(message, source="f")


def test_a_name_that_is_not_utf8_is_refused() -> None:
    data = small_scenario().SerializeToString().replace(b"small", b"sm\xffll")
    with pytest.raises(ScenarioError, match="scenario_id must be a text"):
        scenario_to_scene(parse_scenario(data, source="f"), source="f")


def test_official_record_is_read_as_its_own_fields_say() -> None:
    (_, data), *_ = iter_records(GOLDEN_CROPS)
    message = parse_scenario(data, source="golden")
    scene = scenario_to_scene(message, source="golden")
    for row, track in enumerate(message.tracks):
        assert scene.track_valid[row].tolist() == [state.valid for state in track.states]
        position = np.array([(state.center_x, state.center_y, state.center_z) for state in track.states])
        ours = (scene.track_states[row, :, :3] + scene.origin_m)[scene.track_valid[row]]
        np.testing.assert_allclose(ours, position[scene.track_valid[row]], atol=1e-5)


@pytest.fixture(scope="module")
def sample() -> tuple[Any, dict[str, np.ndarray]]:
    """The real scenario as a scene, and what MTR's public code makes of it."""
    folder = os.environ.get("LIMTR_WOMD_SAMPLE")
    if not folder:
        pytest.skip("LIMTR_WOMD_SAMPLE names no folder with motion_data_one_scenario.tfrecord and features_*.npz")
    (_, data), *_ = iter_records(Path(folder) / "motion_data_one_scenario.tfrecord")
    with np.load(next(Path(folder).glob("features_*.npz")), allow_pickle=False) as golden:
        return scenario_to_scene(parse_scenario(data, source="sample")), {name: golden[name] for name in golden.files}


def test_real_tracks_equal_mtrs(sample: tuple[Any, dict[str, np.ndarray]]) -> None:
    scene, golden = sample
    world = golden["world_trajs"]
    np.testing.assert_array_equal(scene.track_valid, world[..., 9] > 0)
    ours = scene.track_states.astype(np.float64)
    ours[..., :3] += scene.origin_m
    ours, theirs = ours[scene.track_valid], world[scene.track_valid][:, :9]
    np.testing.assert_allclose(ours[:, :3], theirs[:, :3], atol=5e-4, rtol=0)  # MTR rounds world positions to float32
    np.testing.assert_array_equal(ours[:, 3:], theirs[:, 3:])


def test_real_map_equals_mtrs(sample: tuple[Any, dict[str, np.ndarray]]) -> None:
    scene, golden = sample
    polylines, mask = polyline_tensor(scene)
    theirs = golden["all_polylines"]
    np.testing.assert_allclose(polylines[mask][:, :3] + scene.origin_m, theirs[:, :3], atol=5e-4, rtol=0)
    np.testing.assert_allclose(polylines[mask][:, 3:6], theirs[:, 3:6], atol=1e-4, rtol=0)
    np.testing.assert_array_equal(polylines[mask][:, 6], theirs[:, 6])
    np.testing.assert_array_equal(scene.polyline_length, cut_polylines(theirs[:, :2].astype(np.float64)))


def test_real_polylines_are_cut_where_mtr_cuts(sample: tuple[Any, dict[str, np.ndarray]]) -> None:
    """Each of MTR's nearest polylines is one of ours: same number of points, same centre, in the frame of the target."""
    scene, golden = sample
    polylines, mask = polyline_tensor(scene)
    number = mask.sum(axis=1)
    center = (polylines[..., :3] * mask[..., None]).sum(axis=1) / number[:, None]
    for target, theirs_mask, theirs_center in zip(
        golden["center_objects_world"], golden["map_polylines_mask"], golden["map_polylines_center"], strict=True
    ):
        offset = center - (target[:3] - scene.origin_m)
        cos, sin = np.cos(target[6]), np.sin(target[6])
        x, y = cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0]
        ours = np.stack([x, y, offset[:, 2], 100.0 * number], axis=-1)
        theirs = np.concatenate([theirs_center, 100.0 * theirs_mask.sum(axis=1)[:, None]], axis=-1)
        gap = np.abs(ours[None] - theirs[:, None]).max(axis=-1)
        assert gap.min(axis=1).max() < 2e-3
