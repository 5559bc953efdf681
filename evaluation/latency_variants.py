"""The ways in which one model can be run, as calls on one batch, and why some of them cannot."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import torch
from torch import nn

from evaluation.export_check import arrays_of
from evaluation.latency_cost import EagerCost, eager_cost, graph_flops
from evaluation.onnx_graph import require_onnx, write_onnx
from evaluation.probe_batch import ProbeSize, probe_batch
from evaluation.timing import Call
from evaluation.zero_weights import MIN_ZERO_SHARE
from limtr.agent_batch import AgentBatch
from limtr.export import TensorPredictor, callable_of, export_predictor, tensor_inputs
from limtr.predictor import MotionPredictor
from sparse_core import compile_sparse
from sparse_core.sparse.compile import Decision

Way = Literal["eager", "compiled", "torch.export", "ONNX Runtime"]
Precision = Literal["fp32", "bf16"]
WAYS: tuple[Way, ...] = ("eager", "compiled", "torch.export", "ONNX Runtime")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


class SkippedError(Exception):
    """A variant that cannot be run here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run the model on one batch."""

    device: str
    batch: int
    """Centre agents."""
    way: Way
    precision: Precision = "fp32"
    sparse: bool = False

    def __str__(self) -> str:
        weights = "sparse" if self.sparse else "dense"
        return f"{self.device} batch {self.batch} {self.precision} {self.way} {weights}"


@dataclass(frozen=True)
class Runnable:
    """A variant that runs: `call` predicts once; `measured_call` does so too and gives memory back."""

    variant: Variant
    call: Call
    measured_call: Call
    flops: int
    """Of a call as this variant computes it."""
    layers: tuple[Decision, ...] = ()
    """Which weights became sparse, and why the others did not."""


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What the options allow."""

    compiled: bool
    exported: bool


class VariantMaker:
    """Makes variants of one model on one device; graphs are exported once and used for all batches."""

    def __init__(
        self, model: MotionPredictor, masks: dict[str, torch.Tensor], batches: dict[int, AgentBatch], device: torch.device,
        allowed: Allowed,
    ) -> None:  # fmt: skip
        self.model = TensorPredictor(model).to(device).eval()
        self.masks = {f"model.{name}": mask.to(device) for name, mask in masks.items()}
        self.batches = {size: batch.to(device=device) for size, batch in batches.items()}
        self.device, self.allowed = device, allowed
        self._program: torch.export.ExportedProgram | None = None
        self._costs: dict[int, EagerCost] = {}
        self._graph_flops: dict[int, int] = {}
        self._onnx: Callable[[dict[str, object], bool], object] | None = None

    def variants(self) -> list[Variant]:
        """All combinations."""
        return [
            Variant(device=self.device.type, batch=batch, way=way, precision=precision, sparse=sparse)
            for batch in self.batches
            for way in WAYS
            for precision in PRECISIONS
            for sparse in (False, True)
        ]

    def make(self, variant: Variant) -> Runnable:
        """The variant, ready to run.

        Raises:
            SkippedError: it cannot be run here, with the reason.
        """
        self._refuse(variant)
        batch = self.batches[variant.batch]
        layers: tuple[Decision, ...] = ()
        if variant.way == "ONNX Runtime":
            run, inputs = self._onnx_session(), arrays_of(batch)
            flops = self._flops(variant)
            return Runnable(variant, lambda: run(dict(inputs), False), lambda: run(dict(inputs), True), flops)
        module: nn.Module = self.model
        if variant.way == "torch.export":
            module = callable_of(self._exported())
        elif variant.sparse:
            compiled = compile_sparse(self.model, SimpleNamespace(masks=self.masks), tensor_inputs(batch))
            module, layers = compiled.model, compiled.decisions
        elif variant.way == "compiled":
            # A copy of the wrapper: what is compiled for one batch size stays with it.
            module = TensorPredictor(self.model.model).eval()
            module.compile(dynamic=False)
        tensors = tensor_inputs(batch)

        def call() -> object:
            low = torch.autocast(self.device.type, torch.bfloat16) if variant.precision == "bf16" else nullcontext()
            with torch.no_grad(), low:
                return module(**tensors)

        return Runnable(variant, call, call, self._flops(variant), layers)

    def cost(self, batch: int) -> EagerCost:
        """Of the model on a batch of this size, run eagerly on this device."""
        if batch not in self._costs:
            self._costs[batch] = eager_cost(self.model, tensor_inputs(self.batches[batch]), self.masks)
        return self._costs[batch]

    def _flops(self, variant: Variant) -> int:
        if variant.way == "eager":
            return self.cost(variant.batch).sparse if variant.sparse else self.cost(variant.batch).dense
        # torch.compile makes the graph that torch.export makes, but for its shapes.
        if variant.batch not in self._graph_flops:
            inputs = tensor_inputs(self.batches[variant.batch])
            self._graph_flops[variant.batch] = graph_flops(callable_of(self._exported()), inputs)
        return self._graph_flops[variant.batch]

    def _refuse(self, variant: Variant) -> None:
        if variant.way == "compiled" and not self.allowed.compiled:
            raise SkippedError("compiling takes minutes: ask for it by --compile")
        if variant.way in ("torch.export", "ONNX Runtime"):
            if not self.allowed.exported:
                raise SkippedError("--no-exported")
            if variant.precision == "bf16":
                raise SkippedError("graphs are exported in float32")
        if variant.way == "ONNX Runtime" and self.device.type != "cpu":
            raise SkippedError("the package onnxruntime runs on the CPU")
        if variant.sparse:
            if variant.way != "eager":
                raise SkippedError("sparse layers are timed eagerly")
            if variant.precision == "bf16":
                raise SkippedError("sparse layers compute in float32")
            if self.device.type != "cpu":
                raise SkippedError("unstructured zeros save no time on a GPU")
            if not self.masks:
                raise SkippedError(
                    f"no weight has {MIN_ZERO_SHARE:.0%} zeros: give a sparse checkpoint, or --density to make it sparse"
                )

    def _exported(self) -> torch.export.ExportedProgram:
        if self._program is None:
            size = ProbeSize(centers=3, agents=5, polylines=13, points=17)
            example = probe_batch(self.model.model.config, size).to(device=self.device)
            self._program = export_predictor(self.model.model, example)
        return self._program

    def _onnx_session(self) -> Callable[[dict[str, object], bool], object]:
        if self._onnx is None:
            try:
                _, _, runtime = require_onnx()
            except ValueError as error:
                raise SkippedError(str(error)) from error
            options = runtime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                write_onnx(self._exported(), path)
                session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            shrinking = runtime.RunOptions()
            shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

            def run(inputs: dict[str, object], shrink: bool) -> object:
                return session.run(None, inputs, shrinking if shrink else None)

            self._onnx = run
        return self._onnx


def reference_of(variant: Variant) -> Variant:
    """What ratios are against: dense, eager, in float32, on the same device and batch."""
    return replace(variant, way="eager", precision="fp32", sparse=False)
