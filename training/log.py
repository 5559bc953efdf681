"""Training logs: one JSON line per logged step, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from limtr.files import write_bytes

FLUSH_EVERY_S = 1


class TrainingLog:
    """Appends to `RUN/log.jsonl` and writes TensorBoard events beside it; use as a context manager.

    Lines after `keep_until_step` (of a run that was cut off and is resumed from an earlier checkpoint) are dropped.
    """

    def __init__(self, run: Path, *, keep_until_step: int = 0) -> None:
        run.mkdir(parents=True, exist_ok=True)
        path = run / "log.jsonl"
        write_bytes(path, "".join(_lines_until(path, keep_until_step)).encode())
        self._file = path.open("a")
        from tensorboardX import SummaryWriter

        # Its own thread writes, by default every two minutes: a process that is killed would leave an empty file.
        folder = str(run / "tensorboard")
        self._writer: Any = SummaryWriter(folder, purge_step=keep_until_step + 1, flush_secs=FLUSH_EVERY_S)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Log `values` of one step under a kind ("train" or "validation"); numbers that are not finite become null."""
        plain = {key: value if math.isfinite(value) else None for key, value in values.items()}
        self._file.write(json.dumps({"step": step, "kind": kind, **plain}) + "\n")
        self._file.flush()
        for key, value in values.items():
            self._writer.add_scalar(f"{kind}/{key}", value, step)

    def __enter__(self) -> TrainingLog:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close both files."""
        self._file.close()
        self._writer.close()


def _lines_until(path: Path, step: int) -> list[str]:
    if not path.is_file():
        return []
    kept: list[str] = []
    lines = path.read_text().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            logged_step = json.loads(line)["step"]
        except (json.JSONDecodeError, KeyError, TypeError):
            if number < len(lines):  # the last line of a killed run may be half written
                warnings.warn(f"{path}: line {number} is no log entry and is dropped", stacklevel=3)
            continue
        if logged_step <= step:
            kept.append(line)
    return kept
