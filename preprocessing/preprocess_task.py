"""One motion shard -> one shard of scenes: a function of its task alone, the same in process and as a Ray task."""

from __future__ import annotations

import errno
import hashlib
import json
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from limtr.scene import NUM_FUTURE_STEPS, NUM_HISTORY_STEPS, Scene, SceneError
from preprocessing.allocator import keep_freed_memory
from preprocessing.output_lock import LockLostError, require_held
from preprocessing.shard_metadata import FORMAT_VERSION, Sidecar, shard_name, sidecar_path, write_sidecar
from preprocessing.shards import ShardWriter
from preprocessing.womd.crops import CropConfig, crop_lidar
from preprocessing.womd.lidar import merge_lidar
from preprocessing.womd.scenario import may_have_lidar, parse_scenario, record_to_scene
from preprocessing.womd.tfrecord import iter_records

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """What decides the content of a shard beside its sources."""

    max_points: int = 2048
    """LiDAR points kept per target and frame."""
    margin_m: float = 0.15
    """How far the box of a target is grown on every side."""
    seed: int = 0
    """Seed of the sampling of points."""
    format_version: int = FORMAT_VERSION

    @property
    def hash(self) -> str:
        """Short hash of all settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One motion shard to preprocess."""

    source: Path
    split: str
    index: int
    out: Path
    lidar: Path | None
    """Folder with `<scenario_id>.tfrecord`; None: no LiDAR for this split."""
    settings: ShardSettings
    lock: str = ""
    """Token of the run that has the output folder (`preprocessing.output_lock`); empty: nobody asks."""


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """A finished shard."""

    task: ShardTask
    rows: int
    bad: int
    seconds: float
    node: str = ""
    """Machine that made it."""
    peak_memory_bytes: int = 0
    """Most memory that its process ever had."""


@dataclass(frozen=True, kw_only=True)
class ShardFailure:
    """A shard that could not be made; nothing of it is left behind, the next run tries again."""

    task: ShardTask
    error: str
    details: str = ""
    disk_full: bool = False


def attempt_shard(task: ShardTask) -> ShardResult | ShardFailure:
    """`process_shard`, with any error as a value, so that the other shards go on.

    Raises:
        LockLostError: the output folder is another run's, or another folder.
    """
    try:
        return process_shard(task)
    except LockLostError:
        raise  # no other shard could be written either
    except Exception as error:
        require_held(task.out, task.lock)  # a run that took the folder over has swept our temporary file: no fault of the shard
        full = isinstance(error, OSError) and error.errno in DISK_FULL
        remedy = f"; make room on the disk of {task.out} and run the same command again" if full else ""
        return ShardFailure(
            task=task, error=f"{type(error).__name__}: {error}{remedy}", details=traceback.format_exc(), disk_full=full
        )


