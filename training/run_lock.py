"""One training at a time writes to a run folder: a lock that ends with the process that holds it, however that dies."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WAIT_S = 30.0
"""Ranks whose driver or launcher was killed write until they notice: so long the training that follows waits for them."""
LOCK_FILE = ".lock"


@contextmanager
def sole_writer(run: Path, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold the lock of a run folder inside the block; the folder is made.

    Args:
        run: the run folder.
        wait_s: how long to wait for another holder to end.

    Raises:
        ValueError: another training writes there; names its process.
        OSError: the folder cannot be written.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / LOCK_FILE).open("a+") as file:
        _acquire(file.fileno(), run, wait_s)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        yield


def _acquire(descriptor: int, run: Path, wait_s: float) -> None:
    end = time.monotonic() + wait_s
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = (run / LOCK_FILE).read_text().strip() or "another process"
            if time.monotonic() > end:
                raise ValueError(
                    f"{run}: {holder} trains into it: wait for its end, end it, or choose another --out"
                ) from error
            if not told:
                print(f"{run}: {holder} still writes to it; waiting at most {wait_s:g} s for its end", file=sys.stderr)
                told = True
            time.sleep(0.1)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            warnings.warn(f"{run}: this file system has no locks; start no second training into the folder", stacklevel=4)
            return
        else:
            return
