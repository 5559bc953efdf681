"""One run at a time in an output folder, over machines that share it; what a dead run left behind blocks nobody for long.

The file `.lock` in the folder is held in two ways. The operating system's file lock says for certain whether a run of this
machine lives, and of other machines where the file system passes such locks on. For the others, a run writes a growing number
into the file: where it stands still for `STALE_S`, measured on the watcher's own clock, the run is dead. Whoever publishes a
shard looks first whether its run still holds the folder (`require_held`), so that a worker of a run that was given up for
dead cannot write into the folder of the next.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

LOCK_NAME = ".lock"
BEAT_S = 4.0
"""How often a run shows that it lives."""
STALE_S = 30.0
"""A run of another machine that shows nothing for so long is dead."""
_SETTLE_S = 2.0
_POLL_S = 0.25
_LINE_BYTES = 512
_NO_FILE_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class LockLostError(OSError):
    """Another run took the folder over, because this one was thought dead."""


@contextmanager
def only_run(out: Path, *, stale_s: float = STALE_S) -> Iterator[str]:
    """While the block runs, no other run may write into the folder; yields the token that `require_held` asks for.

    Args:
        out: the output folder.
        stale_s: how long a run of another machine must show no life to be taken for dead.

    Raises:
        ValueError: another run is writing there; the message says who.
        OSError: the folder cannot be written.
    """
    token = secrets.token_hex(8)
    handle = _acquire(out, token, stale_s)
    stopped = threading.Event()
    beats = threading.Thread(target=_beat, args=(out, handle, token, stopped), daemon=True)
    beats.start()
    try:
        yield token
    finally:
        stopped.set()
        beats.join()
        if holds(out, token):
            (out / LOCK_NAME).unlink(missing_ok=True)
        os.close(handle)


def holds(out: Path, token: str) -> bool:
    """Whether the run with this token still has the folder, as the shared file system says."""
    holder = _read(out)
    return holder is not None and holder.get("token") == token


def require_held(out: Path, token: str) -> None:
    """Return if the run with this token still has the folder; without a token, nobody asks.

    Raises:
        LockLostError: it has not, or this machine does not see that folder.
    """
    if token and not holds(out, token):
        raise LockLostError(
            f"{out} as {socket.gethostname()} sees it: the lock of this run is not there, so nothing is written; either "
            "the run was thought dead and another one took the folder over, or this machine has another folder under that name"
        )


def _acquire(out: Path, token: str, stale_s: float) -> int:
    path = out / LOCK_NAME
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}: the output folder must be writable, here and on all machines",
                str(out),
            ) from error
        try:
            locked = _try_lock(handle)
            if not _is(handle, path):  # its holder has just finished and removed it
                os.close(handle)
                continue
            holder = _read(out)
            certain = locked is not None and (holder is None or holder.get("machine") == _machine())
            if locked is False and certain:
                raise ValueError(f"{out}: another `limtr preprocess` is writing there ({_who(holder)}); wait for it or end it")
            if holder is not None and not certain:
                _require_dead(out, holder, stale_s)
            if holder is not None:
                print(f"{out}: the run before ({_who(holder)}) died; its finished shards are kept")
            if locked is False:  # held by a machine that is gone: the file system may free it late or never
                replaced, handle = handle, _replace(path)
                os.close(replaced)
            _write(handle, token, 0)
            if holder is not None and not certain:
                time.sleep(_SETTLE_S)  # another machine may have come to the same conclusion
                if not holds(out, token):
                    raise ValueError(f"{out}: another `limtr preprocess` has just begun ({_who(_read(out))}); wait for it")
            return handle
        except BaseException:
            os.close(handle)
            raise


def _require_dead(out: Path, holder: dict[str, Any], stale_s: float) -> None:
    """Watch the lock of a run on another machine.

    Raises:
        ValueError: that run lives.
    """
    print(f"{out} is locked by {_who(holder)}; watching for {stale_s:g} s whether that run lives ...", flush=True)
    end = time.monotonic() + stale_s
    while time.monotonic() < end:
        time.sleep(_POLL_S)
        if _read(out) not in (holder, None):
            raise ValueError(f"{out}: another `limtr preprocess` is writing there ({_who(holder)}); wait for it or end it")


def _beat(out: Path, handle: int, token: str, stopped: threading.Event) -> None:
    count = 0
    while not stopped.wait(BEAT_S) and holds(out, token):
        count += 1
        try:
            _write(handle, token, count)
        except OSError:
            continue  # a disk in trouble: the shards say it better, and the next beat tries again


def _try_lock(handle: int) -> bool | None:
    """The operating system's lock; None where the file system has none."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_FILE_LOCKS:
            return None
        raise
    return True


def _replace(path: Path) -> int:
    temporary = path.with_name(f"{path.name}.tmp.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    _try_lock(handle)
    os.replace(temporary, path)
    return handle


def _is(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _write(handle: int, token: str, beat: int) -> None:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    content = {"token": token, "beat": beat, "host": socket.gethostname(), "pid": os.getpid(), "machine": _machine()}
    line = json.dumps({**content, "beat_at": since}, sort_keys=True).ljust(_LINE_BYTES - 1) + "\n"
    os.pwrite(handle, line.encode(), 0)
    os.fsync(handle)


def _read(out: Path) -> dict[str, Any] | None:
    """What the holder wrote; None for nobody (or for a holder that is just writing its first line)."""
    try:
        value = json.loads((out / LOCK_NAME).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _who(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "it is just starting"
    return f"process {holder.get('pid')} on {holder.get('host')}, last sign of life {holder.get('beat_at')}"


def _machine() -> str:
    """The running system: containers of one kernel share its file locks, a restarted machine is another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{socket.gethostname()}-{uuid.getnode():x}"