def process_shard(task: ShardTask) -> ShardResult:
    """Preprocess one motion shard: write the shard, then its sidecar, each in one step.

    Bad records and broken LiDAR files go to the sidecar's quarantine; the rest of the shard is kept.

    Raises:
        OSError: the source cannot be opened or the shard cannot be written; nothing is left behind.
        LockLostError: the output folder is another run's, or another folder; nothing is written there.
    """
    require_held(task.out, task.lock)
    keep_freed_memory()
    start = time.monotonic()
    stat = task.source.stat()
    sidecar_path(task.out, task.split, task.index).unlink(missing_ok=True)
    quarantine: list[dict[str, Any]] = []

    def bad_record(index: int, scenario_id: str | None, error: Exception) -> None:
        quarantine.append(_entry("record", task.source, index, scenario_id, error))

    seen: dict[str, int] = {}
    with ShardWriter(
        task.out / shard_name(task.split, task.index), before_publishing=lambda: require_held(task.out, task.lock)
    ) as writer:
        for index, data in iter_records(task.source, on_error=lambda error: bad_record(error.index, None, error)):
            scenario_id, source = None, f"{task.source} record {index}"
            try:
                scene = record_to_scene(data, source=source)
                scenario_id = scene.scenario_id
                if scenario_id in seen:
                    raise SceneError(
                        f"scenario {scenario_id!r} is in record {seen[scenario_id]} already; only that one is kept"
                    )
                require_steps_of_split(scene, task.split)
                lidar_file = find_lidar(task.lidar, scenario_id)
            except MemoryError:
                raise  # the machine's trouble, not the record's
            except Exception as error:  # whatever a broken record does, its neighbours are kept
                bad_record(index, scenario_id or _name(data), error)
                continue
            try:
                if lidar_file is not None or may_have_lidar(data):
                    message = parse_scenario(data, source=source)
                    scene = add_lidar(scene, message, lidar_file, task.settings)
            except MemoryError:
                raise
            except Exception as error:  # the scene is still good without points
                entry = _entry("lidar", task.source, index, scenario_id, error)
                # Size and time of a broken file tell a later run whether it was replaced; an unread one is tried again.
                found = lidar_file.stat() if lidar_file and isinstance(error, ValueError) else None
                quarantine.append({**entry, "lidar_stat": [found.st_size, found.st_mtime_ns] if found else None})
            try:
                writer.write(scene)
            except SceneError as error:
                bad_record(index, scenario_id, error)
                continue
            seen[scene.scenario_id] = index
    require_held(task.out, task.lock)
    write_sidecar(
        task.out,
        Sidecar(
            split=task.split,
            index=task.index,
            rows=writer.rows,
            num_bytes=writer.num_bytes,
            record_bytes=writer.record_bytes,
            sha256=writer.sha256,
            config_hash=task.settings.hash,
            settings=asdict(task.settings),
            source=task.source.name,
            source_bytes=stat.st_size,
            source_mtime_ns=stat.st_mtime_ns,
            scenes=tuple(writer.entries),
            quarantine=tuple(quarantine),
        ),
    )
    return ShardResult(task=task, rows=writer.rows, bad=len(quarantine), seconds=time.monotonic() - start)


def require_steps_of_split(scene: Scene, split: str) -> None:
    """Training and evaluation need the whole future, and batches need scenes of one length: nothing else goes into a shard.

    Raises:
        SceneError: the scene has another number of steps than the records of its split have.
    """
    whole = NUM_HISTORY_STEPS + NUM_FUTURE_STEPS
    allowed = (NUM_HISTORY_STEPS, whole) if split == "test" else (whole,)
    if scene.num_steps not in allowed:
        expected = " or ".join(map(str, allowed))
        raise SceneError(
            f"scenario {scene.scenario_id!r}: a record of split {split} must have {expected} steps, has {scene.num_steps}; "
            "is it of another split or of the 20 s files?"
        )


def find_lidar(folder: Path | None, scenario_id: str) -> Path | None:
    """The LiDAR file of a scenario; None where there is none.

    Raises:
        ValueError: the id, which comes from data, is no plain file name.
    """
    if folder is None:
        return None
    if Path(scenario_id).name != scenario_id or "\0" in scenario_id:
        raise ValueError(f"scenario_id {scenario_id!r} must be a plain name, as the name of its LiDAR file")
    path = folder / f"{scenario_id}.tfrecord"
    return path if path.exists() else None


def add_lidar(scene: Scene, message: Any, lidar_file: Path | None, settings: ShardSettings) -> Scene:
    """The scene with the LiDAR crops of its record or of its LiDAR file; as it is where there is neither.

    Raises:
        ValueError: the LiDAR file is broken or belongs to another scenario; the message says which.
        OSError: the file cannot be read.
    """
    if not message.compressed_frame_laser_data:
        if lidar_file is None:
            return scene
        records = [data for _, data in iter_records(lidar_file)]
        if len(records) != 1:
            raise ValueError(f"{lidar_file}: must hold one record, has {len(records)}; download it again")
        merge_lidar(message, parse_scenario(records[0], source=str(lidar_file)))
    crops = crop_lidar(message, CropConfig(max_points=settings.max_points, margin_m=settings.margin_m, seed=settings.seed))
    return replace(scene, lidar=crops)


def _name(data: bytes) -> str | None:
    """The scenario that a broken record says it is of."""
    try:
        return str(parse_scenario(data, source="").scenario_id)
    except ValueError:
        return None


def _entry(kind: str, file: Path, record: int, scenario_id: str | None, error: Exception) -> dict[str, Any]:
    # Errors of our own are sentences; the others say more with their names.
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return {"kind": kind, "file": str(file), "record": record, "scenario_id": scenario_id, "error": text}
