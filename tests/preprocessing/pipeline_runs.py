"""Runs of `limtr preprocess` in this process, and what they leave behind."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from preprocessing.pipeline import QUARANTINE_FILE, PreprocessConfig, run


def preprocess(raw: Path, out: Path, **options: Any) -> int:
    return run(PreprocessConfig(input=raw, out=out, executor="local", **options))


def shard_files(out: Path) -> dict[str, tuple[str, int]]:
    """Content hash and time of every shard."""
    found = sorted(out.glob("limtr-*.array_record-*"))
    return {path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in found}


def quarantine(out: Path) -> list[dict[str, Any]]:
    path = out / QUARANTINE_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
