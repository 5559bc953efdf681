"""Preprocessing end to end: scenes a second and core, where the time goes, and how large the shards are.

    python benchmarks/pipeline.py FOLDER [scenes]
    python benchmarks/pipeline.py FILE.tfrecord [scenes]

FOLDER is WOMD's layout (scenario/training, lidar/training), such as `limtr synthesize --size womd --side-shape 200 600`
writes; FILE is one motion file, without LiDAR. One process, one thread, CPU time; the files are in the page cache.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preprocessing import preprocess_task
from preprocessing.allocator import keep_freed_memory
from preprocessing.preprocess_task import ShardSettings, add_lidar, find_lidar
from preprocessing.shards import ShardWriter
from preprocessing.womd import crops, lidar
from preprocessing.womd.misalignment import ShiftProbe
from preprocessing.womd.scenario import parse_scenario, record_to_scene
from preprocessing.womd.tfrecord import iter_records

ROUNDS = 3


class Clock:
    """CPU time by stage; what is measured inside a stage does not count for it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open: list[float] = []

    @contextmanager
    def stage(self, name: str) -> Any:
        """Time the block."""
        self._open.append(0.0)
        start = time.process_time()
        try:
            yield
        finally:
            spent = time.process_time() - start
            inner = self._open.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - inner
            if self._open:
                self._open[-1] += spent

    def watch(self, owner: Any, name: str, stage: str) -> None:
        """Time every call of a function."""
        work: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.stage(stage):
                return work(*arguments, **options)

        setattr(owner, name, timed)


def preprocess(records: list[bytes], lidar_folder: Path | None, out: Path, clock: Clock) -> ShardWriter:
    """The stages of `process_shard`, timed one by one."""
    with ShardWriter(out) as writer:
        for data in records:
            with clock.stage("record to scene"):
                scene = record_to_scene(data)
            path = find_lidar(lidar_folder, scene.scenario_id)
            if path is not None:
                with clock.stage("parse for LiDAR"):
                    message = parse_scenario(data, source="")
                with clock.stage("crops: the rest, files read"):
                    scene = add_lidar(scene, message, path, ShardSettings())
            with clock.stage("encode and write"):
                writer.write(scene)
    return writer


def measure(files: list[Path], lidar_folder: Path | None, wanted: int) -> None:
    """Print rate, profile and sizes."""
    clock = Clock()
    # Stages that lie within others; only the calls are timed, the work is that of `limtr preprocess`.
    watched = [
        (preprocess_task, "parse_scenario", "parse for LiDAR"),
        (lidar, "open_image", "decode range images"), (crops, "pixels_in_windows", "choose pixels"),
        (crops, "block_windows", "choose pixels"), (lidar.LaserScan, "points", "pixels to points"),
        (crops, "_crop", "points in boxes"), (ShiftProbe, "add_frame", "alignment of boxes and LiDAR"),
    ]  # fmt: skip
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in watched]
    for owner, name, stage in watched:
        clock.watch(owner, name, stage)
    best: tuple[float, dict[str, float]] | None = None
    try:
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(ROUNDS):
                clock.seconds = {}
                start = time.process_time()
                with clock.stage("read the records"):
                    records = list(itertools.islice((data for file in files for _, data in iter_records(file)), wanted))
                writer = preprocess(records, lidar_folder, Path(folder) / "shard", clock)
                spent = time.process_time() - start
                if best is None or spent < best[0]:
                    best = (spent, dict(clock.seconds))
    finally:
        for owner, name, work in originals:
            setattr(owner, name, work)
    assert best is not None
    spent, stages = best
    raw = sum(map(len, records))
    if lidar_folder is not None:
        raw += sum((lidar_folder / f"{entry.scenario_id}.tfrecord").stat().st_size for entry in writer.entries)
    number = writer.rows
    with_lidar = sum(entry.has_lidar for entry in writer.entries)
    print(
        f"{number} scenes, {with_lidar} with LiDAR: {number / spent:.1f} scenes a second and core "
        f"({1e3 * spent / number:.1f} ms each)"
    )
    for name, seconds in sorted(
        [*stages.items(), ("everything else", spent - sum(stages.values()))], key=lambda item: -item[1]
    ):
        print(f"  {name:<30} {1e3 * seconds / number:8.2f} ms a scene {seconds / spent:6.1%}")
    print(
        f"  raw {raw / number / 1e3:.0f} kB a scene, in the shard {writer.record_bytes / number / 1e3:.0f} kB: "
        f"{raw / writer.record_bytes:.1f} to 1"
    )


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    keep_freed_memory()  # as preprocessing does
    source, wanted = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 6
    files = [source] if source.is_file() else sorted((source / "scenario" / "training").glob("*.tfrecord*"))
    measure(files, None, wanted)
    if source.is_dir():
        measure(files, source / "lidar" / "training", wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
