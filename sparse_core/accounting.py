"""Parameters and FLOPs of a model, weight by weight, dense and at the density of its masks."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sparse_core.probe import aligned, call, parameter_names, unchanged
from sparse_core.wrappers import unwrapped

Weights = tuple[str, ...]  # names of the parameters in a kernel, in the order of its operands


@dataclasses.dataclass(frozen=True)
class WeightCost:
    """What one parameter costs, in FLOPs (a multiplication and an addition are two) for the whole sample.

    `forward`, `backward`: of the operations that use the parameter, dense. `sparse_forward`, `sparse_backward`: at its density.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    active: int
    forward: int
    backward: int
    sparse_forward: int
    sparse_backward: int

    @property
    def density(self) -> float:
        """Active share of the parameter; 1 for a parameter without entries."""
        return self.active / self.parameters if self.parameters else 1.0


@dataclasses.dataclass(frozen=True)
class Cost:
    """`weights`: one row per parameter; the other two: FLOPs of products in which no parameter takes part, which stay dense."""

    weights: tuple[WeightCost, ...]
    activation_forward: int
    activation_backward: int

    @property
    def parameters(self) -> int:
        """Number of parameters, tied ones once."""
        return sum(row.parameters for row in self.weights)

    @property
    def active(self) -> int:
        """Number of parameters that the masks leave."""
        return sum(row.active for row in self.weights)

    @property
    def forward(self) -> int:
        """Dense FLOPs of one forward pass."""
        return self.activation_forward + sum(row.forward for row in self.weights)

    @property
    def backward(self) -> int:
        """Dense FLOPs of one backward pass."""
        return self.activation_backward + sum(row.backward for row in self.weights)

    @property
    def sparse_forward(self) -> int:
        """FLOPs of one forward pass at the density of the masks."""
        return self.activation_forward + sum(row.sparse_forward for row in self.weights)

    @property
    def sparse_backward(self) -> int:
        """FLOPs of one backward pass at the density of the masks."""
        return self.activation_backward + sum(row.sparse_backward for row in self.weights)

    def __str__(self) -> str:
        header = ("weight", "shape", "parameters", "active", "density", "forward", "sparse", "backward", "sparse")
        shown = [row for row in self.weights if row.forward or row.backward or row.active < row.parameters]
        rest = [row for row in self.weights if row not in shown]
        lines: list[tuple[str, ...]] = [header]
        for row in shown:
            flops = (row.forward, row.sparse_forward, row.backward, row.sparse_backward)
            lines.append(_line(row.name, "x".join(map(str, row.shape)), row.parameters, row.active, flops))
        if rest:
            lines.append(
                _line(
                    f"{len(rest)} without products", "", sum(r.parameters for r in rest), sum(r.active for r in rest), (0,) * 4
                )
            )
        if self.activation_forward or self.activation_backward:
            pair = (self.activation_forward,) * 2 + (self.activation_backward,) * 2
            lines.append(("between activations", "", "", "", "", *(f"{flops:,}" for flops in pair)))
        total = (self.forward, self.sparse_forward, self.backward, self.sparse_backward)
        lines.append(_line("total", "", self.parameters, self.active, total))
        return aligned(lines)


def _line(name: str, shape: str, parameters: int, active: int, flops: tuple[int, ...]) -> tuple[str, ...]:
    """One row of the table, as text."""
    density = f"{active / parameters:.3f}" if parameters else ""
    return (name, shape, f"{parameters:,}", f"{active:,}", density, *(f"{count:,}" for count in flops))


def cost(model: nn.Module, sample: object, masks: Mapping[str, Tensor] | None = None, *, backward: bool = True) -> Cost:
    """Count the parameters and the FLOPs of one forward and one backward pass over `sample`.

    `sample`: what the model is called with: a tuple or list of positional arguments, a mapping of keyword arguments, or
    anything else as the single argument. `masks`: bool tensors by parameter name, such as `engine.masks`; parameters without
    one are dense. `backward`: False leaves the backward pass out, whose costs are then 0.

    Operations are counted as they reach the kernels, with the formulas of `torch.utils.flop_counter`, so that the dense numbers
    are those of `FlopCounterMode`, in the mode (training or evaluation) that the model is in. The backward pass starts at every
    output that needs a gradient and goes to the parameters, and to those inputs of the sample that ask for one: the first layer
    pays nothing for a gradient that nobody wants.

    An operation is charged to the parameter that it multiplies with, whichever module or function called it: weights that are
    used twice pay twice, tied weights are one row, and views, casts and products with buffers or other parameters stay the
    parameter's. If it multiplies two parameters (learned queries and a projection), the second operand is charged, and both
    shares count.

    The sparse cost of an operation is its dense cost times the active share of its weights. For the backward pass that means:
    the gradient of the input (dX) skips the zero weights, and the gradient of the weight (dW) is computed for active links
    only. So it is the cost of an ordinary step; a step whose growth rule looks at dense gradients pays the dense dW.

    Not counted, as in torch's counter: elementwise work, normalisation, reductions, lookups, and kernels without a formula:
    fused recurrent cells, and on CPU the fused attention kernel (run under `sdpa_kernel(SDPBackend.MATH)` to count it). Torch's
    formula for the backward pass of a grouped convolution counts dW as if there were no groups, and so does this. Products
    between activations, such as attention scores, stay dense and have a line of their own.

    The model, its gradients, its buffers and torch's random state are left as they were. Takes the time and memory of one
    training step, without `backward` those of one inference.

    Raises ValueError for a mask that fits no parameter by name or shape, TypeError for one that is not bool.
    """
    plain = unwrapped(model)
    names = parameter_names(plain)
    active = {name: parameter.numel() for name, parameter in names.first.items()}
    for name, mask in (masks or {}).items():
        active[names.resolve(name, mask)] = int(mask.sum())
    graph = torch.enable_grad() if backward else _without_graph()
    with unchanged(plain), graph, _Counter(plain, names.first) as counter:
        output = call(plain, sample)
        counter.backward = True
        starts = [t for t in _tensors(output) if t.requires_grad]
        leaves = [t for t in (*plain.parameters(), *_tensors(sample)) if t.requires_grad]
        if backward and starts and leaves:
            torch.autograd.grad(starts, leaves, [torch.ones_like(t) for t in starts], allow_unused=True)
    return _report(names.first, active, counter.flops)


