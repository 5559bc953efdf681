"""The outside of a challenge submission: a gzipped tar of MotionChallengeSubmission messages, opened with every doubt named."""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from evaluation.submission_problems import Problems
from preprocessing.womd import schema

MAX_MESSAGE_BYTES = 2**31 - 1
"""protobuf reads no larger message."""
_CHUNK = 2**20
_SHARD = re.compile(r"(?P<base>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})")


def read_messages(path: Path, problems: Problems) -> Iterator[tuple[str, Any]]:
    """Name and `schema.MotionChallengeSubmission` of every sound file in the archive, one held at a time.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; make one with `limtr submit --predictions FILE.parquet --out {path}`")
    names: list[str] = []
    try:
        with gzip.open(path) as packed:
            with tarfile.open(fileobj=packed, mode="r|") as archive:
                for member in archive:
                    message = _read_member(archive, member, names, problems)
                    if message is not None:
                        yield member.name, message
            while packed.read(_CHUNK):  # gzip checks its sum at the very end
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        kind = _kind(path)
        what = f"the archive is no gzipped tar but {kind}" if kind else f"the archive cannot be read to its end ({error})"
        problems.reject(f"{what}: make it with tar czf, or `limtr submit`")
        return
    if not names:
        problems.reject("the archive holds no file; it must hold MotionChallengeSubmission messages")
    _check_names(names, problems)


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, names: list[str], problems: Problems) -> Any:
    """The message of one file; None if it is none, which is then among the problems."""
    if member.isdir():
        problems.remark("the archive holds folders; files alone are enough", member.name)
        return None
    if member.name in names:
        problems.reject("a file is in the archive twice", member.name)
        return None
    names.append(member.name)
    if not member.isfile():
        problems.reject("the archive holds what is no plain file", member.name)
        return None
    if member.size > MAX_MESSAGE_BYTES:
        problems.reject("a file is larger than the 2 GB that protobuf reads: make more shards", member.name)
        return None
    content = archive.extractfile(member)
    assert content is not None  # only for what is no file
    data = content.read()
    try:
        message = schema.MotionChallengeSubmission.FromString(data)
    except DecodeError:
        message = None
    if message is None or len(UnknownFieldSet(message)) or not message.ListFields():
        problems.reject("a file is no MotionChallengeSubmission", f"{member.name} ({len(data)} bytes)")
        return None
    return message


def _kind(path: Path) -> str:
    """What a file is that is no gzipped tar; empty if it looks like one."""
    with path.open("rb") as handle:
        start = handle.read(512)
    if not start:
        return "an empty file"
    if start.startswith(b"PK"):
        return "a zip file"
    if start[257:262] == b"ustar":
        return "a tar that is not gzipped"
    return "" if start.startswith(b"\x1f\x8b") else "something else"


def _check_names(names: list[str], problems: Problems) -> None:
    """Names like `x-00000-of-00002` must make one whole set."""
    found = [(name, match) for name in names if (match := _SHARD.fullmatch(name))]
    if not found:
        return
    sets = {(match["base"], int(match["count"])) for _, match in found}
    if len(sets) > 1 or len(found) < len(names):
        problems.reject("the names of the shards do not make one set", *sorted(names))
        return
    ((base, count),) = sets
    there = {int(match["index"]) for _, match in found}
    missing = [f"{base}-{index:05d}-of-{count:05d}" for index in range(count) if index not in there]
    if missing:
        problems.reject("shards are missing", *missing)
    beyond = [name for name, match in found if int(match["index"]) >= count]
    if beyond:
        problems.reject("shards are numbered beyond their count", *beyond)
