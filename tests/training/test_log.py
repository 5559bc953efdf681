"""The two logs of a training: the lines of `log.jsonl` and TensorBoard's events, of a process that was killed too."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from tests.training.small import recipe, session
from training.log import TrainingLog
from training.sparsity import SparsityOptions


def scalars(run: Path) -> dict[tuple[int, str], float]:
    """What TensorBoard reads: every number by step and tag. A record is a length (8 bytes), 4 bytes, the event, 4 bytes."""
    found: dict[tuple[int, str], float] = {}
    for path in sorted((run / "tensorboard").iterdir()):
        content, start = path.read_bytes(), 0
        while start + 12 <= len(content):
            (size,) = struct.unpack_from("<Q", content, start)
            if start + size + 16 > len(content):
                break  # half written
            event = Event.FromString(content[start + 12 : start + 12 + size])
            start += size + 16
            found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
    return found


def test_what_was_written_reaches_the_disk_before_the_files_are_closed(tmp_path: Path) -> None:
    expected = {(1, "train/loss"): 2.5, (10, "validation/minADE"): 1.25}
    with TrainingLog(tmp_path) as log:
        log.write(1, "train", {"loss": 2.5})
        log.write(10, "validation", {"minADE": 1.25})
        give_up = time.monotonic() + 40
        while scalars(tmp_path) != expected and time.monotonic() < give_up:
            time.sleep(0.1)
        assert scalars(tmp_path) == expected


def test_tensorboard_has_every_number_of_the_log(tmp_path: Path) -> None:
    wanted = SparsityOptions(method="set", density=0.3, every=2)
    session(tmp_path, recipe(steps=4, sparsity=wanted)).run()
    found, told = scalars(tmp_path), {}
    for line in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines()):
        step, kind = line.pop("step"), line.pop("kind")
        told |= {(step, f"{kind}/{key}"): value for key, value in line.items()}
    assert found == {key: pytest.approx(value, rel=1e-6) for key, value in told.items()}
    names = {name for _, name in found if name.startswith("train/sparse_") or "flops" in name}
    assert names == {
        "train/sparse_density", "train/sparse_exploration", "train/sparse_updates", "train/sparse_churn",
        "train/dense_flops_per_agent", "train/sparse_flops_per_agent",
    }  # fmt: skip
