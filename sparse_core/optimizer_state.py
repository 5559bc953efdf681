"""The optimizer's memory of single weights: what new links begin with, and zero off the mask.

Everything in `optimizer.state[parameter]` that has the parameter's shape belongs to single weights. What it means is told by
its name, so optimizers from elsewhere are served as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from sparse_core.shard import Shard, local

_SECOND_MOMENTS = {"sum", "square_avg", "acc_delta", "exp_inf", "row_var", "col_var", "variance"}
_AVERAGED_SQUARES = {"square_avg", "variance"}  # and all that ends in _sq: running means of g**2
_STEP_SIZES = {"step_size"}

# Elementwise, and at rest where weight, gradient and state are zero: nothing has to be cleared after a step.
_AT_REST_OFF_THE_MASK = {
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.ASGD,
}


class Kind(Enum):
    """What a state tensor is, and so with what a new link begins."""

    FIRST = "momentum and the like: 0"
    SECOND = "second moments: the mean of the active links"
    STEP_SIZE = "step sizes: the optimizer's initial value"


def kind_of(key: str) -> Kind:
    """The kind of a state tensor by its name."""
    if key in _STEP_SIZES:
        return Kind.STEP_SIZE
    if key in _SECOND_MOMENTS or key.endswith("_sq"):
        return Kind.SECOND
    return Kind.FIRST


def refuse_unsuited(optimizer: torch.optim.Optimizer) -> None:
    """Raise for optimizers that cannot train with a mask.

    Raises:
        ValueError: LBFGS, whose history mixes all weights; SparseAdam, which takes sparse gradients only.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("LBFGS cannot be made sparse: its history of gradients mixes all weights. Use a first-order optimizer")
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise ValueError("SparseAdam takes the sparse gradients of embeddings only, and embeddings never become sparse")


def stays_zero(optimizer: torch.optim.Optimizer) -> bool:
    """Whether weights and state that are zero off the mask stay so in a step without anybody's help."""
    if type(optimizer) not in _AT_REST_OFF_THE_MASK:
        return False
    return all(group.get("eps", 1.0) != 0 for group in optimizer.param_groups)  # 0 / (0 + 0) is not a number


def weight_like(state: dict[str, Any], parameter: nn.Parameter) -> Iterator[tuple[str, Tensor]]:
    """The state tensors that hold one number per weight; under FSDP2, the rows of them that are here."""
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == parameter.shape and value.is_floating_point():
            yield key, local(value)


def rewire_state(
    state: dict[str, Any],
    options: dict[str, Any],
    parameter: nn.Parameter,
    stayed: Tensor,
    grown: Tensor,
    gradient: Tensor | None,
    shard: Shard | None = None,
) -> None:
    """Give new links the state they begin with, and clear what was dropped. In place; nothing is read back.

    A grown link's second moment is the mean over the links that stayed, or its own squared gradient where that is larger:
    else a link that grew for its large gradient would take its first steps at several times the learning rate.

    Args:
        stayed: the links that were active and still are, as 0 and 1 in the parameter's dtype.
        grown: the links that are new, likewise.
        gradient: the dense unscaled gradient, if there is one.
        shard: these are rows of the weight; the mean is over those of other ranks too.
    """
    for key, value in weight_like(state, parameter):
        kind = kind_of(key)
        mask = stayed.to(value.dtype)
        if kind is Kind.SECOND:
            at_least = torch.promote_types(value.dtype, torch.float32)  # float16 counts to 65504
            sums = torch.stack([(value * mask).sum(dtype=at_least), mask.sum(dtype=at_least)])
            total, number = sums if shard is None else shard.sum(sums)
            mean = total / number.clamp(min=1)
            fill = mean = mean.to(value.dtype)
            if gradient is not None and (key in _AVERAGED_SQUARES or key.endswith("_sq")):
                own = gradient.to(value.dtype).square() * _debias(state, options)
                fill = torch.maximum(mean, own)
            value.mul_(mask).add_(grown.to(value.dtype) * fill)
        elif kind is Kind.STEP_SIZE:
            value.mul_(mask).add_(grown.to(value.dtype) * options["lr"])
        else:
            value.mul_(mask)


def _debias(state: dict[str, Any], options: dict[str, Any]) -> Tensor | float:
    """How far a running mean that began at zero has come: Adam divides by it, other optimizers do not."""
    betas, step = options.get("betas"), state.get("step")
    if betas is None or step is None:
        return 1.0
    come: Tensor | float = 1 - betas[1] ** step
    return come


def clear_off_mask(state: dict[str, Any], parameter: nn.Parameter, mask: Tensor) -> None:
    """Zero the state off the mask, whatever the optimizer left there (NaN included)."""
    for _, value in weight_like(state, parameter):
        value.copy_(torch.where(mask, value, torch.zeros((), dtype=value.dtype, device=value.device)))
