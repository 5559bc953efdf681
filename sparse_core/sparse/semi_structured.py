"""Swap masked dense weights for torch's semi-structured (2:4) ones, for inference on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sparse_core.probe import parameter_names
from sparse_core.sparse.compile import Candidate, CompiledSparse, Decision, HasMasks, checked_masks, copied, plain_linear

_DTYPES = (torch.float16, torch.bfloat16)
_CAPABILITY = (8, 0)  # the first GPUs with sparse tensor cores


@dataclass(frozen=True)
class Backend:
    """What packs a 2:4 matrix and multiplies it.

    Attributes:
        name: what the table calls it.
        multiples: by dtype, what the numbers of outputs and inputs must be multiples of.
        pack: (O, I) weights, at most two of four neighbouring inputs not zero -> the same as a semi-structured tensor.
    """

    name: str
    multiples: Mapping[torch.dtype, tuple[int, int]]
    pack: Callable[[Tensor], Tensor] = field(repr=False)


def cuda_backend(device: torch.device) -> Backend:
    """torch's kernels for a device: cuSPARSELt where torch was built with it, else CUTLASS.

    Raises:
        RuntimeError: no CUDA device, or one without sparse tensor cores.
    """
    if device.type != "cuda":
        raise RuntimeError(
            f"2:4 weights are multiplied on CUDA only, and these are on {device}: move the model there, or use compile_sparse"
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < _CAPABILITY:
        raise RuntimeError(
            f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]}; 2:4 weights need 8.0"
        )
    kind = (
        torch.sparse.SparseSemiStructuredTensorCUSPARSELT
        if torch.backends.cusparselt.is_available()
        else torch.sparse.SparseSemiStructuredTensorCUTLASS
    )
    return Backend(kind.BACKEND, multiples_of(kind), kind.from_dense)


def multiples_of(kind: type[torch.sparse.SparseSemiStructuredTensor]) -> dict[torch.dtype, tuple[int, int]]:
    """What a kind of semi-structured tensor wants the numbers of outputs and inputs to be multiples of."""
    limits = kind._DTYPE_SHAPE_CONSTRAINTS
    return {dtype: (limits[dtype].sparse_min_rows, limits[dtype].sparse_min_cols) for dtype in _DTYPES}


def to_24(model: nn.Module, engine: HasMasks, *, backend: Backend | None = None) -> CompiledSparse:
    """A copy of `model` for inference on CUDA in which weights with 2:4 masks are torch's semi-structured tensors.

    A weight becomes one if it belongs to one plain `nn.Linear`, is float16 or bfloat16, has sizes that the kernels take, and no
    four neighbouring inputs have more than two links. The others stay dense, with the reason in the table. Nothing is timed:
    what a GPU gains depends on the sizes, so measure it.

    The model itself is not touched. The copy is for computing outputs; to save a model, save the masked one and convert it
    when it is loaded. A weight that the model also uses outside of its layer's forward raises in torch when it is used.

    Args:
        model: on a CUDA device of compute capability 8.0 or more, in half precision (`model.half()`, `model.bfloat16()`).
        engine: anything with `masks`, such as the engine of a method with `Structure(group=4)` and density 0.5.
        backend: what packs the weights; None: torch's kernels for the device.

    Raises:
        RuntimeError: weights on another device, or a GPU without sparse tensor cores.
        ValueError: masks that fit no parameter, a weight that is not zero outside of its mask or not finite; no weight that
            can be converted, with all reasons.
    """
    plain = copied(model).eval()
    names = parameter_names(plain)
    masks = checked_masks(names, engine)
    backends: dict[torch.device, Backend] = {}
    for first in masks:
        device = names.first[first].device
        backends.setdefault(device, cuda_backend(device) if backend is None else backend)
    decisions = []
    for first, (name, mask) in masks.items():
        found = plain_linear(plain, names, first, _DTYPES)
        used = backends[names.first[first].device]
        reason = found if isinstance(found, str) else _problem(found, mask, used)
        if isinstance(found, Candidate) and not reason:
            weight = used.pack(found.layer.weight.detach().contiguous())
            found.layer.weight = nn.Parameter(weight, requires_grad=False)
        density = float(mask.sum()) / max(mask.numel(), 1)
        decisions.append(Decision(name, density, not reason, reason or f"2:4, by {used.name}"))
    if not any(one.replaced for one in decisions):
        raise ValueError("no weight can be 2:4: " + "; ".join(f"{one.layer}: {one.reason}" for one in decisions))
    return CompiledSparse(plain, tuple(decisions))


def _problem(candidate: Candidate, mask: Tensor, backend: Backend) -> str:
    """Why the weight of a plain linear layer stays dense; empty if it does not."""
    rows, columns = mask.shape
    by_rows, by_columns = backend.multiples[candidate.layer.weight.dtype]
    if rows % by_rows or columns % by_columns:
        return f"{rows} outputs and {columns} inputs are no multiples of {by_rows} and {by_columns}, as {backend.name} wants"
    crowded = int((mask.view(rows, columns // 4, 4).sum(dim=2) > 2).sum())
    if crowded:
        return f"{crowded} times, four neighbouring inputs have more than two links; train with Structure(group=4), density 0.5"
    if any(isinstance(parent, nn.TransformerEncoderLayer) for parent, _ in candidate.places):
        return "the fused path of its TransformerEncoderLayer reads the weight itself"
    return ""
