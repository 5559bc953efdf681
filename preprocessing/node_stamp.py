"""What a machine must share with the one that starts a run, so that the shards do not depend on where they were made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import limtr
import preprocessing
from limtr.run_report import package_versions

COMPARED = ("python", "limtr", "ray", "numpy", "protobuf", "tensorflow-datasets", "array_record")
CODE = "limtr's code"


@cache
def node_stamp() -> dict[str, str]:
    """Versions of all that shapes a shard on this machine, and a hash of our own code: a version number may hide a change."""
    installed = package_versions()
    digest = hashlib.sha256()
    for room in (limtr, preprocessing):
        folder = Path(room.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{room.__name__}/{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return {name: installed.get(name, "not installed") for name in COMPARED} | {CODE: digest.hexdigest()[:12]}


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What differs, as `numpy 2.1 there, 2.4 here; ...`; empty if nothing does."""
    return "; ".join(
        f"{name} {there.get(name, 'unknown')} there, {here[name]} here" for name in here if there.get(name) != here[name]
    )
