"""The output folder of the simulator: Waymo's layout, scene by scene, so that a stopped run goes on where it was."""

from __future__ import annotations

import dataclasses
import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limtr.files import read_json, write_bytes, write_json
from preprocessing.synthetic.synthesis_report import SceneStats
from preprocessing.womd.tfrecord import write_records

_STATE = ".synthesize"


@dataclass(frozen=True, kw_only=True)
class ScenePlace:
    """Where a scene's records go."""

    scenario_id: str
    split: str
    """training, validation or testing"""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One motion file and its scenes in order."""

    name: str
    split: str
    scenes: tuple[ScenePlace, ...]


@dataclass(frozen=True)
class OutputFolder:
    """`scenario/<split>/<split>.tfrecord-00000-of-0000N`, `lidar/<split>/<scenario_id>.tfrecord` and our own state.

    A scene's motion record waits in the state folder until its shard is complete.
    """

    root: Path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other run out of the folder: two would take each other's finished scenes away.

        Raises:
            ValueError: another run is at work here, or the folder holds records that are not ours.
        """
        self._refuse_other_records()
        path = self.root / _STATE / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"another limtr synthesize is writing to {self.root}; wait until it ends, or choose another --out"
                ) from error
            yield

    def claim(self, configuration: Mapping[str, Any]) -> None:
        """Take the folder for this configuration, or go on in one that was taken for the same.

        Raises:
            ValueError: the folder holds scenes of another configuration.
        """
        path = self.root / _STATE / "config.json"
        wanted = json.loads(json.dumps(configuration))
        if path.exists():
            found = read_json(path)
            different = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
            if different:
                told = ", ".join(f"{name}: {found.get(name)} there, {wanted.get(name)} asked for" for name in different)
                raise ValueError(
                    f"{self.root} holds scenes of another configuration ({told}); choose another --out, or remove the folder"
                )
            return
        write_json(path, wanted)

    def _refuse_other_records(self) -> None:
        if (self.root / _STATE / "config.json").exists():
            return
        for name in ("scenario", "lidar"):
            if (self.root / name).exists():
                raise ValueError(
                    f"{self.root / name} exists, but limtr synthesize did not write it; choose another --out: "
                    "simulated and other records are never mixed"
                )

    def lidar_path(self, place: ScenePlace) -> Path:
        """The LiDAR file of a scene."""
        return self.root / "lidar" / place.split / f"{place.scenario_id}.tfrecord"

    def shard_path(self, shard: Shard) -> Path:
        """A motion file."""
        return self.root / "scenario" / shard.split / shard.name

    def write_scene(self, place: ScenePlace, *, motion: bytes, lidar: bytes) -> None:
        """Write a scene's LiDAR file and keep its motion record for the shard."""
        write_bytes(self._motion_path(place), motion)
        write_records(self.lidar_path(place), [lidar])

    def write_stats(self, place: ScenePlace, stats: SceneStats) -> None:
        """Keep a scene's statistics: from then on the scene counts as done."""
        write_json(self._stats_path(place), dataclasses.asdict(stats))

    def read_stats(self, places: Iterable[ScenePlace]) -> list[SceneStats]:
        """The statistics of finished scenes."""
        return [SceneStats.from_json(read_json(self._stats_path(place))) for place in places]

    def missing(self, shard: Shard) -> list[ScenePlace]:
        """The scenes of a shard that have to be made."""
        has_shard = self.shard_path(shard).exists()
        return [
            place
            for place in shard.scenes
            if not (
                self.lidar_path(place).exists()
                and self._stats_path(place).exists()
                and (has_shard or self._motion_path(place).exists())
            )
        ]

    def finish(self, shard: Shard) -> None:
        """Write a shard from its scenes' motion records, unless it is there and none of them is newer."""
        path = self.shard_path(shard)
        parts = [self._motion_path(place) for place in shard.scenes]
        if not path.exists():
            write_records(path, (part.read_bytes() for part in parts))
        for part in parts:
            part.unlink(missing_ok=True)

    def _motion_path(self, place: ScenePlace) -> Path:
        return self.root / _STATE / place.split / f"{place.scenario_id}.motion"

    def _stats_path(self, place: ScenePlace) -> Path:
        return self.root / _STATE / place.split / f"{place.scenario_id}.json"


def plan_shards(split: str, scenario_ids: Sequence[str], scenes_per_shard: int) -> list[Shard]:
    """Spread a split's scenes evenly over as few shards as hold them."""
    count = -(-len(scenario_ids) // scenes_per_shard)
    shards = []
    for number in range(count):
        ids = scenario_ids[number * len(scenario_ids) // count : (number + 1) * len(scenario_ids) // count]
        places = tuple(ScenePlace(scenario_id=name, split=split) for name in ids)
        shards.append(Shard(name=f"{split}.tfrecord-{number:05d}-of-{count:05d}", split=split, scenes=places))
    return shards
