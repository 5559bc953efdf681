"""Two trainings never write to one run folder; a lock ends with the process that held it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training.run_lock import sole_writer

HOLD = """
import sys, time
from pathlib import Path
from training.run_lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_writer_is_refused_by_the_name_of_the_first_until_that_one_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(ValueError, match=rf"process {holder.pid} on .* trains into it: .*another --out"),
        sole_writer(tmp_path, wait_s=0.2),
    ):
        pytest.fail("two writers")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with sole_writer(tmp_path, wait_s=5):
        assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {os.uname().nodename}\n"
    with sole_writer(tmp_path, wait_s=0):
        """It was given back."""


def test_a_file_system_without_locks_warns_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="no locks; start no second training"), sole_writer(tmp_path):
        assert (tmp_path / ".lock").exists()
