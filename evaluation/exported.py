"""A predictor that was exported: the folder's files, and running the graph in them without the checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from evaluation.export_metadata import FORMAT
from evaluation.onnx_graph import require_onnx
from limtr.export import callable_of
from limtr.files import read_json

GraphKind = Literal["onnx", "torch"]
Arrays = dict[str, npt.NDArray[Any]]

GRAPH_FILES: dict[GraphKind, str] = {"onnx": "model.onnx", "torch": "model.pt2"}
METADATA_FILE = "metadata.json"
EXAMPLE_FILE = "example_inputs.npz"
ANSWER_FILE = "example_outputs.npz"


@dataclass(frozen=True)
class ExportedPredictor:
    """Calls a graph with arrays by input name and gives arrays by output name."""

    metadata: dict[str, Any]
    call: Callable[[Arrays], Arrays]

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Predict.

        Raises:
            ValueError: an input is missing, unknown, or has another type or shape than metadata.json says.
        """
        self._check(inputs)
        return self.call(dict(inputs))

    def _check(self, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
        wanted = self.metadata["inputs"]
        if set(inputs) != set(wanted):
            raise ValueError(f"the graph's inputs are {list(wanted)}, given are {list(inputs)}")
        lengths: dict[str, int] = {}
        for name, about in wanted.items():
            value = inputs[name]
            if str(value.dtype) != about["dtype"]:
                raise ValueError(f"{name} must be {about['dtype']}, is {value.dtype}")
            fits = value.ndim == len(about["shape"]) and all(
                found == (lengths.setdefault(length, found) if isinstance(length, str) else length)
                for found, length in zip(value.shape, about["shape"], strict=True)
            )
            if not fits:
                raise ValueError(f"{name} must have shape {about['shape']} with {lengths}, has {list(value.shape)}")

    @classmethod
    def load(cls, folder: Path | str, *, num_threads: int | None = None) -> ExportedPredictor:
        """The graph in a folder that `limtr export` wrote; `num_threads` for ONNX Runtime [default: torch's].

        Raises:
            FileNotFoundError: there is no such folder or a file is missing.
            ValueError: the files are no such graph or do not belong together, or the ONNX packages are missing.
        """
        folder = Path(folder)
        file = folder / METADATA_FILE
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: expected a folder that limtr export wrote")
        about = read_json(file)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ValueError(f"{file}: expected an object with format {FORMAT}; export the model again")
        graph = folder / about["graph"]["file"]
        if not graph.is_file():
            raise FileNotFoundError(f"{graph} is missing; export the model again")
        if digest(graph) != about["graph"]["sha256"]:
            raise ValueError(f"{graph}: not the file that {METADATA_FILE} describes (another sha256); export the model again")
        if about["graph"]["kind"] == "onnx":
            return cls(about, run_onnx(graph, num_threads or torch.get_num_threads()))
        return cls(about, run_torch(graph, list(about["graph"]["outputs"])))


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def run_onnx(path: Path, num_threads: int) -> Callable[[Arrays], Arrays]:
    """An ONNX file on ONNX Runtime's CPU."""
    (runtime,) = require_onnx(("onnxruntime",))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def call(inputs: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return call


def run_torch(path: Path, names: list[str]) -> Callable[[Arrays], Arrays]:
    """A file of torch.export on the CPU."""
    module = callable_of(torch.export.load(path))

    def call(inputs: Arrays) -> Arrays:
        with torch.no_grad():
            outputs = module(**{name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in zip(names, outputs, strict=True)}

    return call
