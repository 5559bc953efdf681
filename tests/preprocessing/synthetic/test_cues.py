from __future__ import annotations

import numpy as np
import pytest

from preprocessing.synthetic.cues import anticipated_turn
from tests.preprocessing.synthetic.simulated import NUM_WORLDS, world, worlds

CURRENT = 10


def test_without_a_lead_heads_and_torsos_never_turn():
    for index in range(3):
        scene = world(index, cue_lead_s=0.0)
        assert not scene.head_yaw_rad.any()
        assert not scene.torso_yaw_rad.any()
        straight = np.abs(np.diff(np.unwrap(scene.heading_rad, axis=1), axis=1, append=0.0)) < 1e-12
        assert np.abs(scene.front_wheel_yaw_rad[straight & (scene.velocity_mps[..., 0] != 0.0)]).mean() < 0.02


@pytest.mark.parametrize("sign", [-1.0, 1.0], ids=["right", "left"])
def test_a_coming_turn_shows_within_the_lead_only_and_on_its_side(sign: float):
    heading = np.zeros((1, 60))
    heading[0, 40:] = sign * 1.5
    turn = anticipated_turn(heading, np.array([20.0]))
    assert not turn[0, :21].any()
    assert (sign * turn[0, 22:40] > 0.0).all()
    assert (np.diff(sign * turn[0, 20:40]) >= 0.0).all()
    assert not turn[0, 40:].any()


def test_heads_tell_pedestrians_turns_before_the_path_does():
    agree = told = 0
    for scene in worlds():
        for row in np.flatnonzero(scene.object_type == 2):
            begins = scene.maneuver_step[row]
            if not 12 <= begins <= 16:
                continue
            after = min(begins + 14, 90)
            turned = np.angle(np.exp(1j * (scene.heading_rad[row, after] - scene.heading_rad[row, CURRENT])))
            speed = np.linalg.norm(scene.velocity_mps[row, [CURRENT, after]], axis=-1)
            if abs(turned) > 0.7 and speed.min() > 0.3:
                told += abs(scene.head_yaw_rad[row, CURRENT]) > 0.2
                agree += np.sign(scene.head_yaw_rad[row, CURRENT]) == np.sign(turned)
    assert told >= 4
    assert agree >= told


@pytest.mark.parametrize(
    ("kind", "cue"), [(2, "torso_yaw_rad"), (3, "head_yaw_rad"), (3, "front_wheel_yaw_rad")], ids=["torso", "cyclist", "wheel"]
)
def test_torsos_and_cyclists_turn_to_the_side_where_the_path_goes_next(kind: int, cue: str):
    signs = []
    for scene in worlds():
        for row in np.flatnonzero((scene.object_type == kind) & (scene.maneuver_step > CURRENT)):
            begins = int(scene.maneuver_step[row])
            now, after = begins - 2, min(begins + 14, 90)
            turned = np.angle(np.exp(1j * (scene.heading_rad[row, after] - scene.heading_rad[row, now])))
            speed = np.linalg.norm(scene.velocity_mps[row, [now, after]], axis=-1)
            if abs(turned) > 0.5 and speed.min() > 0.3:
                signs.append(float(getattr(scene, cue)[row, now]) * np.sign(turned) > 0.02)
    assert len(signs) >= 5
    assert np.mean(signs) > 0.8


def test_tracks_do_not_tell_what_pedestrians_and_cyclists_are_about_to_do():
    """Until it begins, whoever turns, crosses, or turns around goes as straight and as fast as whoever does not."""
    for scene in worlds():
        for row in np.flatnonzero((scene.object_type == 2) & (scene.maneuver_step > CURRENT)):
            history = slice(0, CURRENT + 1)
            speed = np.linalg.norm(scene.velocity_mps[row, history], axis=-1)
            if speed.min() > 0.5:
                assert np.ptp(speed) < 0.35
                assert np.ptp(np.unwrap(scene.heading_rad[row, history])) < 0.4


def test_many_pedestrians_and_cyclists_begin_something_within_the_lead():
    for kind in (2, 3):
        steps = np.concatenate([scene.maneuver_step[scene.object_type == kind] for scene in worlds()])
        assert len(steps) > 3 * NUM_WORLDS
        assert ((steps > CURRENT) & (steps <= CURRENT + 20)).mean() > 0.25


def test_yaws_stay_within_what_bodies_can_do():
    for scene in worlds():
        assert np.abs(scene.head_yaw_rad).max() <= 1.3
        assert np.abs(scene.torso_yaw_rad).max() <= 0.7
        assert np.abs(scene.front_wheel_yaw_rad).max() <= 0.61
        assert not scene.torso_yaw_rad[scene.object_type == 1].any()
