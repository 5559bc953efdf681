"""The map that is written hangs together: ids that exist, links that both sides know, boundaries beside their lanes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from preprocessing.synthetic.layouts import LAYOUTS, Layout
from preprocessing.synthetic.protos import motion_record
from preprocessing.womd import schema
from tests.preprocessing.synthetic.simulated import world


def scenario(layout: Layout) -> Any:
    """A simulated scene as it is read from its record."""
    scene = world(11, layout=layout)
    ids = list(range(1, len(scene.kind) + 1))
    record = motion_record(scene, scene.present, [], num_steps=11, difficulty=[], track_ids=ids)
    return schema.Scenario.FromString(record)


def features(layout: Layout) -> dict[int, Any]:
    """The scene's map features by their ids."""
    return {feature.id: feature for feature in scenario(layout).map_features}


def points(line: Any) -> Any:
    return np.array([[point.x, point.y] for point in line.polyline])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_links_between_lanes_are_known_to_both(layout: Layout) -> None:
    lanes = {number: feature.lane for number, feature in features(layout).items() if feature.HasField("lane")}
    for number, lane in lanes.items():
        assert all(number in lanes[other].exit_lanes for other in lane.entry_lanes)
        assert all(number in lanes[other].entry_lanes for other in lane.exit_lanes)
        for other in lane.left_neighbors:
            assert number in [back.feature_id for back in lanes[other.feature_id].right_neighbors]
        for other in lane.right_neighbors:
            assert number in [back.feature_id for back in lanes[other.feature_id].left_neighbors]
        for other in lane.exit_lanes:
            assert np.hypot(*(points(lane)[-1] - points(lanes[other])[0])) < 0.6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lanes_of_the_arms_are_bounded_on_both_sides_by_lines_beside_them(layout: Layout) -> None:
    found = features(layout)
    bike_lanes = 0
    for feature in found.values():
        lane = feature.lane
        for boundary in (*lane.left_boundaries, *lane.right_boundaries):
            line = getattr(found[boundary.boundary_feature_id], found[boundary.boundary_feature_id].WhichOneof("feature_data"))
            beside = points(lane)[boundary.lane_start_index : boundary.lane_end_index + 1]
            gap = np.linalg.norm(beside[:, None] - points(line)[None], axis=-1).min(axis=1)
            assert len(beside) > 1
            assert gap.max() < 4.5
        if lane.type == 3 and not lane.interpolating and lane.left_boundaries:
            bike_lanes += 1
            curbs = {found[side.boundary_feature_id].WhichOneof("feature_data") for side in lane.right_boundaries}
            assert curbs == {"road_edge"}
    assert bike_lanes >= 4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_signs_and_lights_rule_lanes_that_exist_and_end_or_begin_there(layout: Layout) -> None:
    scene, found = scenario(layout), features(layout)
    signs = [feature.stop_sign for feature in found.values() if feature.HasField("stop_sign")]
    assert bool(signs) == (layout == "t_junction")
    assert bool(scene.dynamic_map_states[0].lane_states) == (layout == "signalised")
    for sign in signs:
        assert sign.lane
        for lane in sign.lane:
            assert np.hypot(*(points(found[lane].lane)[-1] - [sign.position.x, sign.position.y])) < 15.0
    for state in scene.dynamic_map_states:
        for light in state.lane_states:
            assert np.hypot(*(points(found[light.lane].lane)[0] - [light.stop_point.x, light.stop_point.y])) < 1.0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lines_have_a_point_every_half_metre(layout: Layout) -> None:
    for feature in features(layout).values():
        kind = feature.WhichOneof("feature_data")
        if kind in ("lane", "road_line", "road_edge"):
            step = np.hypot(*np.diff(points(getattr(feature, kind)), axis=0).T)
            assert step.max() < 0.55
            assert np.median(step) > 0.45
