"""Intention points: where the motion queries of each class begin, as a small JSON file beside the shards.

A point is an end of a future in the frame of the agent at the current step: x forward, y left, metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from limtr.files import read_json, write_json
from limtr.scene import PREDICTED_TYPES, FloatArray, ObjectType

INTENTIONS_FILE = "intentions.json"


def check_intentions(points: Mapping[ObjectType, FloatArray], where: Path | str = "intention points") -> None:
    """Every predicted class has finite points (Q, 2), with one Q for all.

    Raises:
        ValueError: naming `where`, the class and the expectation.
    """
    for kind in PREDICTED_TYPES:
        if kind not in points:
            raise ValueError(f"{where}: class {kind.name} is missing; make the file again with `limtr intentions`")
        array = points[kind]
        if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] != 2 or not np.isfinite(array).all():
            raise ValueError(f"{where}: class {kind.name} must have finite points of shape (Q, 2), has shape {array.shape}")
    counts = {kind.name: len(points[kind]) for kind in PREDICTED_TYPES}
    if len(set(counts.values())) != 1:
        raise ValueError(f"{where}: every class must have the same number of points, has {counts}")


def save_intentions(
    path: Path,
    points: Mapping[ObjectType, FloatArray],
    *,
    seed: int | None = None,
    samples: Mapping[ObjectType, int] | None = None,
    data_fingerprint: str = "",
) -> Path:
    """Write the points of every class to `path` (a folder means `intentions.json` in it); returns the file's path.

    Args:
        path: file or folder.
        points: (Q, 2) per class.
        seed: of the clustering.
        samples: end points that each class was clustered from.
        data_fingerprint: of the shards they came from.

    Raises:
        ValueError: as `check_intentions`.
    """
    file = path / INTENTIONS_FILE if path.is_dir() else path
    check_intentions(points, file)
    content = {
        "clusters": len(points[PREDICTED_TYPES[0]]),
        "data_fingerprint": data_fingerprint,
        # Nine digits bring a float32 back exactly.
        "points_m": {kind.name: [[float(f"{value:.9g}") for value in row] for row in points[kind]] for kind in PREDICTED_TYPES},
        "samples": {kind.name: int((samples or {}).get(kind, 0)) for kind in PREDICTED_TYPES},
        "seed": seed,
    }
    write_json(file, content)
    return file


def load_intentions(path: Path | str) -> dict[ObjectType, FloatArray]:
    """The points (Q, 2) of every class from a file, or from `intentions.json` in a folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such list; the message names class and expectation.
    """
    file = Path(path) / INTENTIONS_FILE if Path(path).is_dir() else Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no intention points there; make them with `limtr intentions --data {file.parent}`")
    content = read_json(file)
    stored = content.get("points_m") if isinstance(content, dict) else None
    if not isinstance(stored, dict):
        raise ValueError(f"{file}: has no `points_m` by class; make the file again with `limtr intentions`")
    points: dict[ObjectType, FloatArray] = {}
    for kind in PREDICTED_TYPES:
        if kind.name in stored:
            try:
                points[kind] = np.array(stored[kind.name], dtype=np.float32)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{file}: class {kind.name} must be a list of [x, y] ({error})") from error
    check_intentions(points, file)
    return points
