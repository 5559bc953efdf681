"""What may befall the tracks of a scene: noise of the tracker, and agents that were not seen for long."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evaluation.corruptions.crops import keep_points, owners
from evaluation.corruptions.lidar import reframe
from limtr.scene import Scene

_POSITION, _HEADING, _VELOCITY = slice(0, 2), 6, slice(7, 9)
_HEADING_RAD_PER_M = np.deg2rad(10.0)
_VELOCITY_MPS_PER_M = 2.0


def track_noise(scene: Scene, sigma_m: float, rng: np.random.Generator) -> Scene:
    """Normal errors, independent from step to step, in the history of every track but the recording vehicle.

    Positions err by `sigma_m` per axis, headings by ten degrees and velocities by 2 m/s per metre of it. LiDAR crops are what
    the noisy boxes cut: the points stay where they were in the world.
    """
    seen = scene.current_step + 1
    states = scene.track_states.astype(np.float64)
    error = sigma_m * rng.standard_normal((scene.num_tracks, seen, 5))
    if scene.sdc_track >= 0:
        error[scene.sdc_track] = 0.0
    error[~scene.track_valid[:, :seen]] = 0.0
    past = states[:, :seen]
    past[..., _POSITION] += error[..., :2]
    turned = past[..., _HEADING] + _HEADING_RAD_PER_M * error[..., 2]
    wrapped = np.arctan2(np.sin(turned), np.cos(turned))
    past[..., _HEADING] = np.where(error[..., 2] == 0.0, past[..., _HEADING], wrapped)
    past[..., _VELOCITY] += _VELOCITY_MPS_PER_M * error[..., 3:]
    lidar = None if scene.lidar is None else reframe(scene, states)
    return replace(scene, track_states=states.astype(np.float32), lidar=lidar)


def missing_history(scene: Scene, steps_left: int, rng: np.random.Generator) -> Scene:
    """Every track but the recording vehicle is known only for the newest `steps_left` steps, the current one among them."""
    del rng  # nothing is random
    first = scene.current_step + 1 - steps_left
    valid = scene.track_valid.copy()
    valid[:, :first] = False
    if scene.sdc_track >= 0:
        valid[scene.sdc_track] = scene.track_valid[scene.sdc_track]
    states = np.where(valid[..., None], scene.track_states, np.float32(0.0))
    lidar = scene.lidar
    if lidar is not None:
        agent, step = owners(lidar)
        lidar = keep_points(lidar, valid[scene.tracks_to_predict[agent], step])  # without a box there is no crop
    return replace(scene, track_states=states, track_valid=valid, lidar=lidar)
