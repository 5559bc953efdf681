"""Small WOMD records in the official layout, for the tests of the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.womd import schema
from preprocessing.womd.tfrecord import iter_records, write_records

LIDAR_GOLDEN = Path(__file__).parents[1] / "golden" / "lidar" / "crops_golden.tfrecord"


def scenario(
    scenario_id: str, *, num_steps: int = 91, types: Sequence[int] = (1, 2, 3, 1), targets: Sequence[int] = (0, 1, 2)
) -> Any:
    """A Scenario message of tracks that drive straight on; the last one is the recording vehicle."""
    rng = np.random.default_rng(int.from_bytes(scenario_id.encode()[-4:], "big"))
    message = schema.Scenario(scenario_id=scenario_id, current_time_index=10, sdc_track_index=len(types) - 1)
    message.timestamps_seconds.extend(np.arange(num_steps) * 0.1)
    for row, kind in enumerate(types):
        track = message.tracks.add(id=100 + row, object_type=kind)
        start, speed, heading = rng.uniform(-30, 30, 2), rng.uniform(0, 8), rng.uniform(-3, 3)
        for step in range(num_steps):
            x, y = start + 0.1 * step * speed * np.array([np.cos(heading), np.sin(heading)])
            track.states.add(
                center_x=x + 5000.0, center_y=y, center_z=1.0, length=4.5, width=1.9, height=1.6, heading=heading,
                velocity_x=speed * np.cos(heading), velocity_y=speed * np.sin(heading), valid=True,
            )  # fmt: skip
    for row in targets:
        message.tracks_to_predict.add(track_index=row)
    lane = message.map_features.add(id=7).lane
    for metres in range(40):
        lane.polyline.add(x=5000.0 + 0.5 * metres, y=0.0, z=0.0)
    return message


@cache
def golden_record() -> bytes:
    """A Scenario with its LiDAR in the same record: 11 frames, 5 tracks to predict."""
    return bytes(next(data for _, data in iter_records(LIDAR_GOLDEN)))


def with_lidar_apart() -> tuple[Any, Any]:
    """That scenario as the official files have it: the motion record, and the record of its LiDAR file."""
    whole = schema.Scenario.FromString(golden_record())
    lidar = schema.Scenario(scenario_id=whole.scenario_id)
    lidar.compressed_frame_laser_data.extend(whole.compressed_frame_laser_data)
    whole.ClearField("compressed_frame_laser_data")
    return whole, lidar


def write_shard(root: Path, split: str, index: int, of: int, messages: Sequence[Any]) -> Path:
    """A motion shard in `root/scenario/split`; messages are Scenario messages or bytes."""
    path = root / "scenario" / split / f"{split}.tfrecord-{index:05d}-of-{of:05d}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_records(path, [item if isinstance(item, bytes) else item.SerializeToString() for item in messages])
    return path


def write_lidar(root: Path, split: str, message: Any) -> Path:
    """The LiDAR file of a scenario in `root/lidar/split`."""
    path = root / "lidar" / split / f"{message.scenario_id}.tfrecord"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_records(path, [message.SerializeToString()])
    return path
