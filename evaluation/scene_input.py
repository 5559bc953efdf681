"""Scenes to predict: from TFRecord files of scenarios (with LiDAR beside them or not) or from shards."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

from limtr.scene import NUM_FUTURE_STEPS, NUM_HISTORY_STEPS, Scene
from preprocessing.plan import SPLIT_OF_FOLDER, motion_shards
from preprocessing.preprocess_task import ShardSettings, add_lidar, find_lidar
from preprocessing.shards import SceneSource
from preprocessing.womd.scenario import parse_scenario, scenario_to_scene
from preprocessing.womd.tfrecord import iter_records

Report = Callable[[str], None]

_RECORD_FRAME_BYTES = 16
"""Length (8), its CRC (4) and the CRC of the data (4) around every record."""


def record_files(source: Path, split: str) -> list[Path]:
    """The motion TFRecord files that `source` stands for: itself, those in the folder, or those of the split below it.

    Raises:
        FileNotFoundError: there is none.
    """
    if source.is_file():
        return [source]
    if not source.exists():
        raise FileNotFoundError(f"--input {source}: no such file or folder")
    folder_of_split = {name: folder for folder, name in SPLIT_OF_FOLDER.items()}
    tried = [source, source / "scenario" / folder_of_split.get(split, split)]
    for folder in tried:
        files = motion_shards(folder)[0] if folder.is_dir() else []
        if files:
            return files
    raise FileNotFoundError(
        f"--input {source}: neither a dataset of shards (dataset_info.json) nor motion shards (*.tfrecord*) in "
        f"{' or '.join(map(str, tried))}"
    )


def lidar_folder(source: Path, split: str, lidar: Path | None) -> Path | None:
    """The folder with `<scenario_id>.tfrecord`: `lidar`, its split's folder, or the one that lies beside `source/scenario`.

    Raises:
        FileNotFoundError: `lidar` was given and is no folder.
    """
    if lidar is not None and not lidar.is_dir():
        raise FileNotFoundError(f"--lidar {lidar}: no such folder; it holds SCENARIO_ID.tfrecord files")
    folder_of_split = {name: folder for folder, name in SPLIT_OF_FOLDER.items()}.get(split, split)
    root = lidar if lidar is not None else source / "lidar"
    found = root / folder_of_split
    return found if found.is_dir() else lidar


def scenes_of_records(files: Iterable[Path], lidar: Path | None, *, with_lidar: bool, report: Report) -> Iterator[Scene]:
    """The scenes of motion files; what cannot be read is reported and its neighbours are kept.

    Args:
        files: TFRecord files of Scenario messages.
        lidar: folder with the LiDAR file of each scenario, for records that do not hold it themselves.
        with_lidar: whether points are wanted at all.
        report: gets a sentence per bad record.
    """
    for file in files:
        for index, data in iter_records(file, on_error=lambda error: report(str(error))):
            source = f"{file} record {index}"
            try:
                message = parse_scenario(data, source=source)
                scene = scenario_to_scene(message, source=source)
            except ValueError as error:
                report(str(error))
                continue
            try:
                scene = (
                    add_lidar(scene, message, find_lidar(lidar, scene.scenario_id), ShardSettings()) if with_lidar else scene
                )
            except (ValueError, OSError) as error:
                report(f"{error} (scenario {scene.scenario_id!r} is predicted without points)")
            yield scene


def count_records(file: Path) -> int:
    """How many records a TFRecord file says it has, by its lengths alone; for progress displays: nothing is checked."""
    count, offset, size = 0, 0, file.stat().st_size
    with file.open("rb") as handle:
        while offset + _RECORD_FRAME_BYTES <= size:
            handle.seek(offset)
            (length,) = struct.unpack("<Q", handle.read(8))
            offset += length + _RECORD_FRAME_BYTES
            count += 1
    return count


def open_scenes(
    source: Path, split: str, lidar: Path | None, *, with_lidar: bool, report: Report
) -> tuple[Iterable[Scene], int]:
    """Scenes of whatever `source` is, and how many records it seems to have.

    Raises:
        FileNotFoundError: there is nothing to read.
    """
    if (source / "dataset_info.json").exists():
        shards = SceneSource(source, split)
        return shards, len(shards)
    folder = lidar_folder(source, split, lidar) if with_lidar else None
    files = record_files(source, split)
    scenes = scenes_of_records(files, folder, with_lidar=with_lidar, report=report)
    return scenes, sum(count_records(file) for file in files)


def predictable_batches(scenes: Iterable[Scene], batch_size: int, report: Report) -> Iterator[list[Scene]]:
    """Scenes in batches of equal length in time; scenes that cannot be predicted or came before are reported and left out."""
    seen: set[str] = set()

    def usable() -> Iterator[Scene]:
        for scene in scenes:
            whole = scene.num_steps in (NUM_HISTORY_STEPS, NUM_HISTORY_STEPS + NUM_FUTURE_STEPS)
            if scene.scenario_id in seen:
                report(f"scenario {scene.scenario_id!r}: comes a second time and is left out; give every scenario once")
            elif not whole or scene.current_step != NUM_HISTORY_STEPS - 1:
                report(
                    f"scenario {scene.scenario_id!r}: must have {NUM_HISTORY_STEPS} or {NUM_HISTORY_STEPS + NUM_FUTURE_STEPS} "
                    f"steps with current step {NUM_HISTORY_STEPS - 1}, has {scene.num_steps} and {scene.current_step}"
                )
            else:
                seen.add(scene.scenario_id)
                yield scene

    for _, alike in groupby(usable(), key=lambda scene: scene.num_steps):
        batch: list[Scene] = []
        for scene in alike:
            batch.append(scene)
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
