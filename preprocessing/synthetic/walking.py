"""How pedestrians advance along their planned paths: nobody else influences them."""

from __future__ import annotations

import numpy as np

from preprocessing.synthetic.paths import Paths
from preprocessing.synthetic.plans import Plan
from preprocessing.synthetic.world import Float

WALK_ACCELERATION_MPS2 = 1.1
WALK_LATERAL_MPS2 = 1.0


def walk(plans: list[Plan], paths: Paths, times_s: Float) -> tuple[Float, Float]:
    """Arc length (A, T) and speed (A, T) of walkers at the given times.

    Speeds follow the wish (cruise, slower in tight turns, to a stop at `hold_m` until `hold_until_s`) with limited
    acceleration. Vehicles have to make way, so that what a pedestrian does depends on its own plan alone.
    """
    s = np.array([plan.start_m for plan in plans])
    v = np.array([plan.start_mps for plan in plans])
    cruise = np.array([plan.cruise_mps for plan in plans])
    hold = np.minimum(np.array([plan.hold_m for plan in plans]), paths.length_m)
    until = np.array([plan.hold_until_s for plan in plans])
    everyone = np.ones(len(plans))
    limit = paths.speed_limit(WALK_LATERAL_MPS2 * everyone, 0.7 * WALK_ACCELERATION_MPS2 * everyone)
    travelled, speed = np.zeros((2, len(plans), len(times_s)))
    step = float(times_s[1] - times_s[0])
    for index, time in enumerate(times_s):
        travelled[:, index], speed[:, index] = s, v
        ahead = np.where((time < until) & (s <= hold + 0.05), hold, paths.length_m) - s
        wish = np.minimum(np.minimum(cruise, paths.lookup(limit, s)), np.sqrt(2 * 0.8 * np.maximum(ahead - 0.02, 0.0)))
        change = np.clip(wish - v, -1.6 * step, WALK_ACCELERATION_MPS2 * step)
        following = np.maximum(v + change, 0.0)
        s, v = s + 0.5 * (v + following) * step, following
    return travelled, speed
