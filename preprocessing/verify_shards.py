"""`limtr verify shards DIR`: is every shard there, whole and readable, and do all counts agree?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from limtr.files import read_json
from limtr.progress import progress
from limtr.run_report import write_report
from limtr.scene import Scene
from preprocessing.preprocess_report import duplicate_entries
from preprocessing.shard_codec import decode_scene
from preprocessing.shard_metadata import (
    DATASET_NAME,
    SPLITS,
    Sidecar,
    read_sidecar,
    shard_name,
    sidecar_folder,
    sidecar_path,
)
from preprocessing.shard_plot import plot_statistics
from preprocessing.shard_statistics import ShardStatistics, print_statistics
from preprocessing.shards import scene_entry

REMEDY = "delete that shard and its sidecar and run `limtr preprocess` again"
SHOWN_PROBLEMS = 20
PICTURE = "shards.png"


@dataclass(frozen=True, kw_only=True)
class VerifyShardsConfig:
    """Read every scene of a dataset and compare it with what sidecars and manifest say."""

    data: Positional[Path]
    """Dataset folder of `limtr preprocess`."""
    out: Path | None = None
    """Folder for report.json and the plot of the statistics; default: DATA/verify."""


def run(config: VerifyShardsConfig) -> int:
    """Print problems and statistics; 0 only if the dataset is whole.

    Raises:
        FileNotFoundError: no dataset there.
    """
    data = config.data
    if not (data / "dataset_info.json").exists() and not list(_shard_files(data)):
        raise FileNotFoundError(f"{data}: no dataset there; make one with `limtr preprocess --out {data}`")
    problems: list[str] = []
    sidecars = read_all_sidecars(data, problems)
    problems += manifest_problems(data, sidecars)
    problems += [entry["error"] for entry in duplicate_entries(sidecars)]
    statistics = {split: ShardStatistics() for split in SPLITS if any(item.split == split for item in sidecars)}
    with progress("verify shards", sum(item.rows for item in sidecars), "scenes") as advance:
        for sidecar in sidecars:
            for scene in read_scenes(data, sidecar, problems):
                statistics[sidecar.split].add(scene)
                advance(1, note=sidecar.name)
    print_statistics(statistics)
    out = config.out or data / "verify"
    out.mkdir(parents=True, exist_ok=True)
    picture = plot_statistics(statistics, out / PICTURE)
    results: Mapping[str, Any] = {
        "whole": not problems,
        "problems": problems,
        "shards": len(sidecars),
        "statistics": {split: item.report() for split, item in statistics.items()},
    }
    write_report(out, verb="verify shards", inputs=[data], config=config, seed=None, results=results)
    for problem in problems[:SHOWN_PROBLEMS]:
        print(f"FAIL {problem}")
    if len(problems) > SHOWN_PROBLEMS:
        print(f"and {len(problems) - SHOWN_PROBLEMS} more problems, all in {out / 'report.json'}")
    scenes = sum(len(item.agents) for item in statistics.values())
    verdict = "NOT WHOLE" if problems else "whole"
    print(f"{data}: {verdict}: {len(sidecars)} shards, {scenes} scenes read, {len(problems)} problems; plot in {picture}")
    return 1 if problems else 0


def read_all_sidecars(data: Path, problems: list[str]) -> list[Sidecar]:
    """The sound sidecars in the order of splits and shards; the others, and shards without one, become problems."""
    sidecars = []
    for path in sorted(sidecar_folder(data).glob(f"{DATASET_NAME}-*.json")):
        try:
            sidecar = read_sidecar(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        if sidecar.split not in SPLITS or sidecar_path(data, sidecar.split, sidecar.index) != path:
            problems.append(f"{path}: says that it is of shard {sidecar.index} of split {sidecar.split!r}; it was renamed")
            continue
        if len(sidecar.scenes) != sidecar.rows:
            problems.append(f"{path}: lists {len(sidecar.scenes)} scenes, says that there are {sidecar.rows}; {REMEDY}")
        sidecars.append(sidecar)
    named = {sidecar.name for sidecar in sidecars}
    for path in _shard_files(data):
        if path.name not in named:
            problems.append(f"{path}: has no sound sidecar, so it counts as unfinished; run `limtr preprocess` again")
    if len({sidecar.config_hash for sidecar in sidecars}) > 1:
        problems.append(f"{data}: shards were made with different settings; run `limtr preprocess --overwrite`")
    return sorted(sidecars, key=lambda sidecar: (SPLITS.index(sidecar.split), sidecar.index))


def manifest_problems(data: Path, sidecars: list[Sidecar]) -> list[str]:
    """Where dataset_info.json, which TFDS reads, says something else than the sidecars."""
    path = data / "dataset_info.json"
    if not path.exists():
        return [f"{path}: missing; run `limtr preprocess` again"]
    problems = []
    try:
        told = {item["name"]: [int(rows) for rows in item["shardLengths"]] for item in read_json(path).get("splits", ())}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{path}: not the manifest of a dataset ({error}); run `limtr preprocess` again"]
    for split in sorted({*told, *(sidecar.split for sidecar in sidecars)}):
        rows = {sidecar.index: sidecar.rows for sidecar in sidecars if sidecar.split == split}
        lengths = told.get(split, [])
        for index in range(max(len(lengths), *(number + 1 for number in rows), 0)):
            expected = lengths[index] if index < len(lengths) else 0
            if rows.get(index, 0) != expected:
                found = f"its sidecar {rows[index]}" if index in rows else "it has no sidecar"
                problems.append(f"{data / shard_name(split, index)}: the manifest says {expected} scenes, {found}; {REMEDY}")
    return problems


def read_scenes(data: Path, sidecar: Sidecar, problems: list[str]) -> Iterator[Scene]:
    """The readable scenes of one shard; whatever is not as its sidecar says becomes a problem."""
    from array_record.python.array_record_module import ArrayRecordReader

    path = data / sidecar.name
    if not path.exists():
        problems.append(f"{path}: missing, though its sidecar is there; delete the sidecar and run `limtr preprocess` again")
        return
    size = path.stat().st_size
    with path.open("rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    if size != sidecar.num_bytes:
        problems.append(f"{path}: has {size} bytes, its sidecar says {sidecar.num_bytes}; {REMEDY}")
    elif sha256 != sidecar.sha256:
        problems.append(f"{path}: wrong checksum (SHA-256 {sha256[:12]}..., expected {sidecar.sha256[:12]}...); {REMEDY}")
    try:
        reader = ArrayRecordReader(str(path))
        rows = reader.num_records()
    except RuntimeError as error:
        problems.append(f"{path}: cannot be opened ({error}); {REMEDY}")
        return
    try:
        if rows != sidecar.rows:
            problems.append(f"{path}: holds {rows} scenes, its sidecar says {sidecar.rows}; {REMEDY}")
        record_bytes = 0
        for row in range(rows):
            try:
                (record,) = reader.read([row])
                record_bytes += len(record)
                scene = decode_scene(record)
            except Exception as error:  # array_record, protobuf, NumPy and our own checks each have errors of their own
                problems.append(f"{path} scene {row}: cannot be read ({type(error).__name__}: {error}); {REMEDY}")
                continue
            if row < len(sidecar.scenes) and scene_entry(scene, row) != sidecar.scenes[row]:
                problems.append(f"{path} scene {row} ({scene.scenario_id}): is not as its sidecar lists it; {REMEDY}")
            yield scene
        if record_bytes != sidecar.record_bytes:
            problems.append(f"{path}: its scenes have {record_bytes} bytes, its sidecar says {sidecar.record_bytes}; {REMEDY}")
    finally:
        with suppress(RuntimeError):  # a damaged file, which is a problem already
            reader.close()


def _shard_files(data: Path) -> Iterator[Path]:
    return (path for path in sorted(data.glob(f"{DATASET_NAME}-*.array_record-*")) if path.is_file())
