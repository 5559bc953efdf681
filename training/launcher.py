"""What torchrun (and its like) tells the processes that it starts, and which of its launches a run folder belongs to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from limtr.files import write_bytes

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun (and whoever starts processes as it does) tells each of them."""
NOTE = ".launchers"


def started_by_launcher() -> bool:
    """Whether torchrun (or its like) started this process as one of several, or as the one of a group of one."""
    return all(name in os.environ for name in LAUNCHER_VARIABLES)


def launcher_attempt() -> int:
    """How often torchrun has started these processes again after one of them died (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def launcher_name() -> str:
    """The process that started this one, by a name that no other has: machine, number, and where the system tells it, start."""
    parent = os.getppid()
    try:
        # Behind the program's name, which may hold anything; the 22nd field of all is the start, in ticks since the machine's.
        start = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (OSError, IndexError):
        start, machine = "", ""
    return f"{os.uname().nodename} {machine} {parent} {start}"


def note_launchers(run: Path, names: Sequence[str]) -> None:
    """Write into a run folder who trains there; by the one process that may write into it.

    Args:
        run: the run folder, which exists.
        names: `launcher_name` of every rank.
    """
    write_bytes(run / NOTE, "".join(f"{name}\n" for name in dict.fromkeys(names)).encode())


def was_begun_by(run: Path, names: Sequence[str]) -> bool:
    """Whether one of these launchers began, or went on with, what is in the run folder: machines may have left since."""
    try:
        noted = (run / NOTE).read_text().splitlines()
    except FileNotFoundError:
        return False
    return not set(noted).isdisjoint(names)
