"""What lies beside the shards: names, sidecars (what is done, and an index of scenes), and TFDS's own metadata.

    DIR/limtr-train.array_record-00017        scenes of one motion shard
    DIR/sidecars/limtr-train-00017.json       written last: its existence says that the shard is whole
    DIR/dataset_info.json, DIR/features.json  TFDS's metadata, made from the sidecars

A shard keeps its index whatever else is preprocessed before or after; an index that does not exist yet is a shard of
length zero to TFDS, which never opens such a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from limtr.files import read_json, write_bytes

DATASET_NAME = "limtr"
FORMAT_VERSION = 1
"""Of the shard record; part of every shard's settings, so that shards of two formats never mix."""
DATASET_VERSION = f"{FORMAT_VERSION}.0.0"
"""For TFDS."""
SPLITS = ("train", "validation", "test")
FILENAME_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"
MAX_SHARDS = 99_999
"""TFDS writes five digits up to here; more would change the names of the shards that exist."""

_SIDECAR_NAME = re.compile(rf"{DATASET_NAME}-(?P<split>[a-z]+)-(?P<index>\d{{5}})\.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneEntry:
    """One scene in the index: what a training needs to choose scenes without reading them."""

    scenario_id: str
    row: int
    """Row in its shard."""
    target_types: tuple[int, ...]
    """(C,) `ObjectType` numbers of the tracks to predict."""
    target_valid: tuple[bool, ...]
    """(C,) whether the target is valid at the current step (others cannot be predicted)."""
    target_distance_m: tuple[float | None, ...]
    """(C,) horizontal distance to the recording vehicle at the current step; None where one of them is invalid."""
    num_lidar_points: int
    """Stored points of all targets; 0 without LiDAR."""
    has_lidar: bool
    empty_share: float | None
    """Share of valid target-frames without a point; None without LiDAR or without valid target-frames."""
    best_shift: int
    """Frame shift between boxes and LiDAR that catches most points; 0 without LiDAR."""


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What one preprocessed shard is: written after the shard, so that its existence means done."""

    split: str
    index: int
    rows: int
    num_bytes: int
    """Of the file, which array_record fills up to blocks of 64 KiB."""
    record_bytes: int
    """Of the scenes in it."""
    sha256: str
    config_hash: str
    settings: dict[str, Any]
    """What `config_hash` is the hash of."""
    source: str
    """Name of the motion shard it was made from."""
    source_bytes: int
    source_mtime_ns: int
    scenes: tuple[SceneEntry, ...]
    quarantine: tuple[dict[str, Any], ...] = ()
    """Bad records: kind, file, record, scenario_id, error."""

    @property
    def name(self) -> str:
        """File name of the shard."""
        return shard_name(self.split, self.index)


def shard_name(split: str, index: int) -> str:
    """File name of a shard: no number of shards in it, so that a partial download can grow."""
    return f"{DATASET_NAME}-{split}.array_record-{index:05d}"


def sidecar_folder(data_dir: Path) -> Path:
    """Where the sidecars of a dataset lie."""
    return data_dir / "sidecars"


def sidecar_path(data_dir: Path, split: str, index: int) -> Path:
    """Where the sidecar of a shard lies."""
    return sidecar_folder(data_dir) / f"{DATASET_NAME}-{split}-{index:05d}.json"


def write_sidecar(data_dir: Path, sidecar: Sidecar) -> None:
    """Declare the shard done, in one step."""
    columns = {item.name: [getattr(scene, item.name) for scene in sidecar.scenes] for item in fields(SceneEntry)}
    content = {**asdict(replace(sidecar, scenes=())), "scenes": columns}
    # By column and without indentation: all of WOMD has half a million scenes.
    data = json.dumps(content, sort_keys=True, allow_nan=False, separators=(",", ":")) + "\n"
    write_bytes(sidecar_path(data_dir, sidecar.split, sidecar.index), data.encode())


def read_sidecar(path: Path) -> Sidecar:
    """One sidecar.

    Raises:
        ValueError: the file is no sidecar, or one of another version; the message names it and the remedy.
    """
    value = read_json(path)
    settings = value.get("settings") if isinstance(value, dict) else None
    if isinstance(settings, dict) and "format_version" in settings:
        require_format(settings["format_version"], path)
    try:
        columns = value.pop("scenes")
        rows = zip(*columns.values(), strict=True)
        scenes = tuple(_scene_entry(dict(zip(columns, row, strict=True))) for row in rows)
        return Sidecar(scenes=scenes, quarantine=tuple(value.pop("quarantine")), **value)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a sidecar of this version ({error}); remove it and preprocess that shard again"
        ) from error


def require_format(found: Any, path: Path) -> None:
    """Return if shards of format `found`, as the file `path` names it, are those that this version writes and reads.

    Raises:
        ValueError: they are not; the message says what to do.
    """
    if str(found) != str(FORMAT_VERSION):
        raise ValueError(
            f"{path}: written by another version of limtr (shard format {found}, this version has {FORMAT_VERSION}); "
            "use that version, or make the shards again: `limtr preprocess` with a new --out, or with --overwrite"
        )


def _scene_entry(value: dict[str, Any]) -> SceneEntry:
    # JSON knows no tuples.
    immutable: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
    return SceneEntry(**immutable)


def read_sidecars(data_dir: Path, split: str | None = None) -> list[Sidecar]:
    """All sidecars of a dataset (of one split), in the order of splits and shards: the order of TFDS's data source."""
    found = []
    for path in sidecar_folder(data_dir).glob(f"{DATASET_NAME}-*.json"):
        match = _SIDECAR_NAME.fullmatch(path.name)
        if match and split in (None, match["split"]):
            found.append(read_sidecar(path))
    return sorted(found, key=lambda sidecar: (SPLITS.index(sidecar.split), sidecar.index))


def indexed_scenes(data_dir: Path, split: str) -> list[SceneEntry]:
    """The index of a split as the sidecars have it: entry i is scene i of the data source if all of them are there."""
    return [scene for sidecar in read_sidecars(data_dir, split) for scene in sidecar.scenes]


def data_fingerprint(data_dir: Path) -> str:
    """Hash of the content of all shards of a dataset: equal for equal data, whenever and wherever it was made.

    Raises:
        FileNotFoundError: no shard is finished there.
    """
    sidecars = read_sidecars(data_dir)
    if not sidecars:
        raise FileNotFoundError(f"{data_dir}: no finished shard there; make some with `limtr preprocess --out {data_dir}`")
    digest = hashlib.sha256()
    for sidecar in sidecars:
        digest.update(f"{sidecar.name} {sidecar.rows} {sidecar.sha256}\n".encode())
    return digest.hexdigest()[:16]


def write_dataset_metadata(data_dir: Path, sidecars: Sequence[Sidecar]) -> None:
    """Write TFDS's metadata for the given finished shards; splits without any scene are left out."""
    # Not tfds.folder_dataset.write_metadata: it refuses gaps in the shard numbers, and it writes in place.
    from tensorflow_datasets.core import dataset_info, file_adapters, naming, splits
    from tensorflow_datasets.core.utils import version

    from preprocessing.shard_codec import scene_features

    template = naming.ShardedFileTemplate(
        data_dir=data_dir, template=FILENAME_TEMPLATE, dataset_name=DATASET_NAME, filetype_suffix="array_record"
    )
    infos = []
    for split in SPLITS:
        rows = {item.index: item.rows for item in sidecars if item.split == split}
        if sum(rows.values()) == 0:
            continue
        infos.append(
            splits.SplitInfo(
                name=split,
                shard_lengths=[rows.get(index, 0) for index in range(max(rows) + 1)],
                num_bytes=sum(item.num_bytes for item in sidecars if item.split == split),
                filename_template=template,
            )
        )
    identity = dataset_info.DatasetIdentity(
        name=DATASET_NAME, version=version.Version(DATASET_VERSION), data_dir=str(data_dir), module_name=""
    )
    info = dataset_info.DatasetInfo(
        builder=identity,
        features=scene_features(),
        description="Motion prediction scenes: tracks, map, traffic lights and LiDAR points of the tracks to predict.",
    )
    info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    info.set_splits(splits.SplitDict(infos))
    scratch = Path(tempfile.mkdtemp(prefix=".metadata.tmp.", dir=data_dir))
    try:
        info.write_to_directory(scratch)
        for path in sorted(scratch.iterdir()):
            os.replace(path, data_dir / path.name)
    finally:
        shutil.rmtree(scratch)


def remove_unfinished(data_dir: Path) -> list[Path]:
    """Delete what an interrupted run left: temporary files, and shards without a sidecar. Returns what was deleted."""
    declared = [_SIDECAR_NAME.fullmatch(path.name) for path in sidecar_folder(data_dir).glob(f"{DATASET_NAME}-*.json")]
    keep = {shard_name(match["split"], int(match["index"])) for match in declared if match}
    stale = [path for path in data_dir.glob(".*.tmp.*") if path.is_file()]
    stale += sidecar_folder(data_dir).glob(".*.tmp.*")
    stale += [path for path in data_dir.glob(f"{DATASET_NAME}-*.array_record-*") if path.name not in keep]
    for path in stale:
        path.unlink(missing_ok=True)
    for folder in data_dir.glob(".metadata.tmp.*"):
        shutil.rmtree(folder)
        stale.append(folder)
    return stale


def remove_dataset(data_dir: Path) -> int:
    """Delete shards, sidecars and metadata of a dataset, and nothing else that lies there; returns how many files."""
    # Sidecars first: a shard without one counts as unfinished, so that an interruption here does no harm.
    doomed = list(sidecar_folder(data_dir).glob(f"{DATASET_NAME}-*.json"))
    doomed += [data_dir / name for name in ("dataset_info.json", "features.json") if (data_dir / name).exists()]
    doomed += data_dir.glob(f"{DATASET_NAME}-*.array_record-*")
    for path in doomed:
        path.unlink()
    return len(doomed)
