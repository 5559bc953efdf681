"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed, on failure it is removed.

    Raises:
        OSError: as the file system says it (a full disk, no permission); `path` is then as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Machines that share a folder may have processes of the same number.
    temporary = path.with_name(f".{path.name}.tmp.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk does not say which
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON in one step; NaN and infinities are refused."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        ValueError: the file is no JSON; the message names it.
    """
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not a JSON file ({error}); remove it or write it again") from error


def path_inside(folder: Path, name: str) -> Path:
    """`folder / name` for a name that came from data.

    Raises:
        ValueError: the name would leave `folder`.
    """
    root = folder.resolve()
    if not name or "\0" in name or root not in (root / name).resolve().parents:
        raise ValueError(f"{name!r} is not a name inside {folder}: names from data may not leave the output folder")
    return (root / name).resolve()
