"""A checkpoint appears whole or not at all, wherever the process that saves it is killed; a damaged one names the others."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

from limtr.predictor import MotionPredictor
from tests.training.small import recipe, session, small_model
from training.checkpoint import CheckpointStore, TrainingState

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


def saving(run: Path, step: int) -> tuple[CheckpointStore, MotionPredictor, TrainingState]:
    """A store that keeps one checkpoint, and what to save: every tensor tells the step."""
    part = session(run, recipe(steps=1))
    position = replace(part.trainer.position, step=step)
    state = TrainingState(
        position=position, recipe={}, data_fingerprint="", licence="", metrics={},
        tensors={"x": torch.full((1000,), float(step))}, optimizer_groups=[], random_state={},
    )  # fmt: skip
    return CheckpointStore(run, keep=1), small_model(), state


def save_in_child(run: Path, step: int, die_at: int | None) -> int:
    """Save in a child process that kills itself before its so manieth change of the run folder; how many there were."""
    store, model, state = saving(run, step)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            changes = event in CHANGES or (event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wax")
            if changes and str(run) in str(arguments[0]):
                if count == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        sys.addaudithook(watch)
        store.save(model, state)
        os.write(writing, bytes([count]))
        os._exit(0)
    os.close(writing)
    status = os.waitpid(child, 0)[1]
    said = os.read(reading, 1)
    os.close(reading)
    assert os.WIFSIGNALED(status) == (die_at is not None)
    return said[0] if said else 0


@pytest.mark.parametrize("step", [2, 1], ids=["the next step", "the same step again"])
def test_a_kill_anywhere_in_the_saving_leaves_a_whole_checkpoint(tmp_path: Path, step: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    store, model, state = saving(tmp_path / "first", 1)
    store.save(model, state)
    copytree(tmp_path / "first", tmp_path / "counted")
    changes = save_in_child(tmp_path / "counted", step, None)
    assert changes > 8
    found = set()
    for die_at in range(changes):
        run = tmp_path / str(die_at)
        copytree(tmp_path / "first", run)
        save_in_child(run, step, die_at)
        latest = CheckpointStore(run).latest()
        assert latest is not None, die_at
        left = CheckpointStore.load_state(latest)
        assert (left.tensors["x"] == float(left.position.step)).all()
        MotionPredictor.load(latest)
        found.add(left.position.step)
        store, model, state = saving(run, 3)
        store.save(model, state)
        assert [path.name for path in store.folder.iterdir() if path.is_dir()] == ["step-00000003"], die_at
    assert found == {1, step}
    torch.set_num_threads(before)


def test_a_flipped_bit_is_found_and_the_checkpoints_beside_it_are_named(tmp_path: Path) -> None:
    for step in (1, 2):
        store, model, state = saving(tmp_path, step)
        store.keep = 2
        store.save(model, state)
    path = tmp_path / "checkpoints" / "step-00000002" / "training_state.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"step-00000002 .*damaged .*checksum differs.*another one \(step-00000001\).*latest"):
        CheckpointStore.load_state(path.parent)


def test_where_nothing_else_is_left_a_damaged_checkpoint_says_so(tmp_path: Path) -> None:
    store, model, state = saving(tmp_path, 1)
    latest = store.save(model, state)
    (latest / "training_state.safetensors").unlink()
    with pytest.raises(ValueError, match="no other one beside it: begin anew"):
        CheckpointStore.load_state(latest)
