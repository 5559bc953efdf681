"""Whatever dies, a training of two ranks goes on from its newest checkpoint and ends where an undisturbed one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from limtr.intentions import save_intentions
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset
from tests.training.small import assert_same_tensors, small_intentions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 20
LIMIT_S = 420.0
LAUNCHERS = ["torchrun", "ray"]
Start = Callable[..., "Training"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    scenes = [tiny_scene(seed, num_tracks=4, num_targets=2) for seed in range(14)]
    write_dataset(folder, {"train": scenes[:12], "validation": scenes[12:]})
    save_intentions(folder, small_intentions(16))
    return folder


class Training:
    """`limtr train` with two ranks, as a process that can be disturbed."""

    def __init__(self, launcher: str, data: Path, run: Path, *options: str, restarts: int = 3) -> None:
        self.launcher, self.run = launcher, run
        begin = [sys.executable, "-m"]
        if launcher == "torchrun":
            begin += ["torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", str(restarts), "--monitor-interval",
                      "0.1", "--rdzv-endpoint", "localhost:0", "--rdzv-backend", "c10d", "-m"]  # fmt: skip
        else:
            options = (*options, "--num-workers", "2", "--max-failures", str(restarts))
        command = [*begin, "limtr.cli", "train", "--data", str(data), "--out", str(run), "--steps", str(STEPS), "--batch-size",
                   "4", "--validate-every", "0", "--checkpoint-every-s", "0", "--learning-rate", "1e-4", *options]  # fmt: skip
        self.output = run.with_suffix(".txt")
        with self.output.open("ab") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
        self.everything: dict[int, psutil.Process] = {}

    def step(self) -> int:
        """Of the newest checkpoint; 0 before the first."""
        pointer = self.run / "checkpoints" / "latest.txt"
        return int(pointer.read_text().strip().removeprefix("step-")) if pointer.is_file() else 0

    def wait_for_step(self, step: int) -> None:
        end = time.monotonic() + LIMIT_S
        while self.step() < step:
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.02)

    def ranks(self) -> list[psutil.Process]:
        """The processes that train."""
        mark = "ray::RayTrainWorker" if self.launcher == "ray" else "limtr.cli"
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            self.everything[process.pid] = process
            try:
                if any(mark in word for word in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def end(self) -> int:
        """Wait for the end; the exit status."""
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"no end within {LIMIT_S:g} s: {self.said()}")

    def clear_away(self) -> None:
        """Leave no process behind, however the test ended."""
        if self.process.poll() is None:
            self.ranks()
            self.process.kill()
            self.process.wait()
        for process in self.everything.values():
            if process.is_running():
                process.kill()

    def said(self) -> str:
        return self.output.read_bytes().replace(b"\0", b"").decode(errors="replace")


@contextmanager
def training(*arguments: Any, **options: Any) -> Iterator[Training]:
    begun = Training(*arguments, **options)
    try:
        yield begun
    finally:
        begun.clear_away()


def newest(run: Path) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / (run / "checkpoints" / "latest.txt").read_text().strip()
    # NumPy's global generator, which nothing draws from, starts as the launcher leaves it.
    return {name: value for name, value in load_file(folder / "training_state.safetensors").items() if "numpy" not in name}


def losses(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("step", "loss", "grad_norm")} for line in lines if line["kind"] == "train"]


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    with training("torchrun", data, run) as whole:
        assert whole.end() == 0, whole.said()
    return run


def assert_ended_alike(run: Path, undisturbed: Path) -> None:
    assert_same_tensors(newest(run), newest(undisturbed))
    assert losses(run) == losses(undisturbed)
    assert not list((run / "checkpoints").glob(".step-*"))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_rank_that_is_killed_is_started_again_and_nothing_differs(
    launcher: str, data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with training(launcher, data, tmp_path / "run") as disturbed:
        disturbed.wait_for_step(4)
        disturbed.ranks()[-1].kill()
        assert disturbed.end() == 0, disturbed.said()
        assert "going on from" in disturbed.said()
    assert_ended_alike(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_driver_that_is_killed_is_started_again_and_nothing_differs(
    launcher: str, data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with training(launcher, data, tmp_path / "run") as disturbed:
        disturbed.wait_for_step(4)
        disturbed.ranks()
        disturbed.process.kill()
        disturbed.process.wait()
        # At once, while ranks without a driver may still be writing.
        with training(launcher, data, tmp_path / "run", "--resume") as following:
            assert following.end() == 0, following.said()
            assert "going on from" in following.said()
    assert_ended_alike(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["preempted", "Ctrl-C"])
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_training_that_is_told_to_end_saves_its_step_and_goes_on(
    launcher: str, number: signal.Signals, data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with training(launcher, data, tmp_path / "run", "--checkpoint-every-s", "1000") as disturbed:
        began = time.monotonic()
        while not (tmp_path / "run" / "log.jsonl").exists() or not losses(tmp_path / "run"):
            assert time.monotonic() < began + LIMIT_S, disturbed.said()
            time.sleep(0.02)
        disturbed.process.send_signal(number)
        status = disturbed.end()
        assert status == 130 if launcher == "ray" else status != 0, disturbed.said()
        assert f"interrupted after step {disturbed.step()}" in disturbed.said()
        assert 0 < disturbed.step() < STEPS
    with training(launcher, data, tmp_path / "run", "--resume") as following:
        assert following.end() == 0, following.said()
    assert_ended_alike(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_rank_that_hangs_ends_the_training_with_the_reason_and_the_remedy(launcher: str, data: Path, tmp_path: Path) -> None:
    with training(launcher, data, tmp_path / "run", "--rank-timeout-s", "10", restarts=0) as disturbed:
        disturbed.wait_for_step(2)
        disturbed.ranks()[-1].suspend()
        assert disturbed.end() not in (0, 130), disturbed.said()
        said = " ".join(disturbed.said().split())
        assert "of 2 lost the others at step" in said
        assert "within 10 s (--rank-timeout-s)" in said
        assert "start again with --resume" in said
        assert disturbed.step() >= 2


def test_a_machine_that_leaves_the_cluster_is_replaced_and_nothing_differs(
    data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    from ray.cluster_utils import Cluster

    store = 96 * 2**20
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": store})
    try:
        machines = [cluster.add_node(num_cpus=2, object_store_memory=store) for _ in range(2)]
        with training("ray", data, tmp_path / "run", "--ray-address", cluster.address) as disturbed:
            disturbed.wait_for_step(4)
            busy = [machine for machine in machines if trains(machine)]
            assert busy
            cluster.remove_node(busy[0], allow_graceful=False)
            assert disturbed.end() == 0, disturbed.said()
            assert "going on from" in disturbed.said()
    finally:
        cluster.shutdown()
    assert_ended_alike(tmp_path / "run", undisturbed)


def trains(machine: Any) -> bool:
    """Whether a rank runs on a node of a Ray cluster."""
    raylet = psutil.Process(machine.all_processes["raylet"][0].process.pid)
    return any("ray::RayTrainWorker" in word for child in raylet.children(recursive=True) for word in child.cmdline())
