"""report.json: what a verb read, with which versions, seed and configuration, and what came out."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

from limtr.files import write_json

REPORTED_PACKAGES = ("torch", "numpy", "ray", "tensorflow-datasets", "array_record", "open3d-cpu", "open3d", "protobuf",
                     "scikit-learn", "pyarrow")  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions of Python, this project and the packages that shape its results; absent ones are left out."""
    versions = {"python": platform.python_version()}
    for name in ("limtr", *REPORTED_PACKAGES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def as_plain(value: Any) -> Any:
    """Dataclasses, enums, paths, tuples and NumPy scalars as what JSON can hold; NaN becomes None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(as_plain(key)): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return as_plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def write_report(
    folder: Path, *, verb: str, inputs: Sequence[Path | str], config: Any, seed: int | None, results: Mapping[str, Any]
) -> Path:
    """Write `folder/report.json` and return its path. `config` is the verb's resolved configuration dataclass."""
    path = folder / "report.json"
    content = {
        "verb": verb,
        "inputs": [str(item) for item in inputs],
        "versions": package_versions(),
        "seed": seed,
        "config": as_plain(config),
        "results": as_plain(results),
    }
    write_json(path, content)
    return path
