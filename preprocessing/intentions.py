"""`limtr intentions`: seeded k-means over the ends of the training split's futures, one set of points per class."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from limtr.intentions import save_intentions
from limtr.progress import progress
from limtr.scene import NUM_FUTURE_STEPS, PREDICTED_TYPES, STEP_S, FloatArray, ObjectType, Scene
from preprocessing.shards import SceneSource, data_fingerprint

# How far a class gets in the predicted time, for points that no data tell: brisk city driving, running, sporty cycling.
REACH_SPEED_MPS = {ObjectType.VEHICLE: 15.0, ObjectType.PEDESTRIAN: 2.5, ObjectType.CYCLIST: 7.0}


@dataclass(frozen=True, kw_only=True)
class IntentionsConfig:
    """Options of `limtr intentions`."""

    data: Path
    """Folder of shards that `limtr preprocess` wrote; `intentions.json` is written there."""
    clusters: int = 64
    """Intention points per class."""
    seed: int = 0
    """Seed of k-means."""
    split: str = "train"
    """Split whose futures are clustered."""

    def __post_init__(self) -> None:
        """Validate."""
        if self.clusters < 1:
            raise ValueError(f"clusters must be at least 1, is {self.clusters}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be 0..{2**32 - 1}, is {self.seed}")


def future_ends(scene: Scene) -> dict[ObjectType, FloatArray]:
    """(n, 2) last valid future position of every track to predict, by class, in its own frame at the current step.

    Targets that are invalid at the current step or never valid after it have no end.
    """
    ends: dict[ObjectType, list[np.ndarray]] = {kind: [] for kind in PREDICTED_TYPES}
    current = scene.current_step
    for row in scene.tracks_to_predict[scene.predictable()].tolist():
        kind = ObjectType(int(scene.track_type[row]))
        later = np.flatnonzero(scene.track_valid[row, current + 1 :])
        if kind not in ends or not len(later):
            continue
        now = scene.track_states[row, current].astype(np.float64)
        offset = scene.track_states[row, current + 1 + later[-1], :2] - now[:2]
        cos, sin = np.cos(now[6]), np.sin(now[6])
        ends[kind].append(np.array([cos * offset[0] + sin * offset[1], cos * offset[1] - sin * offset[0]]))
    return {kind: np.array(found, dtype=np.float32).reshape(-1, 2) for kind, found in ends.items()}


def cluster(ends_m: FloatArray, clusters: int, kind: ObjectType, seed: int) -> FloatArray:
    """`clusters` intention points (Q, 2) for the future ends (n, 2) of one class, sorted by x; independent of their order.

    With fewer distinct ends than clusters, the ends themselves are taken and the rest comes from where the class can
    get (`reachable`), each time the place farthest from all points so far; a warning says so.
    """
    distinct = np.unique(ends_m, axis=0)
    if len(distinct) > clusters:
        from sklearn.cluster import KMeans

        ordered = ends_m[np.lexsort((ends_m[:, 1], ends_m[:, 0]))]
        centers = KMeans(clusters, n_init=4, random_state=seed).fit(ordered.astype(np.float64)).cluster_centers_
        # Threads sum in their own order: to the millimetre the result is the same on every machine.
        points = np.round(centers, 3)
    else:
        missing = clusters - len(distinct)
        if missing:
            warnings.warn(
                f"class {kind.name} has {len(distinct)} distinct future ends for {clusters} intention points: "
                f"{missing} are spread over what the class can reach; more training scenes would tell better",
                stacklevel=2,
            )
        points = spread_out(distinct, reachable(kind, clusters), clusters)
    ordered_points: FloatArray = points[np.lexsort((points[:, 1], points[:, 0]))].astype(np.float32)
    return ordered_points


def reachable(kind: ObjectType, least: int) -> FloatArray:
    """At least four times `least` places (n, 2) where arcs of constant turn rate, up to a U-turn, bring the class."""
    reach_m = REACH_SPEED_MPS[kind] * NUM_FUTURE_STEPS * STEP_S
    steps = 2 * int(np.ceil(np.sqrt(least))) + 1
    length, turn = np.meshgrid(np.linspace(0.0, reach_m, steps + 1)[1:], np.linspace(-np.pi, np.pi, steps))
    # sinc(t / pi) is sin(t) / t; the chord of an arc points half its turn to the side.
    chord = length * np.sinc(turn / (2.0 * np.pi))
    places: FloatArray = (
        np.stack([chord * np.cos(turn / 2.0), chord * np.sin(turn / 2.0)], axis=-1).reshape(-1, 2).astype(np.float32)
    )
    return places


def spread_out(points: FloatArray, candidates: FloatArray, number: int) -> FloatArray:
    """`points` and as many of `candidates` as bring them to `number`, each the one farthest from all before it."""
    chosen = list(points) or [np.zeros(2, dtype=np.float32)]
    nearest = np.min([np.hypot(*(candidates - point).T) for point in chosen], axis=0)
    while len(chosen) < number:
        best = int(np.argmax(nearest))
        chosen.append(candidates[best])
        nearest = np.minimum(nearest, np.hypot(*(candidates - candidates[best]).T))
    return np.array(chosen[:number], dtype=np.float32)


def collect_ends(scenes: Iterable[Scene], total: int) -> dict[ObjectType, FloatArray]:
    """Future ends of all scenes by class."""
    parts: dict[ObjectType, list[FloatArray]] = {kind: [np.zeros((0, 2), dtype=np.float32)] for kind in PREDICTED_TYPES}
    with progress("intentions", total, "scenes") as advance:
        for scene in scenes:
            for kind, ends in future_ends(scene).items():
                parts[kind].append(ends)
            advance()
    return {kind: np.concatenate(found) for kind, found in parts.items()}


def run(config: IntentionsConfig) -> int:
    """Cluster and save; return the exit status."""
    source = SceneSource(config.data, config.split)
    ends = collect_ends(source, len(source))
    points = {kind: cluster(ends[kind], config.clusters, kind, config.seed) for kind in PREDICTED_TYPES}
    samples = {kind: len(ends[kind]) for kind in PREDICTED_TYPES}
    file = save_intentions(
        config.data, points, seed=config.seed, samples=samples, data_fingerprint=data_fingerprint(config.data)
    )
    print(f"{config.clusters} intention points per class from {len(source)} scenes -> {file}")
    for kind, array in points.items():
        low, high = array.min(axis=0), array.max(axis=0)
        print(
            f"  {kind.name.lower():<10} {samples[kind]:>8} future ends   x {low[0]:7.1f} .. {high[0]:6.1f} m"
            f"   y {low[1]:7.1f} .. {high[1]:6.1f} m"
        )
    return 0
