"""Which states a track has: range, occlusion, hysteresis, gaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from preprocessing.synthetic.visibility import VisibilityConfig, track_validity, visible_share
from preprocessing.synthetic.world import World
from tests.preprocessing.synthetic.worlds import small_world

SEED = np.random.SeedSequence(0)


def standing(num_steps: int = 20) -> World:
    """The small world without motion, ego at zero looking along x, and nothing to hide behind."""
    world = small_world(num_steps)
    still = np.repeat(world.position_m[:, :1], num_steps, axis=1)
    return replace(
        world, position_m=still, heading_rad=0 * world.heading_rad, velocity_mps=0 * world.velocity_mps,
        buildings=np.zeros((0, 6)), poles=np.zeros((0, 4)),
    )  # fmt: skip


def moved(world: World, actor: int, x: float, y: float, steps: slice = slice(None)) -> World:
    position = world.position_m.copy()
    position[actor, steps, :2] = x, y
    return replace(world, position_m=position)


def test_near_actors_in_the_open_are_seen_all_the_time() -> None:
    world = standing()
    valid = track_validity(world, VisibilityConfig(), SEED)
    assert valid[[0, 1, 3, 4, 5]].all()
    assert (visible_share(world, reach_m=70.0)[1] == 1.0).all()


def test_building_hides_whole_actor_and_pole_does_not() -> None:
    world = moved(standing(), 4, 30.0, 30.0)
    assert track_validity(world, VisibilityConfig(), SEED)[4].all()
    behind = replace(world, buildings=np.array([[20.0, 20.0, 8.0, 8.0, 6.0, 0.4]]))
    assert not track_validity(behind, VisibilityConfig(), SEED)[4].any()
    post = replace(world, poles=np.array([[20.0, 20.0, 0.05, 5.0]]))
    assert track_validity(post, VisibilityConfig(), SEED)[4].all()


def test_bus_hides_a_pedestrian_but_not_the_other_way_round() -> None:
    world = moved(moved(standing(), 3, 12.0, 12.0), 4, 20.0, 20.0)
    valid = track_validity(world, VisibilityConfig(), SEED)
    assert not valid[4].any()
    assert valid[3].all()


def test_far_actors_have_no_track_and_the_ego_always_has() -> None:
    world = moved(standing(), 5, 100.0, 0.0)
    valid = track_validity(world, VisibilityConfig(), SEED)
    assert not valid[5].any()
    assert valid[0].all()


def test_reach_is_measured_from_the_ego_wherever_it_is() -> None:
    world = moved(standing(), 5, 100.0, 0.0)
    away = replace(world, position_m=world.position_m + np.array([400.0, -300.0, 0.0]))
    here, there = (track_validity(scene, VisibilityConfig(), SEED) for scene in (world, away))
    np.testing.assert_array_equal(here, there)
    assert there[1:5].any()


def test_people_are_lost_before_vehicles_are() -> None:
    world = moved(moved(standing(), 5, 56.0, -18.0), 1, 56.0, 18.0)
    valid = track_validity(world, VisibilityConfig(), SEED)
    assert not valid[5].any()
    assert valid[1].all()


def test_short_gap_is_bridged_long_gap_and_late_appearance_are_not() -> None:
    config = VisibilityConfig(bridged_steps=3, shortest_steps=3)
    world = standing(30)
    valid = track_validity(moved(world, 4, 200.0, 0.0, slice(10, 13)), config, SEED)
    assert valid[4].all()
    valid = track_validity(moved(world, 4, 200.0, 0.0, slice(10, 14)), config, SEED)
    assert not valid[4, 10:14].any()
    assert valid[4, :10].all()
    assert valid[4, 14:].all()
    valid = track_validity(moved(world, 4, 200.0, 0.0, slice(0, 12)), config, SEED)
    assert not valid[4, :12].any()
    assert valid[4, 12:].all()


def test_absent_actors_are_never_valid_even_within_a_bridged_gap() -> None:
    world = standing(20)
    present = world.present.copy()
    present[4, 8:10] = False
    valid = track_validity(replace(world, present=present), VisibilityConfig(), SEED)
    assert not valid[4, 8:10].any()
    assert valid[4, :8].all()


def test_same_seed_gives_same_tracks() -> None:
    world = small_world(40)
    assert (track_validity(world, VisibilityConfig(), SEED) == track_validity(world, VisibilityConfig(), SEED)).all()


def test_contradicting_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="keep_share"):
        VisibilityConfig(appear_share=0.1, keep_share=0.5)
