"""Reading what the LiDAR `limtr verify` verbs compare: a golden .npz and the one record that it was made from."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.womd.scenario import parse_scenario
from preprocessing.womd.tfrecord import iter_records

Arrays = dict[str, npt.NDArray[Any]]
Float = npt.NDArray[np.float64]


def read_arrays(path: Path, known: re.Pattern[str], example: str) -> Arrays:
    """The arrays of a golden file whose names match `known` (such as `example`); others are named in a warning.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no .npz of plain arrays, or no name is known.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable .npz of plain arrays ({error})") from error
    others = sorted(name for name in arrays if not known.fullmatch(name))
    if len(others) == len(arrays):
        has = f"it has {others[:5]}: is it the golden file of another verb?"
        raise ValueError(f"{path}: no array has a name like {example!r}; {has}")
    if others:
        warnings.warn(f"{path}: not compared, no known names: {others[:5]}", stacklevel=2)
    return {name: arrays[name] for name in arrays if name not in others}


def vectors(arrays: Arrays, name: str, path: Path) -> Float:
    """The array of that name as (n, 3); an empty one of any shape is (0, 3).

    Raises:
        ValueError: it is missing, has another shape, or is not numeric.
    """
    if name not in arrays:
        raise ValueError(f"{path}: array {name!r} is missing; it must have shape (n, 3)")
    array = arrays[name]
    if not array.size:
        return np.zeros((0, 3))
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: array {name!r} must be numbers of shape (n, 3), is {array.dtype} of {array.shape}")
    return array.astype(np.float64)


def read_one_scenario(path: Path) -> Any:
    """The Scenario message of a file with one record that has laser frames.

    Raises:
        ValueError: the file is broken, has another number of records, or the record has no laser frames.
    """
    records = [data for _, data in iter_records(path)]
    if len(records) != 1:
        raise ValueError(f"{path}: must hold one record, has {len(records)}; give the file that the golden file was made from")
    scenario = parse_scenario(records[0], source=str(path))
    if not scenario.compressed_frame_laser_data:
        raise ValueError(f"{path}: scenario {scenario.scenario_id!r} has no compressed_frame_laser_data to compare")
    return scenario


def relative_difference(ours: Float, golden: Float) -> Float:
    """Difference in units of the golden number, of one where that is smaller."""
    difference: Float = np.abs(ours - golden) / np.maximum(np.abs(golden), 1.0)
    return difference
