"""Swap masked dense layers for sparse ones, for inference, where that was measured to be faster here."""

from __future__ import annotations

import copy
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparse_core.probe import Names, aligned, call, parameter_names, unchanged
from sparse_core.shard import refuse_sharded
from sparse_core.sparse.linear import Linear
from sparse_core.wrappers import unwrapped, wrapped_module


class HasMasks(Protocol):
    """Anything with masks by parameter name, such as the engine."""

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """Bool tensors by parameter name."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call of a layer."""

    dense: float
    sparse: float


Measure = Callable[[nn.Linear, Linear, Tensor], Timing]


@dataclass(frozen=True)
class Decision:
    """What became of one masked weight, and why.

    `inputs`: (shape, number of calls) of what the layer was given. `dense_s`, `sparse_s`: seconds of all its calls in the
    sample, None if it was not measured.
    """

    layer: str
    density: float
    replaced: bool
    reason: str
    inputs: tuple[tuple[tuple[int, ...], int], ...] = ()
    dense_s: float | None = None
    sparse_s: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times faster the sparse layer is, None if it was not measured."""
        return None if self.dense_s is None or not self.sparse_s else self.dense_s / self.sparse_s


@dataclass(frozen=True)
class CompiledSparse:
    """`model`: a copy for inference, in evaluation mode. `decisions`: one per mask, which `str` shows as a table."""

    model: nn.Module
    decisions: tuple[Decision, ...]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        return self.model(*args, **kwargs)

    def __str__(self) -> str:
        lines: list[tuple[str, ...]] = [("layer", "density", "inputs", "dense ms", "sparse ms", "ratio", "decision", "reason")]
        for row in self.decisions:
            inputs = ", ".join(
                "x".join(map(str, shape)) + (f" ({calls} times)" if calls > 1 else "") for shape, calls in row.inputs
            )
            times = ["" if s is None else f"{1e3 * s:.3f}" for s in (row.dense_s, row.sparse_s)]
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            lines.append(
                (row.layer, f"{row.density:.3f}", inputs, *times, ratio, "sparse" if row.replaced else "dense", row.reason)
            )
        return aligned(lines, left=(0, 7))


def interleaved(dense: nn.Linear, sparse: Linear, x: Tensor, *, repeats: int = 9, block_s: float = 1e-3) -> Timing:
    """Least time of one call of either layer.

    The two take turns, first one ahead and then the other, so that what else the machine does meets both; a turn is as many
    calls as fill `block_s` seconds. Noise only ever adds time, so the least of the turns is the best estimate.
    """
    layers = (dense, sparse)
    wait = torch.cuda.synchronize if x.is_cuda else _nothing

    def seconds(layer: nn.Module, calls: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            layer(x)
        wait()
        return (time.perf_counter() - start) / calls

    with torch.no_grad():
        for layer in layers:
            seconds(layer, 1)  # the first call of a shape pays for memory and for kernels that are made on the fly
        calls = [max(1, min(1000, math.ceil(block_s / max(seconds(layer, 1), 1e-7)))) for layer in layers]
        least = [math.inf, math.inf]
        for turn in range(repeats):
            for which in (0, 1) if turn % 2 == 0 else (1, 0):
                least[which] = min(least[which], seconds(layers[which], calls[which]))
    return Timing(*least)


def compile_sparse(
    model: nn.Module, engine: HasMasks, sample: object, *, margin: float = 1.5, measure: Measure = interleaved
) -> CompiledSparse:
    """A copy of `model` for inference in which a masked `nn.Linear` is sparse wherever that was measured to be faster.

    `engine`: anything with `masks`. `sample`: what the model is called with (tuple: arguments, mapping: keywords, else one
    argument); its shapes are those that layers are measured on, each as often as it occurs, with the number of threads that is
    set. A layer is replaced if all its calls together are at least `margin` times faster: timings on a shared machine are off
    by some tens of percent, and a tie is better left to the kernel that everything else supports. `measure`: gives the times of
    one dense and one sparse layer on one input.

    Stays dense, with the reason in the table: what is no plain `nn.Linear` (convolutions, packed attention, subclasses), tied
    weights, weights that the model also uses outside of the layer's own forward, layers with hooks, layers that the sample does
    not reach.

    The model itself is not touched. Wrappers of torch.compile and data parallel training are taken off the copy.

    Raises ValueError for masks that fit no parameter, a weight that is not zero outside of its mask or not finite, a margin
    below 1.
    """
    if not margin >= 1:
        raise ValueError(f"margin must be at least 1, not {margin}")
    plain = copied(model).eval()
    names = parameter_names(plain)
    masks = checked_masks(names, engine)
    candidates: dict[str, Candidate] = {}
    dense: dict[str, str] = {}
    for first in masks:
        layer = plain_linear(plain, names, first, (torch.float32, torch.float64))
        if isinstance(layer, str):
            dense[first] = layer
        else:
            candidates[first] = layer
    with unchanged(plain), torch.no_grad(), _watched(candidates):
        call(plain, sample)
    decisions = []
    for first, (name, mask) in masks.items():
        density = float(mask.sum()) / max(mask.numel(), 1)
        if first in dense:
            decisions.append(Decision(name, density, False, dense[first]))
        else:
            candidate = candidates[first]
            decision, sparse = _decide(name, density, candidate, mask, margin, measure)
            decisions.append(decision)
            if decision.replaced and sparse is not None:
                for parent, attribute in candidate.places:
                    parent._modules[attribute] = sparse
                plain = sparse if candidate.layer is plain else plain
    return CompiledSparse(plain, tuple(decisions))


def checked_masks(names: Names, engine: HasMasks) -> dict[str, tuple[str, Tensor]]:
    """First parameter name -> (the name that the mask came under, the mask).

    Raises ValueError for masks that fit no parameter, a weight that is not zero outside of its mask or not finite.
    """
    masks = {names.resolve(name, mask): (name, mask) for name, mask in engine.masks.items()}
    for first, (name, mask) in masks.items():
        weight = names.first[first].detach()
        if not weight.isfinite().all():
            raise ValueError(f"{name} holds values that are not finite")
        if bool((weight * ~mask.to(weight.device)).count_nonzero()):
            raise ValueError(f"{name} is not zero outside of its mask: the masks are not of this model, or it changed since")
    return masks


def copied(model: nn.Module) -> nn.Module:
    """A deep copy without the wrappers of torch.compile and data parallel training, at any depth.

    Raises ValueError for a model that was given to `fully_shard`.
    """
    for name, parameter in model.named_parameters():
        refuse_sharded(name, parameter)
    memo: dict[int, Any] = {}
    wrappers = [(module, inner) for module in model.modules() if (inner := wrapped_module(module)) is not None]
    for module, inner in reversed(wrappers):  # the innermost first
        memo[id(module)] = copy.deepcopy(inner, memo)
    return copy.deepcopy(unwrapped(model), memo)


@dataclass
class Candidate:
    """A layer that might become sparse, and what the sample showed of it. `places`: the modules and names that hold it."""

    layer: nn.Linear
    places: list[tuple[nn.Module, str]]
    inputs: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)
    calls: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    running: int = 0
    used_outside: str = ""
    other_precision: bool = False


def plain_linear(model: nn.Module, names: Names, first: str, dtypes: tuple[torch.dtype, ...]) -> Candidate | str:
    """The one linear layer that has this weight, or why it cannot be replaced."""
    parameter = names.first[first]
    owners: dict[int, tuple[nn.Module, str]] = {}
    for module in model.modules():
        for name, other in module._parameters.items():
            if other is not None and _storage(other) == _storage(parameter):
                owners.setdefault(id(module), (module, name))
    if len(owners) > 1:
        return "its weight is tied"
    (module, name), *_ = owners.values()
    if type(module) is not nn.Linear or name != "weight":
        return f"it belongs to {type(module).__name__}, not to a plain Linear"
    if module.weight.dtype not in dtypes:
        return f"it is in {module.weight.dtype}"
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or "forward" in module.__dict__:
        return "it has hooks, or a forward of its own"
    places = [(parent, key) for parent in model.modules() for key, child in parent._modules.items() if child is module]
    return Candidate(module, places)


class _OutsideUse(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation on a candidate's weight or bias while the candidate is not running, by the memory that it reads."""

    def __init__(self, candidates: Mapping[str, Candidate]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_storage = {_storage(p): c for c in candidates.values() for p in c.layer.parameters() if p.numel()}

    def __torch_dispatch__(
        self, func: Any, types: tuple[type, ...], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for value in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(value, Tensor) and value.layout == torch.strided:
                owner = self.by_storage.get(_storage(value))
                if owner is not None and not owner.running:
                    owner.used_outside = str(func._overloadpacket)
        return func(*args, **(kwargs or {}))


@contextmanager
def _watched(candidates: Mapping[str, Candidate]) -> Iterator[None]:
    """Collect the inputs of the candidates, and uses of their weights elsewhere.

    Their forward is wrapped, for hooks would turn off the fused path of torch's transformer layers, which reads weights
    directly.
    """
    for candidate in candidates.values():
        candidate.layer.forward = _recorded(candidate)  # type: ignore[method-assign, assignment]
    try:
        with _OutsideUse(candidates):
            yield
    finally:
        for candidate in candidates.values():
            del candidate.layer.__dict__["forward"]


def _recorded(candidate: Candidate) -> Callable[[Tensor], Tensor]:
    """The layer's forward, which also notes its input."""

    def forward(input: Tensor) -> Tensor:
        key = (tuple(input.shape), input.stride(), input.dtype)
        candidate.calls[key] += 1
        candidate.inputs.setdefault(key, input.detach())
        candidate.running += 1
        try:
            output = nn.Linear.forward(candidate.layer, input)
        finally:
            candidate.running -= 1
        candidate.other_precision |= output.dtype != candidate.layer.weight.dtype  # autocast
        return output

    return forward


def _decide(
    name: str, density: float, candidate: Candidate, mask: Tensor, margin: float, measure: Measure
) -> tuple[Decision, Linear | None]:
    """Measure a candidate. Returns the sparse layer too, if there is one to compare with."""
    shapes = tuple((key[0], calls) for key, calls in candidate.calls.items())
    if candidate.used_outside:
        reason = f"its weights are used outside of the layer, by {candidate.used_outside}"
    elif not candidate.inputs:
        reason = "the sample does not reach it"
    elif candidate.other_precision:
        reason = "it runs in another precision than its weights have"
    elif not any(x.numel() for x in candidate.inputs.values()):
        reason = "its input is empty"
    else:
        reason = ""
    if reason:
        return Decision(name, density, False, reason, shapes), None
    sparse = Linear.from_dense(candidate.layer, mask)
    dense_s = sparse_s = 0.0
    for key, x in candidate.inputs.items():
        timing = measure(candidate.layer, sparse, x)
        dense_s += timing.dense * candidate.calls[key]
        sparse_s += timing.sparse * candidate.calls[key]
    faster = dense_s >= margin * sparse_s
    reason = f"at least {margin:g} times faster" if faster else f"less than {margin:g} times faster"
    return Decision(name, density, faster, reason, shapes, dense_s, sparse_s), sparse


def _storage(tensor: Tensor) -> int:
    """Address of a tensor's memory."""
    return tensor.untyped_storage().data_ptr()


def _nothing() -> None:
    """Wait for nothing: a CPU is done when it returns."""
