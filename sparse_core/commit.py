"""Making a planned update real: weight, optimizer state, masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparse_core.layer import LayerInput, LayerPlan, Moment, context_of
from sparse_core.method import Method
from sparse_core.off_mask_step import swap
from sparse_core.optimizer_state import rewire_state
from sparse_core.scores import positions


def commit(
    planned: LayerPlan, given: LayerInput, state: dict[str, Any] | None, working: Tensor, method: Method, moment: Moment
) -> None:
    """Change a layer as planned, in place. Links that stay, or come back at once, keep value and optimizer state.

    Args:
        state: the optimizer's state of the parameter, if it has one yet.
        working: what gradients are multiplied with; the mask itself or a copy of it as numbers.
    """
    layer, parameter = planned.layer, planned.layer.target.parameter
    if layer.off_mask is not None:
        swap(planned, given, state, working, method, moment)
        return
    grown = planned.grown
    weight = layer.weight
    stayed = (planned.mask & layer.mask).to(weight.dtype)
    weight.mul_(stayed)
    if planned.grown_links and method.grown_value != 0:
        weight.add_(_beginnings(planned, grown, given, method, moment))
    if state:
        rewire_state(state, dict(given.options), parameter, stayed, grown, given.gradient, layer.shard)
    layer.mask.copy_(planned.mask)
    layer.explored.logical_or_(planned.mask)
    layer.counts = list(planned.counts)
    layer.active_here, layer.active_everywhere = planned.active_here, planned.active_everywhere
    if working is not layer.mask:
        working.copy_(planned.mask)


def _beginnings(planned: LayerPlan, grown: Tensor, given: LayerInput, method: Method, moment: Moment) -> Tensor:
    """The values at which grown links begin, at their places; elsewhere 0."""
    weight, begin = planned.layer.weight, method.grown_value
    index = positions(grown, planned.grown_links)
    values = torch.zeros(weight.numel(), dtype=weight.dtype, device=weight.device)
    if callable(begin):
        context = context_of(planned.layer, given, moment, "grow")
        gradient = None if given.gradient is None else given.gradient.reshape(-1)[index]
        new = begin(index + context.offset, given.weight.reshape(-1)[index], gradient, context)
        values.index_copy_(0, index, new.to(values.dtype))
    else:
        values.index_fill_(0, index, begin)
    return values.view(weight.shape)
