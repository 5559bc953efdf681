"""What `limtr preprocess` has to do: motion shards in the official layout against the sidecars that exist."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from preprocessing.preprocess_task import ShardSettings, ShardTask
from preprocessing.shard_metadata import MAX_SHARDS, Sidecar, read_sidecars, shard_name

SPLIT_OF_FOLDER = {"training": "train", "validation": "validation", "testing": "test"}
"""WOMD's folders and the splits that they become."""

MOST_NAMED = 5

_MOTION_SHARD = re.compile(r".+\.tfrecord(?:-(?P<index>\d{5,})-of-(?P<count>\d{5,}))?")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All shards of the input, those still to do among them, and what was left aside."""

    tasks: tuple[ShardTask, ...]
    """Every motion shard of the chosen splits, done or not."""
    todo: tuple[ShardTask, ...]
    notes: tuple[str, ...] = field(default=())
    """Sentences for the person: what is skipped, what is done again and why."""


def make_plan(
    *,
    source: Path,
    out: Path,
    lidar: Path | None,
    splits: Collection[str],
    settings: ShardSettings,
    anew: bool = False,
) -> Plan:
    """Compare the input folder with what `out` already holds.

    Args:
        source: folder with `scenario/<split>/*.tfrecord*`.
        out: dataset folder.
        lidar: folder with `<split>/<scenario_id>.tfrecord`; None uses `source/lidar` if there is one.
        splits: names out of `SPLIT_OF_FOLDER`'s values.
        settings: of every shard.
        anew: take nothing in `out` for done, whatever its settings.

    Raises:
        FileNotFoundError: there is no motion shard in the chosen splits, or `lidar` has no folder of one.
        ValueError: a finished shard was made with other settings.
    """
    motion = source / "scenario"
    if not motion.is_dir():
        raise FileNotFoundError(
            f"{source}: no folder `scenario` in it; --input is what holds scenario/training, scenario/validation, ..."
        )
    lidar_root = lidar or (source / "lidar")
    notes = [
        f"skipped {folder}: only {', '.join(SPLIT_OF_FOLDER)} become splits"
        for folder in sorted(motion.iterdir())
        if folder.is_dir() and folder.name not in SPLIT_OF_FOLDER
    ]
    wanted = [name for name, split in SPLIT_OF_FOLDER.items() if split in splits]
    if lidar is not None and not any((lidar / name).is_dir() for name in wanted):
        # One folder too deep would otherwise pass for "no scenario has LiDAR".
        raise FileNotFoundError(
            f"{lidar}: no folder {' or '.join(wanted)} in it; "
            "--lidar is the folder that holds training/SCENARIO_ID.tfrecord, ..."
        )
    if not lidar_root.is_dir():
        notes.append(f"no LiDAR files: {lidar_root} does not exist")
    done = {} if anew else {(sidecar.split, sidecar.index): sidecar for sidecar in read_sidecars(out)}
    for finished in done.values():
        refuse_other_settings(out, finished, settings)
    tasks: list[ShardTask] = []
    todo: list[ShardTask] = []
    for folder_name, split in SPLIT_OF_FOLDER.items():
        folder = motion / folder_name
        if split not in splits or not folder.is_dir():
            continue
        files, skipped = motion_shards(folder)
        notes += skipped + missing_motion_shards(folder, files)
        lidar_folder = lidar_root / folder_name
        lidar_files = {path.name for path in lidar_folder.iterdir()} if lidar_folder.is_dir() else set()
        if lidar_root.is_dir() and not lidar_files:
            notes.append(f"no LiDAR for {folder}: {lidar_folder} has no files")
        indices = shard_indices(files, {item.source: item.index for item in done.values() if item.split == split})
        for file, index in indices.items():
            task = ShardTask(
                source=file,
                split=split,
                index=index,
                out=out,
                lidar=lidar_folder if lidar_files else None,
                settings=settings,
            )
            tasks.append(task)
            sidecar = done.get((split, index))
            reason = "" if sidecar is None else reason_to_redo(task, sidecar, lidar_files)
            if reason:
                notes.append(f"{shard_name(split, index)} is made again: {reason}")
            if sidecar is None or reason:
                todo.append(task)
    if not tasks:
        folders = ", ".join(str(motion / name) for name in wanted)
        raise FileNotFoundError(f"no motion shard (*.tfrecord*) in {folders}; is the download finished?")
    return Plan(tasks=tuple(tasks), todo=tuple(todo), notes=tuple(notes))


def motion_shards(folder: Path) -> tuple[list[Path], list[str]]:
    """Motion shards of a folder in order, and notes on files that only look like some (unfinished downloads)."""
    # A link to a file that is gone counts as a shard: it cannot be made, and that must be said.
    files = [path for path in sorted(folder.iterdir()) if "tfrecord" in path.name and not path.is_dir()]
    whole = [path for path in files if _MOTION_SHARD.fullmatch(path.name)]
    return whole, [f"skipped {path}: not a whole motion shard by its name" for path in files if path not in whole]


def missing_motion_shards(folder: Path, files: Sequence[Path]) -> list[str]:
    """A note on the motion shards of a folder that are not there, by the names (`...-00017-of-01000`) of those that are."""
    parts = [match for file in files if (match := _MOTION_SHARD.fullmatch(file.name)) and match["index"]]
    counts = {int(match["count"]) for match in parts}
    missing = sorted(set(range(max(counts, default=0))) - {int(match["index"]) for match in parts})
    if len(counts) != 1 or not missing:
        return []
    named = ", ".join(f"{index:05d}" for index in missing[:MOST_NAMED]) + (", ..." if len(missing) > MOST_NAMED else "")
    return [f"{folder}: {len(missing)} of its {max(counts)} motion shards are not there ({named}); they can be added later"]


def shard_indices(files: Sequence[Path], known: dict[str, int]) -> dict[Path, int]:
    """A number for every motion shard that never changes: that of its name, else the next that is free.

    Args:
        files: motion shards of one split.
        known: numbers given earlier, by file name.

    Raises:
        ValueError: more shards than TFDS can number with five digits.
    """
    chosen = {file: known[file.name] for file in files if file.name in known}
    taken = set(known.values())
    unnamed = []
    for file in files:
        match = _MOTION_SHARD.fullmatch(file.name)
        index = int(match["index"]) if match and match["index"] else MAX_SHARDS
        if file in chosen:
            continue
        if index < MAX_SHARDS and index not in taken:
            chosen[file] = index
            taken.add(index)
        else:
            unnamed.append(file)
    for file in unnamed:
        chosen[file] = max(taken, default=-1) + 1
        taken.add(chosen[file])
        if chosen[file] >= MAX_SHARDS:
            raise ValueError(f"{file}: shard number {chosen[file]} is above {MAX_SHARDS - 1}; use fewer, larger motion shards")
    return {file: chosen[file] for file in files}


def refuse_other_settings(out: Path, sidecar: Sidecar, settings: ShardSettings) -> None:
    """Shards of one dataset are all made alike.

    Raises:
        ValueError: this one was made with other settings; the message says which.
    """
    if sidecar.config_hash == settings.hash:
        return
    now = asdict(settings)
    names = sorted(now.keys() | sidecar.settings.keys())
    changed = [
        f"{name} {sidecar.settings.get(name)} there, {now.get(name)} now"
        for name in names
        if sidecar.settings.get(name) != now.get(name)
    ]
    raise ValueError(
        f"{out}: shard {sidecar.name} was made with another configuration ({'; '.join(changed)}); "
        "choose a new --out, or --overwrite to make everything again"
    )


def reason_to_redo(task: ShardTask, sidecar: Sidecar, lidar_files: Collection[str]) -> str:
    """Why a finished shard must be made again; empty if it must not.

    LiDAR files that were read well are not looked at again.
    """
    stat = task.source.stat()
    if (stat.st_size, stat.st_mtime_ns) != (sidecar.source_bytes, sidecar.source_mtime_ns):
        return f"{task.source.name} has changed"
    shard = task.out / sidecar.name
    if not shard.exists():
        return "its file is gone"
    if shard.stat().st_size != sidecar.num_bytes:
        return f"its file has {shard.stat().st_size} bytes, not the {sidecar.num_bytes} that were written"
    broken = {item["scenario_id"]: item for item in sidecar.quarantine if item["kind"] == "lidar"}
    for scene in sidecar.scenes:
        if scene.has_lidar or f"{scene.scenario_id}.tfrecord" not in lidar_files or task.lidar is None:
            continue
        before = broken.get(scene.scenario_id)
        now = (task.lidar / f"{scene.scenario_id}.tfrecord").stat()
        if before is None or [now.st_size, now.st_mtime_ns] != before["lidar_stat"]:
            return f"LiDAR of scenario {scene.scenario_id} has arrived"
    return ""
