from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from preprocessing.synthetic.layouts import LAYOUTS
from preprocessing.synthetic.overlap import overlaps
from preprocessing.synthetic.simulate import SimulationConfig, simulate
from preprocessing.synthetic.visibility import track_validity
from preprocessing.synthetic.world import BodyKind, World
from preprocessing.synthetic.writer import SynthesizeConfig
from tests.preprocessing.synthetic.simulated import world, worlds

STEP_S = 0.1
CURRENT = 10


def _equal(one: World, other: World, skip: tuple[str, ...] = ()) -> None:
    for field in dataclasses.fields(World):
        if field.name not in (*skip, "features"):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def test_same_seed_and_index_give_the_same_world():
    again = simulate(0, 3, SimulationConfig())
    _equal(world(3), again)
    for one, other in zip(world(3).features, again.features, strict=True):
        np.testing.assert_array_equal(one.points_m, other.points_m)


@pytest.mark.parametrize(("seed", "index"), [(0, 4), (1, 3)], ids=["index", "seed"])
def test_another_seed_or_index_gives_another_world(seed: int, index: int):
    other = world(index, seed)
    assert other.scenario_id != world(3).scenario_id
    assert not np.array_equal(other.origin_m, world(3).origin_m)


@pytest.mark.parametrize("lead_s", [0.0, 1.0])
def test_bodies_give_intentions_away_but_never_change_them(lead_s: float):
    cues = ("head_yaw_rad", "torso_yaw_rad", "front_wheel_yaw_rad")
    for index in range(3):
        _equal(world(index), world(index, cue_lead_s=lead_s), skip=cues)
    assert not np.array_equal(world(0).head_yaw_rad, world(0, cue_lead_s=lead_s).head_yaw_rad)


def test_num_steps_changes_nothing_before_the_end():
    short = simulate(0, 2, SimulationConfig(num_steps=60))
    assert short.position_m.shape[1] == 60
    first = world(2).position_m[0, :60]
    assert np.abs(short.position_m[:, :, :2] - first[:, :2]).max(axis=(1, 2)).min() < 1e-9


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_all_kinds_of_actors(layout: str):
    scene = world(11, layout=layout)  # type: ignore[arg-type]
    assert scene.layout == layout
    assert {1, 2, 3} <= set(scene.object_type.tolist())
    assert scene.present[scene.ego].all()
    assert scene.object_type[scene.ego] == 1


def test_all_layouts_and_bodies_occur():
    assert {scene.layout for scene in worlds()} == set(LAYOUTS)
    assert {int(kind) for scene in worlds() for kind in scene.kind} == {int(kind) for kind in BodyKind}


def test_velocity_is_the_derivative_of_position():
    for scene in worlds():
        moved = np.diff(scene.position_m[..., :2], axis=1) / STEP_S
        mean = 0.5 * (scene.velocity_mps[:, 1:] + scene.velocity_mps[:, :-1])
        assert np.linalg.norm(moved - mean, axis=-1).max() < 0.5


def test_bodies_point_where_they_go():
    for scene in worlds():
        speed = np.linalg.norm(scene.velocity_mps, axis=-1)
        heading = np.stack([np.cos(scene.heading_rad), np.sin(scene.heading_rad)], axis=-1)
        np.testing.assert_allclose((heading * scene.velocity_mps).sum(axis=-1), speed, atol=1e-9)
        assert np.abs(scene.heading_rad).max() <= np.pi


def test_motion_is_smooth():
    for scene in worlds():
        speed = np.linalg.norm(scene.velocity_mps, axis=-1)
        assert np.abs(np.diff(speed, axis=1)).max() / STEP_S < 8.0
        turned = np.angle(np.exp(1j * np.diff(scene.heading_rad, axis=1))) / STEP_S
        assert np.abs(turned).max() < 2.2
        assert np.linalg.norm(np.diff(scene.position_m, axis=1), axis=-1).max() < 2.0


def test_no_bodies_overlap():
    frames = overlapping = 0
    for scene in worlds():
        frames += int(scene.present.sum())
        found = overlaps(scene.position_m[..., :2], scene.heading_rad, scene.size_m[:, :2], scene.present)
        overlapping += len(found[0])
    assert frames > 10_000
    assert overlapping == 0


def test_vehicles_stop_at_red_and_do_not_stand_everywhere():
    crossed = waited = 0
    for index in range(4):
        scene = world(index, layout="signalised")
        vehicle = scene.object_type == 1
        for state, stop in zip(scene.signal_state, scene.signal_stop_m, strict=True):
            near = np.linalg.norm(scene.position_m[vehicle, :, :2] - stop[:2], axis=-1) < 7.0
            speed = np.linalg.norm(scene.velocity_mps[vehicle], axis=-1)
            waited += int((near & (speed < 0.3) & (state == 4)).sum())
        moving = np.linalg.norm(scene.velocity_mps[vehicle], axis=-1).max(axis=1) > 3.0
        crossed += int(moving.sum())
    assert waited > 100
    assert crossed > 10


def test_signals_change_and_only_in_the_right_order():
    allowed = {(6, 5), (5, 4), (4, 6)}
    changes = set()
    for index in range(4):
        for row in world(index, layout="signalised").signal_state:
            changes |= {(a, b) for a, b in pairwise(row.tolist()) if a != b}
    assert changes
    assert changes <= allowed


def test_large_scenes_are_as_heavy_as_real_ones():
    # The layout with the fewest arms, in a scene where few vehicles happen to pass.
    scene = simulate(0, 4, SimulationConfig(size="womd", layout="straight"))
    limits = SynthesizeConfig(out=Path("unused"), size="womd").scene_config.visibility
    assert track_validity(scene, limits, np.random.SeedSequence(0)).any(axis=1).sum() >= 100
    assert sum(len(feature.points_m) for feature in scene.features) >= 15_000


def test_origin_lies_far_off():
    assert np.median([np.abs(scene.origin_m[:2]).max() for scene in worlds()]) > 1_000.0


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"size": "huge"}, "size"),
        ({"cue_lead_s": -1.0}, "cue_lead_s"),
        ({"num_steps": 5}, "num_steps"),
        ({"layout": "maze"}, "layout"),
    ],
    ids=["size", "lead", "steps", "layout"],
)
def test_wrong_options_are_named(options: dict[str, object], name: str):
    with pytest.raises(ValueError, match=name):
        SimulationConfig(**options)  # type: ignore[arg-type]
