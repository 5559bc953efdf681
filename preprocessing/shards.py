"""Shards: scenes in array_record files that TFDS opens too. The writer, and the reader that training and evaluation use."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np

from limtr.files import atomic_path, read_json
from limtr.scene import Scene
from preprocessing.shard_codec import decode_scene, encode_scene, example_to_scene, scene_features, scene_to_example
from preprocessing.shard_metadata import (
    SPLITS,
    SceneEntry,
    data_fingerprint,
    indexed_scenes,
    read_sidecars,
    require_format,
    shard_name,
    write_dataset_metadata,
)

__all__ = [
    "SPLITS",
    "SceneEntry",
    "SceneSource",
    "ShardWriter",
    "data_fingerprint",
    "decode_scene",
    "encode_scene",
    "example_to_scene",
    "read_sidecars",
    "scene_features",
    "scene_index",
    "scene_to_example",
    "shard_name",
    "write_dataset_metadata",
]

WRITER_OPTIONS = "group_size:1,uncompressed"


class ShardWriter:
    """Writes scenes into one shard file: `with ShardWriter(path) as writer: writer.write(scene)`.

    The file appears under its name only when the block ends well, with `rows`, `record_bytes` (of the scenes), `num_bytes` (of
    the file) and `sha256` known then and `entries` the index of its scenes. `before_publishing` is called when all is on the
    disk; what it raises stops the file from appearing.

    Raises:
        SceneError: from `write`, for a scene that cannot be stored; the shard goes on without it.
        OSError: a full disk and other trouble of the file system; nothing is left behind.
    """

    def __init__(self, path: Path, before_publishing: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._before_publishing = before_publishing
        self.entries: list[SceneEntry] = []
        self.num_bytes = 0
        self.record_bytes = 0
        self.sha256 = ""
        self._file = atomic_path(path)
        self._temporary = path
        self._writer: Any = None

    @property
    def rows(self) -> int:
        """Scenes written."""
        return len(self.entries)

    def __enter__(self) -> ShardWriter:
        from array_record.python.array_record_module import ArrayRecordWriter

        self._temporary = self._file.__enter__()
        self._writer = ArrayRecordWriter(str(self._temporary), WRITER_OPTIONS)
        return self

    def write(self, scene: Scene) -> None:
        """Append one scene."""
        data = encode_scene(scene)
        self._call("write", data)
        self.record_bytes += len(data)
        self.entries.append(scene_entry(scene, self.rows))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            try:
                self._finish()
            except BaseException as failure:
                self._file.__exit__(type(failure), failure, failure.__traceback__)
                raise
        else:
            self._writer = None
        self._file.__exit__(kind, error, trace)

    def _finish(self) -> None:
        from array_record.python.array_record_module import ArrayRecordReader

        self._call("close")
        reader = ArrayRecordReader(str(self._temporary))
        found = reader.num_records()
        reader.close()
        if found != self.rows:
            raise OSError(errno.EIO, f"{found} of {self.rows} scenes can be read back", str(self.path))
        self.num_bytes = self._temporary.stat().st_size
        with self._temporary.open("rb") as handle:
            self.sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
            os.fsync(handle.fileno())
        self._before_publishing()

    def _call(self, method: str, *arguments: bytes) -> None:
        try:
            getattr(self._writer, method)(*arguments)
        except RuntimeError as error:
            # array_record speaks of the file system in RuntimeErrors.
            code = errno.ENOSPC if "No space left" in str(error) else errno.EIO
            raise OSError(code, f"{os.strerror(code)} while writing a shard ({error})", str(self.path)) from error


def scene_entry(scene: Scene, row: int) -> SceneEntry:
    """The index entry of a scene that is row `row` of its shard."""
    targets, current = scene.tracks_to_predict, scene.current_step
    valid = scene.track_valid[targets, current]
    sdc_known = scene.sdc_track >= 0 and bool(scene.track_valid[scene.sdc_track, current])
    distance: list[float | None] = [None] * len(targets)
    if sdc_known:
        offset = scene.track_states[targets, current, :2] - scene.track_states[scene.sdc_track, current, :2]
        metres = np.hypot(offset[:, 0], offset[:, 1])
        distance = [round(float(value), 3) if seen else None for value, seen in zip(metres, valid, strict=True)]
    lidar = scene.lidar
    share = lidar.empty_share if lidar else float("nan")
    return SceneEntry(
        scenario_id=scene.scenario_id,
        row=row,
        target_types=tuple(scene.track_type[targets].tolist()),
        target_valid=tuple(valid.tolist()),
        target_distance_m=tuple(distance),
        num_lidar_points=len(lidar.points_m) if lidar else 0,
        has_lidar=lidar is not None,
        empty_share=None if np.isnan(share) else float(share),
        best_shift=lidar.best_shift if lidar else 0,
    )


class SceneSource(Sequence[Scene]):
    """The scenes of one split, read from the shards one by one at random.

    Cheap to make, to copy and to send to another process: the files are opened on first use and once per process
    (array_record has threads of its own, which do not survive a fork).

    Args:
        data_dir: the dataset folder.
        split: one of `SPLITS`.
        lidar_points: read only so many points of every target and frame (the stored ones are shuffled); all by default.

    Raises:
        FileNotFoundError: no dataset there, or it has no such split.
        ValueError: another version of limtr wrote it.
    """

    def __init__(self, data_dir: Path | str, split: str, *, lidar_points: int | None = None) -> None:
        self.data_dir = Path(data_dir)
        self.lidar_points = lidar_points
        self.split = split
        info = self.data_dir / "dataset_info.json"
        if not info.exists():
            raise FileNotFoundError(f"{self.data_dir}: no dataset there (no {info.name}); make one with `limtr preprocess`")
        metadata = read_json(info)
        require_format(str(metadata.get("version")).partition(".")[0], info)
        lengths = {item["name"]: [int(rows) for rows in item["shardLengths"]] for item in metadata.get("splits", ())}
        if split not in lengths:
            raise FileNotFoundError(f"{self.data_dir}: no split {split!r}, only {sorted(lengths)}; preprocess it first")
        self._length = sum(lengths[split])
        self._opened: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> list[Scene]: ...
    def __getitem__(self, index: int | slice) -> Scene | list[Scene]:
        """Scene `index` of the split, checked (a slice gives a list).

        Raises:
            IndexError: there is no such scene.
            ValueError: the shard is damaged or gone; the message says where and what to do.
        """
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(self._length))]
        row = index + self._length if index < 0 else index
        if not 0 <= row < self._length:
            raise IndexError(f"{self.data_dir}: split {self.split!r} has {self._length} scenes, there is no scene {index}")
        try:
            data = self._examples().data_source[row]  # the bytes; what TFDS makes of them takes longer
        except RuntimeError as error:  # array_record's only kind of error: a wrong checksum, a missing file, ...
            raise ValueError(
                f"{self.data_dir}: scene {row} of split {self.split!r} cannot be read ({error}); "
                "delete that shard and run `limtr preprocess` again"
            ) from error
        return decode_scene(data, lidar_points=self.lidar_points)

    def __iter__(self) -> Iterator[Scene]:
        return (self[row] for row in range(self._length))

    def scenario_ids(self) -> tuple[str, ...]:
        """Ids of all scenes in order; from the sidecars, or from the records where those were left behind."""
        entries = indexed_scenes(self.data_dir, self.split)
        if len(entries) == self._length:
            return tuple(entry.scenario_id for entry in entries)
        return tuple(scene.scenario_id for scene in self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _examples(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            import tensorflow_datasets as tfds

            builder = tfds.builder_from_directory(str(self.data_dir))
            self._opened = (os.getpid(), builder.as_data_source(self.split))
        return self._opened[1]


def scene_index(data_dir: Path, split: str) -> list[SceneEntry]:
    """The index of a split: entry i is about scene i of its `SceneSource`.

    Raises:
        FileNotFoundError: no such dataset or split, or its sidecars do not belong to its shards.
    """
    entries, stored = indexed_scenes(data_dir, split), len(SceneSource(data_dir, split))
    if len(entries) != stored:
        raise FileNotFoundError(
            f"{data_dir}/sidecars: {len(entries)} scenes indexed, {stored} stored in split {split!r}; "
            "copy the whole folder, or run `limtr preprocess` again to mend it"
        )
    return entries
