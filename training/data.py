"""Batches of scenes for training: which scenes and targets, in which order, read by whom."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from evaluation.scoring import SceneReader
from limtr.batch import SceneBatch, collate
from limtr.scene import IntArray, ObjectType, Scene
from preprocessing.allocator import keep_freed_memory
from preprocessing.shards import SceneEntry
from training.augment import mirrored


@dataclass(frozen=True)
class Selection:
    """Which targets of which scenes are trained on, and what was left out."""

    rows: tuple[int, ...]
    """Scenes with at least one kept target."""
    targets: tuple[tuple[int, ...], ...]
    """Kept positions of `Scene.tracks_to_predict` for each of `rows`."""
    types: tuple[tuple[int, ...], ...]
    """Their `ObjectType` numbers."""
    scenes_left_out: int
    targets_left_out: int

    @property
    def num_targets(self) -> int:
        """Kept targets in all."""
        return sum(len(kept) for kept in self.targets)


def spread_rows(num_scenes: int, fraction: float) -> list[int]:
    """Rows of a share of the scenes, spread evenly: the first of every 1/fraction (MTR's "20 % data" is every fifth)."""
    count = max(round(num_scenes * fraction), min(num_scenes, 1))
    return [int(row) for row in np.floor(np.arange(count) * (num_scenes / max(count, 1)))]


def select(
    index: Sequence[SceneEntry], rows: Sequence[int], types: Sequence[ObjectType], max_distance_m: float | None
) -> Selection:
    """Keep predictable targets of the given types within the given distance; scenes without any are left out.

    Args:
        index: the split's scene index.
        rows: rows of the scenes to choose from.
        types: types to keep.
        max_distance_m: distance to the recording vehicle; a target of unknown distance is left out when this is set.
    """
    kept_rows: list[int] = []
    kept_targets: list[tuple[int, ...]] = []
    kept_types: list[tuple[int, ...]] = []
    total = 0
    for row in rows:
        entry = index[row]
        total += len(entry.target_types)
        chosen = [
            position
            for position, (kind, valid, distance) in enumerate(
                zip(entry.target_types, entry.target_valid, entry.target_distance_m, strict=True)
            )
            if valid and kind in types and (max_distance_m is None or (distance is not None and distance <= max_distance_m))
        ]
        if chosen:
            kept_rows.append(row)
            kept_targets.append(tuple(chosen))
            kept_types.append(tuple(entry.target_types[position] for position in chosen))
    return Selection(
        rows=tuple(kept_rows),
        targets=tuple(kept_targets),
        types=tuple(kept_types),
        scenes_left_out=len(rows) - len(kept_rows),
        targets_left_out=total - sum(map(len, kept_targets)),
    )


def epoch_order(num_scenes: int, seed: int, epoch: int) -> IntArray:
    """The order of the scenes in one epoch: a function of seed and epoch alone, so that a resumed run goes on exactly."""
    return np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(num_scenes).astype(np.int64)


def epoch_batches(num_scenes: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """One epoch cut into batches; the last may be smaller."""
    order = epoch_order(num_scenes, seed, epoch).tolist()
    return [order[start : start + batch_size] for start in range(0, num_scenes, batch_size)]


def rank_share(batch: Sequence[int], rank: int, num_ranks: int) -> list[int]:
    """The scenes of a batch that one of several ranks reads.

    Every scene goes to exactly one rank; ranks differ by one scene at most, and the last may have none of a short batch.
    """
    return list(batch[rank::num_ranks])


class SelectedScenes(Dataset[Scene]):
    """The selected scenes with their kept targets; decoded scenes are remembered up to a size.

    Vehicles are dropped and scenes mirrored per (seed, epoch, scene), which is why `set_epoch` exists.
    """

    def __init__(
        self,
        source: SceneReader,
        selection: Selection,
        *,
        drop_vehicles: float = 0.0,
        mirror: float = 0.0,
        seed: int = 0,
        cache_bytes: int = 0,
    ) -> None:
        self.source = source
        self.selection = selection
        self.drop_vehicles = drop_vehicles
        self.mirror = mirror
        self.seed = seed
        self.epoch = 0
        self._cache: OrderedDict[int, Scene] = OrderedDict()
        self._room = cache_bytes

    def __len__(self) -> int:
        """How many scenes are selected."""
        return len(self.selection.rows)

    def __getitem__(self, index: int) -> Scene:
        """One scene as this epoch has it: vehicles dropped, mirrored."""
        scene = self.as_read(index)
        scene = self._without_dropped_vehicles(scene, index) if self.drop_vehicles else scene
        return mirrored(scene) if self.mirror and self._draws(index, 2).random() < self.mirror else scene

    def as_read(self, index: int) -> Scene:
        """One scene as it was read, reduced to its kept targets."""
        scene = self._cache.get(index)
        if scene is None:
            kept = np.array(self.selection.targets[index], dtype=np.int64)
            scene = self.source[self.selection.rows[index]].keep_targets(kept)
            size = scene_bytes(scene)
            if size <= self._room:
                self._cache[index] = scene
                self._room -= size
        return scene

    def _draws(self, index: int, purpose: int) -> np.random.Generator:
        """Random numbers of a scene in an epoch."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, self.epoch, index, purpose]))

    def _without_dropped_vehicles(self, scene: Scene, index: int) -> Scene:
        rng = self._draws(index, 1)
        is_vehicle = np.array(self.selection.types[index]) == ObjectType.VEHICLE
        kept = np.flatnonzero(~(is_vehicle & (rng.random(len(is_vehicle)) < self.drop_vehicles)))
        return scene.keep_targets(kept.astype(np.int64))


def scene_bytes(scene: Scene) -> int:
    """Memory of a scene's arrays."""
    arrays = [value for value in vars(scene).values() if isinstance(value, np.ndarray)]
    if scene.lidar is not None:
        arrays += [value for value in vars(scene.lidar).values() if isinstance(value, np.ndarray)]
    return sum(array.nbytes for array in arrays)


class _Collate:
    """`collate` with its option bound; a class because loader processes need to pickle it."""

    def __init__(self, num_lidar_points: int | None) -> None:
        self.num_lidar_points = num_lidar_points

    def __call__(self, scenes: list[Scene]) -> SceneBatch:
        return collate(scenes, num_lidar_points=self.num_lidar_points)


def _begin_worker(worker: int) -> None:
    _leave_signals_to_parent(worker)
    # Torch's own watch looks at the server that forked this process, and that one lives as long as this process does.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _leave_signals_to_parent(worker: int) -> None:
    # Ctrl-C, or a scheduler's SIGTERM, reaches the whole process group; without readers the parent could not finish its step.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def load_batches(
    scenes: SelectedScenes, batches: Sequence[Sequence[int]], *, num_lidar_points: int | None, workers: int, pin_memory: bool
) -> Iterator[SceneBatch]:
    """Read batches in order, in this process or in `workers` others.

    Batches are lists of scenes, so that a resumed run gives those that are left; not one may be empty.

    Other processes start by forkserver: the reader's library has threads, which a forked child would not survive.
    """
    loader: DataLoader[Scene] = DataLoader(
        scenes,
        batch_sampler=[list(batch) for batch in batches],
        collate_fn=_Collate(num_lidar_points),
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=_begin_worker,
        pin_memory=pin_memory,
        # Its own generator: a loader draws a seed when it starts, and from the global one that would shift what dropout
        # draws in a run resumed within an epoch.
        generator=torch.Generator().manual_seed(0),
    )
    yield from loader
