"""Which states of which actors the recording vehicle's perception would have: occlusion, range, gaps, late appearances."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from limtr.scene import ObjectType
from preprocessing.synthetic.ego_pose import ego_path
from preprocessing.synthetic.mesh import BOX_FACES
from preprocessing.synthetic.surfaces import Caster
from preprocessing.synthetic.world import World

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

_STEP_LIFT_M = 60.0  # every step is a storey of its own in one scene: one acceleration structure instead of 91
_SAMPLES = np.array([[x, y, z] for x in (-0.35, 0.0, 0.35) for y in (-0.3, 0.3) for z in (-0.05, 0.32)] + [[0.0, 0.0, 0.42]])
"""(13, 3) points inside a box, as shares of its size, that rays aim at."""


@dataclass(frozen=True, kw_only=True)
class VisibilityConfig:
    """When a track is there."""

    range_m: float = 72.0
    """Farthest that vehicles are tracked; each actor has its own limit, up to a sixth less."""
    people_range_m: float = 58.0
    """The same for pedestrians and cyclists, of whom fewer beams return."""
    appear_share: float = 0.3
    """Share of an actor's rays that must arrive for a track to begin."""
    keep_share: float = 0.12
    """Share that keeps a track alive: less than `appear_share`, so that tracks do not flicker."""
    bridged_steps: int = 3
    """Gaps up to this long are closed, as a tracker that coasts would."""
    shortest_steps: int = 3
    """Appearances shorter than this are not reported."""

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other."""
        if not 0.0 < self.keep_share <= self.appear_share <= 1.0:
            raise ValueError(f"need 0 < keep_share <= appear_share <= 1, have {self.keep_share} and {self.appear_share}")
        if min(self.range_m, self.people_range_m) <= 0 or self.bridged_steps < 0 or self.shortest_steps < 0:
            raise ValueError("ranges must be positive, bridged_steps and shortest_steps must not be negative")


def track_validity(world: World, config: VisibilityConfig, seed: np.random.SeedSequence) -> Bool:
    """(A, T) which states a track has. The ego's are all valid; an actor is never valid where it is not present."""
    share = visible_share(world, reach_m=max(config.range_m, config.people_range_m))
    farthest = np.where(world.object_type == ObjectType.VEHICLE, config.range_m, config.people_range_m)[:, None]
    limit = farthest * np.random.default_rng(seed).uniform(5 / 6, 1.0, farthest.shape)
    offset = world.position_m[..., :2] - world.position_m[world.ego, :, :2]
    in_reach = (np.linalg.norm(offset, axis=-1) < limit) & world.present
    strong, weak = in_reach & (share >= config.appear_share), in_reach & (share >= config.keep_share)
    valid = np.zeros(world.present.shape, np.bool_)
    alive = np.zeros(len(world.kind), np.bool_)
    for step in range(len(world.timestamps_s)):
        alive = strong[:, step] | (alive & weak[:, step])
        valid[:, step] = alive
    valid = _without_short_runs(valid, config.bridged_steps, True)
    valid = _without_short_runs(valid, config.shortest_steps - 1, False) & world.present
    valid[world.ego] = True
    return valid


def visible_share(world: World, *, reach_m: float) -> Float:
    """(A, T) share of a few rays from the TOP laser that reach the actor; 0 where it is absent or beyond `reach_m`.

    All bodies are taken as boxes. The actors of a step hide each other, buildings and poles hide them too.
    """
    num_actors, num_steps = world.present.shape
    path = ego_path(world)
    eye = path.position_m + np.array([0.0, 0.0, world.size_m[world.ego, 2] + 0.3])
    distance = np.linalg.norm(world.position_m[..., :2] - world.position_m[world.ego, :, :2], axis=-1)
    there = world.present & (distance < reach_m)
    there[world.ego] = False
    actor, step = np.nonzero(there)
    if not actor.size:
        return np.zeros((num_actors, num_steps))
    lift = np.arange(num_steps) * _STEP_LIFT_M
    yaw = world.heading_rad[actor, step]
    size = world.size_m[actor]

    def in_world(share: Float) -> Float:
        """(M, k, 3) points given as shares (k, 3) of the box size."""
        local = share[None] * size[:, None]
        cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
        turned = np.stack(
            [cos * local[..., 0] - sin * local[..., 1], sin * local[..., 0] + cos * local[..., 1], local[..., 2]], -1
        )
        lifted: Float = turned + world.position_m[actor, step][:, None]
        lifted[..., 2] += lift[step][:, None]
        return lifted  # fmt: skip

    corners = np.stack(np.meshgrid((-0.5, 0.5), (-0.5, 0.5), (-0.5, 0.5), indexing="ij"), axis=-1).reshape(8, 3)
    obstacles = _obstacle_corners(world, corners)
    lifted = obstacles[None] + np.stack([np.zeros_like(lift), np.zeros_like(lift), lift], axis=-1)[:, None, None]
    vertices = np.concatenate([in_world(corners), lifted.reshape(-1, 8, 3)])
    faces = (BOX_FACES[None] + 8 * np.arange(len(vertices), dtype=np.uint32)[:, None, None]).reshape(-1, 3)
    target = in_world(_SAMPLES)
    origin = np.broadcast_to((eye + np.stack([0 * lift, 0 * lift, lift], axis=-1))[step][:, None], target.shape)
    direction = target - origin
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    rays = np.concatenate([origin, direction], axis=-1).reshape(-1, 6).astype(np.float32)
    hits = Caster(vertices.reshape(-1, 3).astype(np.float32), faces).cast(rays)
    own = (hits.triangle // len(BOX_FACES) == np.repeat(np.arange(len(actor)), len(_SAMPLES))) & np.isfinite(hits.distance_m)
    result = np.zeros((num_actors, num_steps))
    result[actor, step] = own.reshape(len(actor), -1).mean(axis=1)
    return result


def _obstacle_corners(world: World, corners: Float) -> Float:
    """(B, 8, 3) boxes of buildings and poles."""
    poles = world.poles
    boxes = np.concatenate(
        [
            world.buildings.reshape(-1, 6),
            np.stack([poles[:, 0], poles[:, 1], 2 * poles[:, 2], 2 * poles[:, 2], poles[:, 3], 0 * poles[:, 2]], axis=-1)
            if len(poles)
            else np.zeros((0, 6)),
        ]
    )
    local = corners[None] * boxes[:, None, 2:5]
    cos, sin = np.cos(boxes[:, 5:6]), np.sin(boxes[:, 5:6])
    return np.stack(
        [
            boxes[:, :1] + cos * local[..., 0] - sin * local[..., 1],
            boxes[:, 1:2] + sin * local[..., 0] + cos * local[..., 1],
            local[..., 2] + boxes[:, None, 4] / 2,
        ],
        axis=-1,
    )


def _without_short_runs(flags: Bool, longest: int, fill: bool) -> Bool:
    """Set runs of `not fill` that are at most `longest` long to `fill`; runs at either end of time count as long."""
    result = flags.copy()
    for row in result:
        edges = np.flatnonzero(np.diff(row.astype(np.int8))) + 1
        for start, stop in pairwise(edges):
            if row[start] != fill and stop - start <= longest:
                row[start:stop] = fill
    return result
