"""Scores that see a layer as a network of inputs and outputs: the Cannistraci-Hebb link predictor, and relative importance.

A weight is a bipartite graph: rows are outputs, columns are inputs, and every tap of a convolution's input channel is an input
of its own. Queries, keys and values of a packed projection are three graphs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_core.sampling import sampled
from sparse_core.scores import Context

_UNIT = 2.0**30  # scores are whole numbers of 1 / _UNIT: sums of them are exact in float64, in whatever order
_ROWS_AT_ONCE = 1024


def ch3_l3(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """CH3-L3, node-based: how many paths of length three would close with the link, those first whose nodes keep to themselves.

    For an output i and an input j that are not linked,

        sum over outputs z of 1 / (1 + external(z; i)), z linked to j and sharing an input with i
        + sum over inputs t of 1 / (1 + external(t; j)), t linked to i and sharing an output with j

    where external(z; i) = links of z - inputs that z shares with i - 1 (the link to j): the links of z that leave the local
    community of i and j. Links count that the update keeps; those that are active score 0.
    (Zhang et al., "Epitopological learning and Cannistraci-Hebb network shape intelligence", 2024; the node-based form by
    matrix products is of Zhang et al., "Brain network science modelling of sparse neural networks", 2025.)

    Every term is rounded to 2**-30, so that sums are exact in float64 and equal on every device. Memory: a few tensors of the
    weight's size, and some of 1024 x its longer side.

    Returns:
        float64, of the weight's shape; 0 where no path of length three leads.
    """
    links = _graphs(context.mask if context.kept is None else context.kept, context.name)
    total = _through_rows(links) + _through_rows(links.mT).mT
    return torch.where(links, 0.0, total / _UNIT).reshape(weight.shape)


def ch3_l3_hard(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """`ch3_l3` with equal scores in hashed order, rather than by their place; so are the links that no path leads to."""
    return ch3_l3(weight, gradient, context) + context.uniform("ties").to(torch.float64) / (2 * _UNIT)


def relative_importance(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
    """|w_ij| / sum_i |w_ij| + |w_ij| / sum_j |w_ij|: what a link is to its input and to its output (RI, of CHTs)."""
    size = _graphs(torch.where(context.mask, weight.abs(), 0.0), context.name)
    smallest = torch.finfo(size.dtype).tiny  # an input without links has nothing to share out
    both = size / size.sum(dim=-2, keepdim=True).clamp(min=smallest) + size / size.sum(dim=-1, keepdim=True).clamp(min=smallest)
    return both.reshape(weight.shape)


for _score in (ch3_l3, ch3_l3_hard, relative_importance):
    _score.needs_gradient = False  # type: ignore[attr-defined]

ch3_l3_soft = sampled(ch3_l3)
"""Draws in proportion to `ch3_l3`, without replacement."""


def _graphs(tensor: Tensor, name: str) -> Tensor:
    """A tensor of the weight's shape as (graphs, outputs, inputs)."""
    parts = 3 if name.endswith("in_proj_weight") else 1
    return tensor.reshape(parts, tensor.shape[0] // parts, -1)


def _through_rows(links: Tensor) -> Tensor:
    """(graphs, rows, columns) bool -> float64: the first of the two sums of `ch3_l3`, times `_UNIT`."""
    ones, exact = links.to(torch.float32), links.to(torch.float64)
    degree = ones.sum(dim=-1).unsqueeze(-2)
    sums = torch.empty_like(exact)
    with torch.autocast(links.device.type, enabled=False):  # a step inside of autocast would count in bfloat16: up to 256
        for start in range(0, links.shape[-2], _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            shared = ones[:, rows] @ ones.mT
            external = (degree - shared - 1).clamp(min=0).to(torch.float64)  # -1: an i itself, which is not linked to j
            sums[:, rows] = torch.where(shared > 0, (_UNIT / (1 + external)).round(), 0.0) @ exact
    return sums
