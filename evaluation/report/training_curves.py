"""Training curves from a run's log: what was logged of the training and of the validations, by step."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from limtr.model_files import find_model_folder

LOG_FILE = "log.jsonl"
MOST_POINTS = 300


@dataclass(frozen=True)
class Curve:
    """One logged quantity by step; None where it was not finite."""

    steps: tuple[int, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class TrainingCurves:
    """Everything a run logged."""

    path: Path
    train: dict[str, Curve]
    validation: dict[str, Curve]
    num_unreadable: int
    """Lines that are no log entries; the last line of a killed run may be cut."""


def find_log(checkpoint: Path) -> Path | None:
    """The log of the run that a checkpoint belongs to, if it is still there."""
    folder = find_model_folder(checkpoint)
    candidates = [folder, *folder.parents[:2]]
    return next((parent / LOG_FILE for parent in candidates if (parent / LOG_FILE).is_file()), None)


def read_curves(path: Path) -> TrainingCurves:
    """Read a log, one JSON object a line with `step`, `kind` and numbers."""
    found: dict[str, dict[str, tuple[list[int], list[float | None]]]] = {"train": {}, "validation": {}}
    unreadable = 0
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            step, kind = int(entry["step"]), found[entry["kind"]]
        except (ValueError, KeyError, TypeError):
            unreadable += 1
            continue
        for name, value in entry.items():
            if name not in ("step", "kind") and (value is None or isinstance(value, (int, float))):
                steps, values = kind.setdefault(name, ([], []))
                steps.append(step)
                values.append(value)
    curves = {kind: {name: thinned(*pair) for name, pair in items.items()} for kind, items in found.items()}
    return TrainingCurves(path, curves["train"], curves["validation"], unreadable)


def thinned(steps: list[int], values: list[float | None], most: int = MOST_POINTS) -> Curve:
    """The curve itself, or the means of `most` runs of neighbouring points of a longer one."""
    if len(steps) <= most:
        return Curve(tuple(steps), tuple(values))
    edges = [round(index * len(steps) / most) for index in range(most + 1)]
    kept_steps, kept_values = [], []
    for start, stop in pairwise(edges):
        known = [value for value in values[start:stop] if value is not None]
        kept_steps.append(steps[stop - 1])
        kept_values.append(sum(known) / len(known) if known else None)
    return Curve(tuple(kept_steps), tuple(kept_values))
