"""The loader: milliseconds a scene and core, workers, memory over epochs.

    python benchmarks/loader.py SHARDS [epochs]

SHARDS is a dataset of `limtr preprocess`, made of Waymo's records or of `limtr synthesize --size womd` ones. Scenes are read,
decoded and collated as `limtr train` does it: 512 LiDAR points of every target and frame, batches of 10.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from limtr.batch import collate
from limtr.scene import PREDICTED_TYPES
from preprocessing.allocator import keep_freed_memory
from preprocessing.shards import SceneSource, scene_index
from training.data import SelectedScenes, epoch_batches, load_batches, select

NUM_POINTS = 512
BATCH_SIZE = 10
SCENES_A_WORKER = 400
MB = 2**20


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    keep_freed_memory()  # as the loader's workers do
    folder, epochs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40
    index = scene_index(folder, "train")
    chosen = select(index, range(len(index)), PREDICTED_TYPES, None)
    source = SceneSource(folder, "train", lidar_points=NUM_POINTS)
    scenes = SelectedScenes(source, chosen)
    list(source)  # files opened and in the page cache
    memory, rates = [], []
    parts = np.zeros(2)
    for epoch in range(epochs):
        scenes.epoch = epoch
        start = time.process_time()
        for rows in epoch_batches(len(scenes), BATCH_SIZE, 0, epoch):
            before = time.process_time()
            read = [scenes[row] for row in rows]
            middle = time.process_time()
            batch = collate(read, num_lidar_points=NUM_POINTS)
            parts += middle - before, time.process_time() - middle
        rates.append((time.process_time() - start) / len(scenes))
        memory.append(_resident_bytes())
    read_ms, collate_ms = 1e3 * parts / (epochs * len(scenes))
    points = 0 if batch.lidar_mask is None else int(batch.lidar_mask.sum())
    print(
        f"{len(scenes)} scenes, {chosen.num_targets} targets, last batch of {len(batch.scenario_ids)}: "
        f"{tuple(batch.track_states.shape)} states, {tuple(batch.polylines.shape)} polylines, {points} LiDAR points"
    )
    print(
        f"one core: median {1e3 * float(np.median(rates)):.2f} ms a scene (fastest epoch {1e3 * min(rates):.2f}); "
        f"mean {read_ms:.2f} read and decoded, {collate_ms:.2f} collated"
    )
    settled = memory[len(memory) // 4]
    print(
        f"memory: {settled / MB:.0f} MB after {len(memory) // 4 + 1} epochs, {memory[-1] / MB:.0f} MB after {epochs}; "
        f"largest ever {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
    )
    for workers in (1, 2):
        count = SCENES_A_WORKER * workers
        rows = [row for epoch in range(-(-count // len(scenes))) for row in epoch_batches(len(scenes), BATCH_SIZE, 0, epoch)]
        reader = load_batches(scenes, rows, num_lidar_points=NUM_POINTS, workers=workers, pin_memory=False)
        for _ in range(2 * workers):  # the processes are up by then
            next(reader)
        start, done, spent = time.perf_counter(), 0, 0.0
        begun = _cpu_seconds()
        for batch in reader:
            done += len(batch.scenario_ids)
            spent = max(spent, _cpu_seconds() - begun)  # of the last moment when all of them were there
        rate = done / (time.perf_counter() - start)
        print(f"{workers} workers: {rate:.0f} scenes a second, {1e3 * spent / done:.2f} ms of CPU a scene in all workers")
    return 0


def _cpu_seconds() -> float:
    """CPU time of the processes that this one started and that still run."""
    ticks = 0
    for process in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # user and system time
    return ticks / os.sysconf("SC_CLK_TCK")


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
