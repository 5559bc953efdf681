from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from preprocessing.synthetic.targets import TRAJECTORY_CLASSES, class_counts, select_targets, trajectory_class
from preprocessing.synthetic.world import World
from tests.preprocessing.synthetic.simulated import world, worlds


def _moved(dx: float, dy: float, turn: float, speed: float, base: float) -> World:
    """Actor 0 goes from the origin by (dx, dy) in its own frame, which lies turned by `base`."""
    scene = world(0)
    position, heading = scene.position_m.copy(), scene.heading_rad.copy()
    velocity = np.zeros_like(scene.velocity_mps)
    share = np.clip((np.arange(91) - 10) / 80, 0, 1)
    x, y = dx * share, dy * share
    position[0, :, 0] = x * np.cos(base) - y * np.sin(base)
    position[0, :, 1] = x * np.sin(base) + y * np.cos(base)
    heading[0] = np.mod(base + turn * share + np.pi, 2 * np.pi) - np.pi
    velocity[0, 10] = speed, 0.0
    return replace(scene, position_m=position, heading_rad=heading, velocity_mps=velocity)


CASES = [
    (2.9, 0.0, 0.0, 1.9, "stationary"),
    (3.1, 0.0, 0.0, 1.9, "straight"),
    (2.9, 0.0, 0.0, 2.1, "straight"),
    (30.0, 2.4, 0.1, 9.0, "straight"),
    (30.0, 2.6, 0.1, 9.0, "straight_left"),
    (30.0, -2.6, -0.1, 9.0, "straight_right"),
    (10.0, 9.0, 1.4, 9.0, "left_turn"),
    (10.0, -9.0, -1.4, 9.0, "right_turn"),
    (-1.0, 9.0, 3.0, 9.0, "left_u_turn"),
    (-1.0, -9.0, -3.0, 9.0, "right_u_turn"),
]


@pytest.mark.parametrize("base", [0.0, 3.0])
@pytest.mark.parametrize(
    ("dx", "dy", "turn", "speed", "expected"), CASES, ids=[f"{case[4]}-{i}" for i, case in enumerate(CASES)]
)
def test_trajectory_class_follows_the_thresholds(dx: float, dy: float, turn: float, speed: float, expected: str, base: float):
    valid = np.ones_like(world(0).present)
    assert trajectory_class(_moved(dx, dy, turn, speed, base), valid, 0) == expected


def test_the_last_valid_step_decides():
    valid = np.zeros_like(world(0).present)
    valid[0, [10, 20]] = True
    assert trajectory_class(_moved(20.0, 20.0, 1.5, 9.0, 0.0), valid, 0) == "straight_left"
    valid[0, 90] = True
    assert trajectory_class(_moved(20.0, 20.0, 1.5, 9.0, 0.0), valid, 0) == "left_turn"
    valid[0, 10] = False
    assert trajectory_class(_moved(20.0, 20.0, 1.5, 1.0, 0.0), valid, 0) is None


def test_targets_are_few_mixed_visible_and_not_the_recorder():
    for scene in worlds():
        rows = select_targets(scene, scene.present, 5)
        assert 1 <= len(rows) <= 8
        assert len(set(rows)) == len(rows)
        assert scene.ego not in rows
        assert scene.present[rows, 10].all()
        assert scene.present[rows, 11:].any(axis=1).all()
        assert rows == select_targets(scene, scene.present, 5)


def test_invalid_tracks_are_never_chosen():
    scene = world(1)
    valid = scene.present.copy()
    valid[:, 10] = False
    assert select_targets(scene, valid, 0) == []
    keep = int(np.flatnonzero((scene.object_type == 2) & scene.present[:, 10])[0])
    valid[keep, 10] = True
    assert select_targets(scene, valid, 0) == [keep]


def test_test_split_worlds_have_targets_too():
    scene = world(1)
    assert select_targets(scene, scene.present[:, :11], 0)


def test_of_two_who_do_the_same_the_nearer_one_is_chosen_more_often():
    scene = world(1)
    one, other = np.flatnonzero((scene.object_type == 1) & (np.arange(len(scene.kind)) != scene.ego))[:2].tolist()
    ego = scene.position_m[scene.ego]
    position, velocity, heading = scene.position_m.copy(), scene.velocity_mps.copy(), scene.heading_rad.copy()
    position[one], position[other] = ego + np.array([10.0, 0.0, 0.0]), ego + np.array([60.0, 0.0, 0.0])
    velocity[[one, other]], heading[[one, other]] = velocity[scene.ego], heading[scene.ego]
    scene = replace(scene, position_m=position, velocity_mps=velocity, heading_rad=heading)
    valid = np.zeros_like(scene.present)
    valid[[one, other]] = True
    first = [select_targets(scene, valid, draw)[0] for draw in range(100)]
    assert 0 < first.count(other) < 30


def test_all_types_and_nearly_all_classes_are_found_in_few_scenes():
    total: Counter[tuple[int, str]] = Counter()
    for index, scene in enumerate(worlds()):
        total += class_counts(scene, scene.present, select_targets(scene, scene.present, index))
    by_type: Counter[int] = Counter()
    for (kind, _), number in total.items():
        by_type[kind] += number
    assert min(by_type[kind] for kind in (1, 2, 3)) > 0.25 * by_type.total()
    assert len({name for _, name in total}) == len(TRAJECTORY_CLASSES)
