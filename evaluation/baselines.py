"""Baselines that any model must beat: constant velocity, and a fan of six constant turn rates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from limtr.prediction import ScenePrediction
from limtr.scene import NUM_FUTURE_STEPS, STEP_S, Scene

FAN_TURN_RATES_RADPS = (0.0, 0.1, -0.1, 0.25, -0.25, 0.0)
"""Turn rates of the six modes (positive: left): straight, gentle and sharp bends to both sides, and a last one that stops."""
FAN_SPEED_FACTORS = (1.0, 1.0, 1.0, 0.8, 0.8, 0.0)
"""Share of the current speed that each mode keeps: sharp bends are taken slower."""
FAN_SCORES = (0.4, 0.15, 0.15, 0.1, 0.1, 0.1)
"""Confidences: the same for every object."""


def constant_velocity(scene: Scene) -> ScenePrediction:
    """One mode: each predictable target goes on with its current velocity."""
    return _roll_out(scene, (0.0,), (1.0,), (1.0,))


def turn_rate_fan(scene: Scene) -> ScenePrediction:
    """Six modes: each predictable target goes on with `FAN_SPEED_FACTORS` of its speed, turning at `FAN_TURN_RATES_RADPS`."""
    return _roll_out(scene, FAN_TURN_RATES_RADPS, FAN_SPEED_FACTORS, FAN_SCORES)


def _roll_out(
    scene: Scene, turn_rates_radps: tuple[float, ...], speed_factors: tuple[float, ...], scores: tuple[float, ...]
) -> ScenePrediction:
    rows = scene.tracks_to_predict[scene.predictable()]
    now = scene.track_states[rows, scene.current_step].astype(np.float64)
    velocity = now[:, None, None, 7:9] * np.array(speed_factors)[:, None, None]
    time_s = np.asarray(STEP_S * np.arange(1, NUM_FUTURE_STEPS + 1), dtype=np.float64)
    along, across = _arc(np.array(turn_rates_radps)[:, None], time_s)
    offset = np.stack(
        [velocity[..., 0] * along - velocity[..., 1] * across, velocity[..., 0] * across + velocity[..., 1] * along], axis=-1
    )
    return ScenePrediction(
        scenario_id=scene.scenario_id,
        object_id=scene.track_id[rows],
        xy_m=now[:, None, None, :2] + offset + scene.origin_m[:2],
        scores=np.tile(np.array(scores), (len(rows), 1)),
    )


def _arc(turn_rate: npt.NDArray[np.float64], time_s: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Seconds travelled along and across the starting direction: sin(w t)/w and (1 - cos(w t))/w, also for w = 0."""
    half = 0.5 * turn_rate * time_s
    chord = time_s * np.sinc(half / np.pi)
    return chord * np.cos(half), chord * np.sin(half)
