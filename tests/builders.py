"""Tiny scenes for tests: random but valid, made in memory."""

from __future__ import annotations

import numpy as np

from limtr.scene import NUM_HISTORY_STEPS, LidarCrops, ObjectType, Scene


def tiny_scene(
    seed: int = 0,
    *,
    num_tracks: int = 6,
    num_steps: int = 91,
    num_targets: int = 3,
    num_features: int = 5,
    with_lidar: bool = True,
    with_signals: bool = True,
    gaps: bool = True,
) -> Scene:
    """A scene of smoothly moving tracks on straight map features around a far-off world origin.

    Targets are the first tracks, of types vehicle, pedestrian, cyclist in turn, valid at the current step.
    """
    rng = np.random.default_rng(seed)
    current = NUM_HISTORY_STEPS - 1
    time_s = (np.arange(num_steps) - current) * 0.1
    types = np.array([1 + row % 3 for row in range(num_tracks)], dtype=np.int64)
    types[-1] = ObjectType.VEHICLE
    states = np.zeros((num_tracks, num_steps, 9), dtype=np.float32)
    for row in range(num_tracks):
        speed = rng.uniform(0.0, {1: 12.0, 2: 1.6, 3: 5.0}[int(types[row])])
        turn_rate = rng.uniform(-0.2, 0.2)
        heading = rng.uniform(-np.pi, np.pi) + turn_rate * time_s
        velocity = speed * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        step = np.cumsum(velocity * 0.1, axis=0)
        position = rng.uniform(-40, 40, 2) + step - step[current]
        size = {1: (4.5, 1.9, 1.6), 2: (0.8, 0.8, 1.75), 3: (1.8, 0.8, 1.7)}[int(types[row])]
        states[row, :, 0:2] = position
        states[row, :, 2] = 0.5 * size[2]
        states[row, :, 3:6] = size
        states[row, :, 6] = np.angle(np.exp(1j * heading))
        states[row, :, 7:9] = velocity
    valid = np.ones((num_tracks, num_steps), dtype=bool)
    if gaps:
        valid = rng.random((num_tracks, num_steps)) > 0.15
        valid[:, current] = True
    states[~valid] = 0.0

    lengths = rng.integers(8, 45, num_features)
    points = np.concatenate([_feature_points(rng, int(length)) for length in lengths] or [np.zeros((0, 3), np.float32)])
    polylines = [min(20, int(length) - start) for length in lengths for start in range(0, int(length), 20)]
    feature_types = np.array([1, 2, 6, 15, 18, 19, 20, 3], dtype=np.int64)[np.arange(num_features) % 8]

    targets = np.arange(num_targets, dtype=np.int64)
    lidar = _crops(rng, states[targets], valid[targets]) if with_lidar else None
    num_signals = num_steps if with_signals and num_features else 0
    return Scene(
        scenario_id=f"tiny{seed:04d}",
        origin_m=np.array([-7785.25, 6398.5, 12.0]),
        timestamps_s=np.arange(num_steps) * 0.1,
        current_step=current,
        sdc_track=num_tracks - 1,
        track_id=np.arange(num_tracks, dtype=np.int64) * 7 + 100,
        track_type=types,
        track_states=states,
        track_valid=valid,
        tracks_to_predict=targets,
        difficulty=np.ones(num_targets, dtype=np.int64),
        objects_of_interest=np.zeros(0, dtype=np.int64),
        map_points_m=points,
        feature_length=lengths.astype(np.int64),
        feature_type=feature_types,
        feature_id=np.arange(num_features, dtype=np.int64) + 1000,
        polyline_length=np.array(polylines, dtype=np.int64),
        signal_step=np.arange(num_signals, dtype=np.int64),
        signal_lane=np.full(num_signals, 1000, dtype=np.int64),
        signal_state=np.full(num_signals, 4, dtype=np.int64),
        signal_stop_m=np.zeros((num_signals, 3), dtype=np.float32),
        lidar=lidar,
    ).validate()


def _feature_points(rng: np.random.Generator, length: int) -> np.ndarray:
    heading = rng.uniform(-np.pi, np.pi)
    along = 0.5 * np.arange(length)[:, None] * np.array([[np.cos(heading), np.sin(heading), 0.0]])
    return (along + np.append(rng.uniform(-50, 50, 2), 0.0)).astype(np.float32)


def _crops(rng: np.random.Generator, states: np.ndarray, valid: np.ndarray) -> LidarCrops:
    count = rng.integers(0, 30, (len(states), NUM_HISTORY_STEPS)) * valid[:, :NUM_HISTORY_STEPS]
    points, features = [], []
    for agent, frame in np.ndindex(count.shape):
        number = int(count[agent, frame])
        points.append(rng.uniform(-0.5, 0.5, (number, 3)) * states[agent, frame, 3:6])
        features.append(rng.uniform(0.0, 1.0, (number, 3)) * np.array([75.0, 1.0, 1.0]))
    return LidarCrops(
        points_m=np.concatenate(points or [np.zeros((0, 3))]).astype(np.float32),
        features=np.concatenate(features or [np.zeros((0, 3))]).astype(np.float32),
        count=count.astype(np.int64),
        count_in_box=count.astype(np.int64),
        empty_share=float((count[valid[:, :NUM_HISTORY_STEPS]] == 0).mean()) if valid.any() else float("nan"),
        best_shift=0,
    )
