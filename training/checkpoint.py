"""Checkpoints of a run: folders that appear whole or not at all, and everything a training needs to go on bit for bit.

Layout: `RUN/checkpoints/step-00001234/` holds `model.safetensors` and `config.json` (what `MotionPredictor.load` reads),
`training_state.safetensors` (optimizer, random generators, raw weights) and `training_state.json` (position, recipe, data
fingerprint, licence, metrics). `RUN/checkpoints/latest.txt` and `best.txt` name folders.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from limtr.files import read_json, write_bytes, write_json
from limtr.predictor import MotionPredictor
from limtr.run_report import as_plain
from training.config import Recipe

STATE_TENSORS = "training_state.safetensors"
STATE_JSON = "training_state.json"


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a training has come."""

    step: int = 0
    """Optimizer steps done."""
    epoch: int = 0
    group: int = 0
    """Optimizer steps done in this epoch."""
    elapsed_s: float = 0.0
    samples: int = 0
    """Centre agents seen."""


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What a checkpoint holds beside the evaluated model."""

    position: Position
    recipe: dict[str, Any]
    data_fingerprint: str
    licence: str
    metrics: dict[str, float]
    tensors: dict[str, torch.Tensor]
    optimizer_groups: list[dict[str, Any]]
    random_state: dict[str, Any]
    validated_step: int = 0
    """The step that `metrics` are of."""
    sparse: dict[str, Any] | None = None
    """Plain values of the sparse training, whose masks are among the tensors; None for a dense one."""


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The optimizer's state as named tensors and its parameter groups as plain values."""
    state = optimizer.state_dict()
    tensors = {
        f"optimizer/{index}/{name}": value.detach().cpu().contiguous()
        for index, entry in state["state"].items()
        for name, value in entry.items()
    }
    return tensors, state["param_groups"]


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], groups: list[dict[str, Any]]
) -> None:
    """Put back what `optimizer_tensors` took."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def capture_random_state() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """States of Python's, NumPy's and torch's global generators, as tensors and plain values."""
    tensors = {"random/torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"random/cuda{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    tensors["random/numpy"] = torch.from_numpy(np.asarray(keys, dtype=np.int64))
    version, internal, gauss = random.getstate()
    plain = {"numpy": [str(name), int(position), int(has_gauss), float(cached)], "python": [version, list(internal), gauss]}
    return tensors, plain


def restore_random_state(tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any]) -> None:
    """Put back what `capture_random_state` took."""
    torch.set_rng_state(tensors["random/torch"])
    names = sorted(
        (key for key in tensors if key.startswith("random/cuda")), key=lambda key: int(key.removeprefix("random/cuda"))
    )
    cuda = [tensors[key] for key in names]
    if cuda and torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)
    elif cuda:
        warnings.warn("the checkpoint was made on other CUDA devices: what dropout draws there will differ", stacklevel=2)
    name, position, has_gauss, cached = plain["numpy"]
    keys = tensors["random/numpy"].numpy().astype(np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = plain["python"]
    random.setstate((version, tuple(internal), gauss))


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, run: Path, *, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, is {keep}")
        self.folder = run / "checkpoints"
        self.keep = keep

    def latest(self) -> Path | None:
        """The newest whole checkpoint; None if there is none."""
        pointer = self.folder / "latest.txt"
        if not pointer.is_file():
            return None
        path = self.folder / Path(pointer.read_text().strip()).name
        if not path.exists():
            self._put_back(path)
        if not (path / STATE_JSON).is_file():
            raise ValueError(f"{pointer} names {path.name}, which is not there; write the name of another checkpoint into it")
        return path

    def _put_back(self, path: Path) -> None:
        """Undo what a process left that was killed while it replaced a checkpoint by another one of the same step."""
        for aside in sorted(self.folder.glob(f".{path.name}.old.*")):
            if (aside / STATE_JSON).is_file():
                os.replace(aside, path)
                return

    def save(self, model: MotionPredictor, state: TrainingState, *, best: bool = False) -> Path:
        """Write a checkpoint of `model` (the weights to evaluate) and `state`, name it the latest, drop old ones.

        Raises:
            OSError: as the file system says it; the checkpoints there were stay as they are.
        """
        name = f"step-{state.position.step:08d}"
        final, temporary = self.folder / name, self.folder / f".{name}.tmp.{os.getpid()}"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.latest()  # before what a killed process left is cleared away, in case it is needed
            self._clear_halves()
            temporary.mkdir()
            model.save(temporary)
            _write_tensors(state.tensors, temporary / STATE_TENSORS)
            content = {key: value for key, value in asdict(replace(state, tensors={})).items() if key != "tensors"}
            content["checksum"] = file_checksum(temporary / STATE_TENSORS)
            write_json(temporary / STATE_JSON, content)
            for file in temporary.iterdir():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
            if final.exists():
                # Aside first: removing takes long, and a process killed meanwhile would leave no whole checkpoint of the name.
                os.replace(final, self.folder / f".{name}.old.{os.getpid()}")
            os.replace(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        write_bytes(self.folder / "latest.txt", f"{name}\n".encode())
        if best:
            write_bytes(self.folder / "best.txt", f"{name}\n".encode())
        self._drop_old(name)
        return final

    def _drop_old(self, newest: str) -> None:
        self._clear_halves()
        pointer = self.folder / "best.txt"
        best = pointer.read_text().strip() if pointer.is_file() else ""
        # The newest need not have the highest step: a run may have been taken back to an earlier checkpoint.
        others = [path for path in sorted(self.folder.glob("step-*")) if path.name not in (newest, best)]
        for path in others[: max(len(others) - (self.keep - 1), 0)]:
            shutil.rmtree(path)

    def _clear_halves(self) -> None:
        """Remove what a killed process left half written."""
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)

    @staticmethod
    def load_state(path: Path) -> TrainingState:
        """The training state in a checkpoint folder.

        Raises:
            ValueError: the folder holds no readable training state; names others that may be gone on with.
        """
        try:
            content = read_json(path / STATE_JSON)
            checksum = content.pop("checksum")
            if file_checksum(path / STATE_TENSORS) != checksum:
                raise ValueError(f"{STATE_TENSORS} is not what was saved: its checksum differs")
            tensors = load_file(path / STATE_TENSORS)
            position = Position(**content.pop("position"))
            return TrainingState(position=position, tensors=tensors, **content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
            raise ValueError(f"{path} is no training checkpoint, or is damaged ({error}); {_way_out(path)}") from error


def _way_out(path: Path) -> str:
    others = [other.name for other in sorted(path.parent.glob("step-*")) if other != path and (other / STATE_JSON).is_file()]
    if not others:
        return f"it needs {STATE_JSON} and {STATE_TENSORS}, and there is no other one beside it: begin anew in another folder"
    return f"write the name of another one ({', '.join(others)}) into {path.parent / 'latest.txt'} and go on with --resume"


def file_checksum(path: Path) -> str:
    """CRC-32 of a file (8 hexadecimal digits): tells a damaged file from a whole one, at the speed of reading it."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"


def _write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        # safetensors speaks of the file system in errors of its own, which nobody expects from a full disk.
        code = errno.ENOSPC if "No space left" in str(error) else errno.EIO
        raise OSError(code, f"{os.strerror(code)} while writing a checkpoint ({error})", str(path)) from error


def require_tensors(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse a training state that is not of this model.

    Args:
        tensors: of the training state.
        expected: what the model and its average need, by the names in the state.
        path: the checkpoint, for the message.

    Raises:
        ValueError: names a tensor that is missing or has another shape.
    """
    for name, value in expected.items():
        found = tensors.get(name)
        if found is None or found.shape != value.shape:
            seen = "is missing" if found is None else f"has shape {tuple(found.shape)} instead of {tuple(value.shape)}"
            raise ValueError(
                f"{path}: the training state is of another model: {name} {seen}; go on with the options and the"
                " intention points that the run was started with, or choose another --out"
            )


def require_same(state: TrainingState, recipe: Recipe, data_fingerprint: str, path: Path) -> None:
    """Refuse to go on under another recipe or with other data.

    Raises:
        ValueError: names every setting that differs.
    """
    then, now = _single_settings(state.recipe), _single_settings(read_plain(recipe))
    differing = [f"{key}: was {then.get(key)}, is {now.get(key)}" for key in {**now, **then} if then.get(key) != now.get(key)]
    if state.data_fingerprint != data_fingerprint:
        differing.append(f"data: was {state.data_fingerprint}, is {data_fingerprint}")
    if differing:
        raise ValueError(f"{path} was trained differently ({'; '.join(differing)}); use the same options or another --out")


def _single_settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with the settings inside of others on their own, such as `sparsity.density`."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        found |= {f"{key}.{inner}": each for inner, each in value.items()} if isinstance(value, Mapping) else {key: value}
    return found


def read_plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON holds it (tuples as lists)."""
    plain: dict[str, Any] = as_plain(recipe)
    return plain
