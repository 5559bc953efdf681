"""What may befall the LiDAR points of a scene: fewer of them, wrong ranges, fog, frames that come late."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evaluation.corruptions.crops import arrange, keep_points, owners
from evaluation.corruptions.poses import Float, box_from_scene, overhang_m, scene_from_box
from limtr.scene import LidarCrops, Scene

_RANGE, _INTENSITY = 0, 1
_ROUNDING_M = 0.02
"""Stored points are rounded; a point that lies this far outside of the grown box still counts as inside."""


def _crops(scene: Scene) -> LidarCrops:
    if scene.lidar is None:
        raise ValueError(f"scenario {scene.scenario_id!r} has no LiDAR that could be degraded")
    return scene.lidar


def drop_points(scene: Scene, share: float, rng: np.random.Generator) -> Scene:
    """Every point is lost with probability `share`."""
    lidar = _crops(scene)
    return replace(scene, lidar=keep_points(lidar, rng.random(len(lidar.points_m)) >= share))


def range_noise(scene: Scene, sigma_m: float, rng: np.random.Generator) -> Scene:
    """Every point moves along its ray by a normal error of `sigma_m`, and its range with it.

    Points that come to lie outside of the box grown by the crops' margin are lost, as cropping would lose them; those that
    would come in from outside are not known here. The ray comes from the top of the recording vehicle's box: crops do not say
    which laser saw a point. Where that vehicle is unknown at a step, the direction is a random one.
    """
    lidar = _crops(scene)
    agent, step = owners(lidar)
    error = sigma_m * rng.standard_normal(len(agent))
    anyhow = rng.standard_normal((len(agent), 3))
    states = scene.track_states[scene.tracks_to_predict[agent], step].astype(np.float64)
    ray = anyhow
    if scene.sdc_track >= 0:
        recorder = scene.track_states[scene.sdc_track, step].astype(np.float64)
        sensor = recorder[:, :3] + np.stack((0 * recorder[:, 5], 0 * recorder[:, 5], 0.5 * recorder[:, 5]), axis=-1)
        known = scene.track_valid[scene.sdc_track, step][:, None]
        ray = np.where(known, lidar.points_m - box_from_scene(sensor, states), anyhow)
    ray = ray / np.maximum(np.linalg.norm(ray, axis=-1, keepdims=True), 1e-9)
    features = lidar.features.copy()
    features[:, _RANGE] = np.maximum(features[:, _RANGE] + error, 0.0)
    points = lidar.points_m + error[:, None] * ray
    inside = overhang_m(points, states) <= margin_m(lidar.points_m.astype(np.float64), states)
    return replace(scene, lidar=arrange(lidar, points[inside], features[inside], agent[inside], step[inside]))


def fog(scene: Scene, visibility_m: float, rng: np.random.Generator) -> Scene:
    """Light is lost on its way out and back: a point at range r survives with probability exp(-2 a r), a = 3 / visibility.

    Intensities sink by the same factor. (Koschmieder: at the visibility, contrast is down to 5 %, which is exp(-3).) Echoes
    of the fog itself are not modelled.
    """
    lidar = _crops(scene)
    left = np.exp(-6.0 / visibility_m * lidar.features[:, _RANGE].astype(np.float64))
    features = lidar.features.copy()
    features[:, _INTENSITY] *= left
    return replace(scene, lidar=keep_points(replace(lidar, features=features), rng.random(len(left)) < left))


def delay(scene: Scene, steps: int, rng: np.random.Generator) -> Scene:
    """LiDAR frames come `steps` steps late: the box of step t is laid over the points of step t - `steps`.

    Points outside of the box grown by the crops' margin are lost, as cropping would lose them; the first steps have no frame.
    Points that lie in the shifted box but in none of the crops are not known here.
    """
    del rng  # nothing is random
    lidar = _crops(scene)
    agent, step = owners(lidar)
    rows = scene.tracks_to_predict[agent]
    later = step + steps
    there = later < lidar.count.shape[1]
    there[there] &= scene.track_valid[rows[there], later[there]]
    old = scene.track_states[rows, step].astype(np.float64)
    new = scene.track_states[rows[there], later[there]].astype(np.float64)
    points = box_from_scene(scene_from_box(lidar.points_m.astype(np.float64), old)[there], new)
    inside = overhang_m(points, new) <= margin_m(lidar.points_m.astype(np.float64), old)
    chosen = np.flatnonzero(there)[inside]
    return replace(scene, lidar=arrange(lidar, points[inside], lidar.features[chosen], agent[chosen], later[chosen]))


def reframe(scene: Scene, states: Float) -> LidarCrops:
    """The crops as other boxes of the same targets would have cut them: (A, T, 9) `states`, valid where the scene's are."""
    lidar = _crops(scene)
    agent, step = owners(lidar)
    rows = scene.tracks_to_predict[agent]
    old, new = scene.track_states[rows, step].astype(np.float64), states[rows, step]
    points = box_from_scene(scene_from_box(lidar.points_m.astype(np.float64), old), new)
    inside = overhang_m(points, new) <= margin_m(lidar.points_m.astype(np.float64), old)
    return arrange(lidar, points[inside], lidar.features[inside], agent[inside], step[inside])


def margin_m(points_m: Float, states: Float) -> float:
    """How far the boxes of the crops seem to be grown: as far as the outermost stored point needs."""
    return max(0.0, float(overhang_m(points_m, states).max(initial=0.0))) + _ROUNDING_M
