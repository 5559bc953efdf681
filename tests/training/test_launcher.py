"""Processes that torchrun starts, and starts again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.multiprocessing
from torch.distributed import TCPStore

from training.distributed import process_group
from training.launcher import note_launchers, was_begun_by

LIMIT_S = 150


def meet_twice(rank: int, port: int, folder: str) -> None:
    """Join as two attempts of a launcher do, whose store lives on; the second time rank 1 comes late."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost",
                   "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}  # fmt: skip
    for attempt in range(2):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(attempt)
        if rank and attempt:
            time.sleep(2.0)
        with process_group("cpu", 60.0) as ranks:
            total = ranks.total([rank + 10.0 * attempt])
        (Path(folder) / f"{rank}-{attempt}.txt").write_text(f"{total[0]:g}")


@pytest.mark.timeout(LIMIT_S + 30)
def test_ranks_that_are_started_again_do_not_look_for_those_that_died(tmp_path: Path) -> None:
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=meet_twice, args=(rank, store.port, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    end = time.monotonic() + LIMIT_S
    for process in processes:
        process.join(timeout=max(end - time.monotonic(), 0))
        process.kill()
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"0-0.txt": "1", "1-0.txt": "1", "0-1.txt": "21", "1-1.txt": "21"}


def test_a_run_folder_knows_again_any_of_the_launchers_that_trained_there(tmp_path: Path) -> None:
    assert not was_begun_by(tmp_path, ["a"])
    note_launchers(tmp_path, ["a", "a", "b"])
    assert was_begun_by(tmp_path, ["c", "b"])
    assert not was_begun_by(tmp_path, ["c"])


def test_the_name_of_a_launcher_is_the_same_for_its_processes_and_no_other_has_it(tmp_path: Path) -> None:
    def names(count: int) -> list[str]:
        """As children of one new process see it."""
        child = "from training.launcher import launcher_name; print(launcher_name())"
        code = f"import subprocess, sys\nfor _ in range({count}): subprocess.run([sys.executable, '-c', {child!r}], check=True)"
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()

    one, again = names(2)
    (other,) = names(1)
    assert one == again
    assert one != other
