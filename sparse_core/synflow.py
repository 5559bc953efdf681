"""SynFlow: the links that most synaptic strength flows through, found without data (Tanaka et al. 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparse_core.probe import call, unchanged
from sparse_core.start import Start
from sparse_core.wrappers import unwrapped

_NO_FLOW = 1e-12  # of the outputs, or of the strongest layer: where a norm cancels the flow, rounding is left


def synflow_scores(start: Start, sample: object, rounds: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """|theta * dR/dtheta| of every weight after `rounds - 1` rounds of pruning, -1 for what they took away.

    R is the sum of the outputs for an input of ones, with every parameter (biases and norms included) and every running
    mean in absolute value, in evaluation mode. Round k keeps the best density ** (k / rounds) of the links; the caller makes
    the last cut. Nothing of the model is changed: values are handed to it for the call.

    Raises:
        ValueError: a flow that overflows the dtype, or that does not reach a layer.
    """
    model = unwrapped(start.model)
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in start.parameters.items()}
    scores: dict[str, Tensor] = {}
    with unchanged(model), _evaluating(model), torch.enable_grad():
        for number in range(1, rounds + 1):
            held = {id(start.parameters[name]): mask for name, mask in masks.items()}
            held |= {id(parameter): mask for parameter, mask in start.fixed}
            scores, size = _flow(model, start.parameters, held, sample, dtype)
            _check(scores, size, number)
            scores = {name: torch.where(masks[name], score, -1.0) for name, score in scores.items()}
            if number < rounds:
                masks = start.keep(scores, start.density ** (number / rounds))
    return scores


def _flow(
    model: nn.Module, ranked: Mapping[str, nn.Parameter], masks: Mapping[int, Tensor], sample: object, dtype: torch.dtype
) -> tuple[dict[str, Tensor], float]:
    """|theta * dR/dtheta| of the ranked weights, at the given masks (by the id of a parameter); and the size of the outputs."""
    wanted = {id(parameter) for parameter in ranked.values()}
    strengths: dict[int, Tensor] = {}
    given: dict[str, Tensor] = {}
    for path, parameter in model.named_parameters():  # tied ones once: the call ties what it is given
        key = id(parameter)
        strength = parameter.detach().to(dtype).abs()
        strength = torch.where(masks[key], strength, 0.0) if key in masks else strength
        given[path] = strengths[key] = strength.requires_grad_(key in wanted)
    for path, buffer in model.named_buffers():
        values = buffer.to(dtype) if buffer.is_floating_point() else buffer
        given[path] = values.abs() if path.endswith("running_mean") else values
    ones = _mapped(sample, lambda leaf: torch.ones_like(leaf, dtype=dtype) if leaf.is_floating_point() else leaf)
    output = torch.func.functional_call(_Called(model), {f"model.{path}": value for path, value in given.items()}, (ones,))
    outputs = _outputs(output)
    if not outputs:
        raise ValueError("SynFlow: no output of the model depends on the ranked weights")
    total, size = (torch.stack([part.sum() for part in parts]).sum() for parts in (outputs, [one.abs() for one in outputs]))
    weights = [strengths[id(parameter)] for parameter in ranked.values()]
    slopes = torch.autograd.grad(total, weights, allow_unused=True)
    scores = {
        name: torch.zeros_like(weight) if slope is None else (weight.detach() * slope).abs()
        for name, weight, slope in zip(ranked, weights, slopes, strict=True)
    }
    return scores, float(size.detach())


def _check(scores: Mapping[str, Tensor], size: float, number: int) -> None:
    sums = {name: float(score.sum()) for name, score in scores.items()}
    strongest = max(sums.values())
    for name, total in sums.items():
        if not torch.isfinite(scores[name]).all():
            raise ValueError(
                f"SynFlow: the flow through {name} is not finite in {scores[name].dtype}; it grows with every layer. Scale the "
                "weights down first (they may be scaled back afterwards), or exclude layers"
            )
        if number == 1 and total <= _NO_FLOW * max(strongest, size):
            raise ValueError(
                f"SynFlow: no flow reaches {name}: its weights are zero, the output does not depend on them, or a norm or "
                "softmax cancels the sum of its outputs. Exclude the layer or give it a density of its own"
            )
    if strongest == 0:
        raise ValueError(f"SynFlow: no path is left through the network after round {number - 1}; raise the density")


class _Called(nn.Module):
    """The model, called with a sample of any form: `functional_call` wants a module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: object) -> object:
        """Call the model."""
        return call(self.model, sample)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and every module's own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _mapped(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A sample or an output with every tensor changed: tuples, lists, mappings and data classes of them."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: _mapped(value, change) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        parts = [_mapped(value, change) for value in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = [field.name for field in dataclasses.fields(tree) if field.init]
        return dataclasses.replace(tree, **{name: _mapped(getattr(tree, name), change) for name in fields})
    return tree


def _outputs(output: object) -> list[Tensor]:
    """All outputs that depend on the weights."""
    found: list[Tensor] = []

    def add(leaf: Tensor) -> Tensor:
        if leaf.requires_grad:
            found.append(leaf)
        return leaf

    _mapped(output, add)
    return found
