"""A small hand-made world for the tests of bodies, sensor and writer: no roads' or traffic's code involved."""

from __future__ import annotations

import numpy as np

from preprocessing.synthetic.world import BodyKind, RoadFeature, World

KINDS = (BodyKind.CAR, BodyKind.CAR, BodyKind.TRUCK, BodyKind.BUS, BodyKind.PEDESTRIAN, BodyKind.CYCLIST)
SIZES_M = {
    BodyKind.CAR: (4.6, 1.95, 1.6),
    BodyKind.TRUCK: (8.0, 2.4, 3.2),
    BodyKind.BUS: (11.5, 2.6, 3.1),
    BodyKind.PEDESTRIAN: (0.8, 0.8, 1.75),
    BodyKind.CYCLIST: (1.8, 0.8, 1.75),
}
STARTS_M = ((0.0, 0.0), (14.0, 3.5), (26.0, -4.0), (-22.0, 6.0), (9.0, -5.0), (8.0, 7.0))


def small_world(num_steps: int = 91, *, seed: int = 0, speed_mps: float = 6.0) -> World:
    """A turning ego (row 0), a car, a truck, a bus, a pedestrian and a cyclist; one building and two poles."""
    rng = np.random.default_rng(seed)
    time = 0.1 * np.arange(num_steps)
    count = len(KINDS)
    size = np.array([SIZES_M[kind] for kind in KINDS])
    speed = np.array([speed_mps, 3.0, 0.0, 4.0, 1.3, 3.5])[:, None]
    turn = np.array([0.15, 0.0, 0.0, 0.0, 0.1, -0.1])[:, None]
    heading = np.array([0.4, 0.4, 0.2, 3.0, 1.4, -0.6])[:, None] + turn * time
    velocity = speed[..., None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    moved = np.cumsum(velocity * 0.1, axis=1) - velocity * 0.1
    position = np.zeros((count, num_steps, 3))
    position[..., :2] = np.array(STARTS_M)[:, None] + moved
    position[..., 2] = size[:, None, 2] / 2
    lane = np.stack([np.arange(0, 40, 0.5), np.zeros(80), np.zeros(80)], axis=-1)
    square = np.array([[5.0, 5.0, 0.0], [8.0, 5.0, 0.0], [8.0, 8.0, 0.0], [5.0, 8.0, 0.0]])
    types = {BodyKind.PEDESTRIAN: 2, BodyKind.CYCLIST: 3}
    phase = np.broadcast_to(6.0 * time, (count, num_steps))
    return World(
        scenario_id=f"{seed:016x}",
        layout="hand_made",
        origin_m=np.array([-7785.25, 6398.5, 12.0]),
        timestamps_s=time,
        features=(
            RoadFeature(id=1, kind="lane", points_m=lane, type=2, speed_limit_mph=25.0, exit_lanes=(2,), left_neighbors=(2,),
                        right_boundaries=(3,)),
            RoadFeature(id=2, kind="lane", points_m=lane + np.array([0, 3.5, 0]), type=2, entry_lanes=(1,),
                        right_neighbors=(1,)),
            RoadFeature(id=3, kind="road_line", points_m=lane + np.array([0, -1.7, 0]), type=2),
            RoadFeature(id=4, kind="road_edge", points_m=lane + np.array([0, 5.2, 0]), type=1),
            RoadFeature(id=5, kind="stop_sign", points_m=np.array([[20.0, -3.0, 0.0]]), stop_lanes=(1, 2)),
            RoadFeature(id=6, kind="crosswalk", points_m=square),
            RoadFeature(id=7, kind="speed_bump", points_m=square + np.array([10, 0, 0])),
            RoadFeature(id=8, kind="driveway", points_m=square + np.array([20, 0, 0])),
        ),
        signal_lane=np.array([1]),
        signal_state=np.where(np.arange(num_steps) < 40, 4, 6)[None],
        signal_stop_m=np.array([[18.0, 0.0, 0.0]]),
        ego=0,
        kind=np.array(KINDS),
        object_type=np.array([types.get(kind, 1) for kind in KINDS]),
        size_m=size,
        position_m=position,
        heading_rad=np.angle(np.exp(1j * heading)),
        velocity_mps=velocity,
        present=np.ones((count, num_steps), dtype=bool),
        head_yaw_rad=rng.uniform(-1, 1, (count, 1)) * np.ones(num_steps),
        torso_yaw_rad=rng.uniform(-0.6, 0.6, (count, 1)) * np.ones(num_steps),
        front_wheel_yaw_rad=rng.uniform(-0.5, 0.5, (count, 1)) * np.ones(num_steps),
        gait_phase_rad=phase.copy(),
        maneuver_step=np.full(count, -1),
        buildings=np.array([[5.0, 25.0, 12.0, 8.0, 7.0, 0.3]]),
        poles=np.array([[12.0, -8.0, 0.1, 5.0], [-6.0, 9.0, 0.12, 6.0]]),
    )  # fmt: skip