@contextmanager
def _without_graph() -> Iterator[None]:
    """No gradients, and none of the fused layers that torch takes then, which have no formula."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _report(parameters: Mapping[str, Tensor], active: Mapping[str, int], counted: Mapping[tuple[bool, Weights], int]) -> Cost:
    """Put the counted operations into one row per parameter. `counted`: FLOPs by (backward, weights)."""
    dense: dict[tuple[str, bool], int] = defaultdict(int)
    sparse: dict[tuple[str, bool], Fraction] = defaultdict(Fraction)
    for (backward, used), flops in counted.items():
        payer = used[-1] if used else ""
        share = Fraction(1)
        for name in used:
            share *= Fraction(active[name], max(parameters[name].numel(), 1))
        dense[payer, backward] += flops
        sparse[payer, backward] += flops * share
    rows = tuple(
        WeightCost(
            name=name,
            shape=tuple(parameter.shape),
            parameters=parameter.numel(),
            active=active[name],
            forward=dense[name, False],
            backward=dense[name, True],
            sparse_forward=round(sparse[name, False]),
            sparse_backward=round(sparse[name, True]),
        )
        for name, parameter in parameters.items()
    )
    return Cost(rows, activation_forward=dense["", False], activation_backward=dense["", True])


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the FLOPs of every kernel by the parameters that it multiplies.

    A tensor belongs to parameters if it shares memory with one, or was made from tensors that all do (or are buffers) by an
    operation without a FLOP formula. The kernels of the backward pass belong to the weights of the forward kernel whose
    autograd node they run in, for the product that makes dW sees no weight. The node is known by its sequence number, which
    autograd draws just before it runs the forward kernel.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.backward = False
        self.flops: dict[tuple[bool, Weights], int] = defaultdict(int)
        self._parameters = parameters
        self._owner: dict[int, Weights] = {}
        self._alive: list[Tensor] = []  # the memory of a freed tensor could return as that of an activation
        self._node_weights: dict[int, Weights] = {}
        self._node_in_function: dict[int, bool] = {}  # whether the node's first kernel ran inside a custom autograd Function
        for name, parameter in parameters.items():
            self._own(parameter, (name,))
        for buffer in model.buffers():
            self._own(buffer, ())

    def __torch_dispatch__(
        self, func: Any, types: tuple[type, ...], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.HigherOrderOperator):
            return NotImplemented
        if func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        owners = [self._owner.get(_memory(tensor)) for tensor in _tensors((args, kwargs))]
        weights = tuple(dict.fromkeys(name for owner in owners for name in owner or ()))
        node = torch._C._autograd._get_sequence_nr() - 1
        is_new = node not in self._node_in_function
        self._node_in_function.setdefault(node, not torch.is_grad_enabled())
        out = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self._count(formula(*args, **kwargs, out_val=out), weights, node, is_new)
        elif owners and None not in owners:
            for tensor in _tensors(out):
                self._own(tensor, weights)
        elif func._schema.is_mutable:
            for tensor in _tensors(out):  # an activation was written into a buffer
                if self._owner.get(_memory(tensor)) == ():
                    del self._owner[_memory(tensor)]
        return out

    def _count(self, flops: int, weights: Weights, node: int, is_new: bool) -> None:
        """Add the FLOPs of a kernel. Biases that it takes along are not charged while there is a matrix."""
        weights = tuple(name for name in weights if self._parameters[name].dim() > 1) or weights
        running = torch._C._current_autograd_node()
        if running is None or torch.is_grad_enabled():  # the forward pass, or a part of it that is computed again
            if is_new:
                self._node_weights[node] = weights
            elif self._node_in_function[node] and not torch.is_grad_enabled():
                self._node_weights[node] = tuple(dict.fromkeys(self._node_weights.get(node, ()) + weights))
        else:
            forward_node = running._sequence_nr()
            from_node = self._node_weights.get(forward_node, ())
            weights = weights or from_node if self._node_in_function.get(forward_node) else from_node or weights
        self.flops[self.backward, weights] += flops

    def _own(self, tensor: Tensor, weights: Weights) -> None:
        """Note which parameters the memory of `tensor` holds."""
        if (key := _memory(tensor)) and key not in self._owner:
            self._owner[key] = weights
            self._alive.append(tensor)


def _memory(tensor: Tensor) -> int:
    """Address of the storage under a tensor, 0 if it has none."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


def _tensors(value: object) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))
