"""Which tracks of a world are to be predicted, and which way each of them goes."""

from __future__ import annotations

from collections import Counter

import numpy as np

from limtr.scene import NUM_HISTORY_STEPS, ObjectType
from preprocessing.synthetic.world import Bool, World

MAX_TARGETS = 8
CURRENT_STEP = NUM_HISTORY_STEPS - 1
TRAJECTORY_CLASSES = (
    "stationary",
    "straight",
    "straight_left",
    "straight_right",
    "left_u_turn",
    "left_turn",
    "right_u_turn",
    "right_turn",
)
NEAR_M = 20.0
"""Distance from the sensor (m) at which an actor's chance to be chosen has halved."""
# How much a scene's choice favours each way to go: what most tracks do anyway is taken last.
INTEREST = {
    "stationary": 0.25,
    "straight": 0.8,
    "straight_left": 2.0,
    "straight_right": 2.0,
    "left_u_turn": 3.0,
    "left_turn": 2.0,
    "right_u_turn": 3.0,
    "right_turn": 2.0,
}


def trajectory_class(world: World, valid: Bool, actor: int) -> str | None:
    """One of `TRAJECTORY_CLASSES` for an actor's future, None where it is not valid at the current step or never after.

    These are the buckets of Waymo's motion metric with its thresholds of 2024: distance and turn between the current
    state and the last valid one, in the current body frame. They serve the simulator's own table; scores come from the
    evaluation's classification.
    """
    later = np.flatnonzero(valid[actor, CURRENT_STEP + 1 :])
    if not valid[actor, CURRENT_STEP] or not len(later):
        return None
    end = CURRENT_STEP + 1 + int(later[-1])
    dx_world, dy_world = world.position_m[actor, end, :2] - world.position_m[actor, CURRENT_STEP, :2]
    heading = world.heading_rad[actor, CURRENT_STEP]
    dx = dx_world * np.cos(heading) + dy_world * np.sin(heading)
    dy = dy_world * np.cos(heading) - dx_world * np.sin(heading)
    turned = np.mod(world.heading_rad[actor, end] - heading + np.pi, 2 * np.pi) - np.pi
    speed = np.hypot(*world.velocity_mps[actor, [CURRENT_STEP, end]].T).max()
    if speed < 2.0 and np.hypot(dx, dy) < 3.0:
        return "stationary"
    if abs(turned) < np.pi / 6:
        return "straight" if abs(dy) < 2.5 else "straight_right" if dy < 0 else "straight_left"
    side = "right" if dy < 0 else "left"
    return f"{side}_u_turn" if dx < 0 else f"{side}_turn"


def select_targets(world: World, valid: Bool, rng_seed: int) -> list[int]:
    """Rows of up to eight tracks to predict: types in turn, and within a type the less common ways to go first.

    Args:
        world: the scene.
        valid: (A, T) states that the sensor sees.
        rng_seed: with the world, all that the choice depends on.

    Returns:
        Rows valid at the current step and at least once after it (if there is a future), never the recording vehicle's.
    """
    rng = np.random.default_rng(rng_seed)
    has_future = valid.shape[1] > CURRENT_STEP + 1
    queues: dict[int, list[int]] = {}
    # Eight places go round among three types: whose turn comes first, and so thrice, is drawn as well.
    for kind in rng.permutation([ObjectType.VEHICLE, ObjectType.PEDESTRIAN, ObjectType.CYCLIST]).tolist():
        rows = [
            row for row in np.flatnonzero(world.object_type == kind).tolist() if row != world.ego and valid[row, CURRENT_STEP]
        ]
        if has_future:
            rows = [row for row in rows if valid[row, CURRENT_STEP + 1 :].any()]
        weights = np.array([_interest(world, valid, row) for row in rows])
        # Exponential races: a random order in which a weight of two comes first twice as often.
        order = np.argsort(rng.exponential(1.0, len(rows)) / weights) if rows else np.zeros(0, np.int64)
        queues[kind] = [rows[place] for place in order.tolist()]
    chosen: list[int] = []
    while len(chosen) < MAX_TARGETS and any(queues.values()):
        for queue in queues.values():
            if queue and len(chosen) < MAX_TARGETS:
                chosen.append(queue.pop(0))
    return chosen


def class_counts(world: World, valid: Bool, targets: list[int]) -> Counter[tuple[int, str]]:
    """How many targets of each (object type, trajectory class) there are; unclassifiable ones are left out."""
    named = ((int(world.object_type[row]), trajectory_class(world, valid, row)) for row in targets)
    return Counter((kind, name) for kind, name in named if name is not None)


def _interest(world: World, valid: Bool, row: int) -> float:
    """Weight in the draw: a long visible future counts, so does moving, and so does being near the sensor."""
    name = trajectory_class(world, valid, row)
    seen = float(valid[row, CURRENT_STEP + 1 :].mean()) if valid.shape[1] > CURRENT_STEP + 1 else 1.0
    moving = float(np.hypot(*world.velocity_mps[row, CURRENT_STEP])) > 0.3
    soon = world.object_type[row] != ObjectType.VEHICLE and world.maneuver_step[row] > CURRENT_STEP
    # The beams that meet a body fall with the square of its distance; the weight falls more gently, so that far ones stay.
    distance_m = float(np.hypot(*(world.position_m[row, CURRENT_STEP, :2] - world.position_m[world.ego, CURRENT_STEP, :2])))
    near = 1.0 / (1.0 + (distance_m / NEAR_M) ** 2)
    return (INTEREST[name] if name else 1.0) * (0.1 + seen) * (1.5 if moving or soon else 1.0) * near
