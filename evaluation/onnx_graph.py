"""An exported predictor as an ONNX file, and where the ONNX packages come from."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from limtr.export import INPUT_AXES, OUTPUT_AXES

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
REMEDY = 'python -m pip install -c constraints.txt -e ".[onnx]"'
OPSET = 20


def require_onnx(packages: Sequence[str] = ONNX_PACKAGES) -> list[Any]:
    """The ONNX packages, imported.

    Raises:
        ValueError: one is missing; the message says how to install it.
    """
    modules = []
    for name in packages:
        try:
            modules.append(importlib.import_module(name))
        except ImportError as error:
            raise ValueError(f"this needs the package {name} ({error}): {REMEDY}") from error
    return modules


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write the graph of `limtr.export.export_predictor` with its weights as one ONNX file.

    Raises:
        ValueError: the ONNX packages are missing, or the weights are beyond the 2 GiB that one file can hold.
    """
    require_onnx(("onnx", "onnxscript"))
    from onnxscript import opset20 as op

    def stable_sort(x: Any, dim: int = -1, descending: bool = False, stable: bool | None = None) -> Any:
        # ONNX defines that TopK puts the lower index first among equals, which is what a stable sort does.
        return op.TopK(x, op.Shape(x, start=-1), axis=dim, largest=int(descending), sorted=1)

    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > 2**31 - 2**26:
        raise ValueError(f"the weights are {size / 2**30:.1f} GiB; one ONNX file holds 2: use --format torch")
    inputs = list(program.call_spec.in_spec.children()[1].context)
    axes = {name: {axis: letter for axis, letter in enumerate(INPUT_AXES[name]) if letter} for name in inputs}
    with _quiet():
        torch.onnx.export(
            program, f=path, dynamo=True, opset_version=OPSET, external_data=False, verbose=False, input_names=inputs,
            output_names=list(OUTPUT_AXES), dynamic_shapes=axes,
            custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
        )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that nothing here uses."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
