"""Attention to a few listed neighbours, one neighbour at a time: no weights over all tokens, no copy of all their keys."""

from __future__ import annotations

import math
from typing import Any

import torch

from limtr.neighbors import Neighbors


def neighbor_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, neighbors: Neighbors, *, num_heads: int, dropout: float = 0.0
) -> torch.Tensor:
    """Multi-head attention in which every token sees its neighbours only, computed in at least float32.

    A token that sees nobody gets zeros, and sends back zero gradients. Its gradients have no gradients themselves.

    Args:
        query: (B, L, H * E).
        key: (B, L, H * E).
        value: (B, L, H * E).
        neighbors: of the L tokens.
        num_heads: H.
        dropout: share of attention weights dropped.

    Returns:
        (B, L, H * E).
    """
    out: torch.Tensor = _NeighborAttention.apply(  # type: ignore[no-untyped-call]
        query, key, value, neighbors.index, neighbors.seen, num_heads, dropout
    )
    return out


class _NeighborAttention(torch.autograd.Function):
    """The loop runs over the K places in the lists of neighbours; what it holds at a time is one (B * L, H * E) array."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, index: torch.Tensor, seen: torch.Tensor,
        num_heads: int, dropout: float,
    ) -> torch.Tensor:  # fmt: skip
        batch, length, width = query.shape
        rows, count, dim = batch * length, index.shape[-1], width // num_heads
        exact = torch.promote_types(query.dtype, torch.float32)
        queries = query.to(exact).reshape(rows, width) / math.sqrt(dim)
        keys, values = key.to(exact).reshape(rows, width), value.to(exact).reshape(rows, width)
        first = length * torch.arange(batch, device=index.device)[:, None, None]
        at = (index + first).reshape(rows, count).t().contiguous()
        visible = seen.reshape(rows, count).t().unsqueeze(-1)

        logits = torch.stack(
            [(queries * keys.index_select(0, at[place])).view(rows, num_heads, dim).sum(-1) for place in range(count)]
        )
        # Where nobody is seen there is no softmax; zeros take its place.
        logits.masked_fill_(~visible, float("-inf"))
        weights = logits.softmax(dim=0).masked_fill(~visible, 0.0)
        scale = None
        if dropout > 0.0:
            scale = (torch.rand_like(weights) >= dropout).to(exact) / (1.0 - dropout)
        used = weights if scale is None else weights * scale
        out = values.new_zeros(rows, num_heads, dim)
        for place in range(count):
            out.addcmul_(used[place].unsqueeze(-1), values.index_select(0, at[place]).view(rows, num_heads, dim))
        ctx.save_for_backward(queries, keys, values, at, weights, scale)
        return out.view(batch, length, width).to(query.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries, keys, values, at, weights, scale = ctx.saved_tensors
        (count, rows, num_heads), width = weights.shape, queries.shape[1]
        dim = width // num_heads
        flat = gradient.to(queries.dtype).reshape(rows, width)
        split, asked = flat.view(rows, num_heads, dim), queries.view(rows, num_heads, dim)
        used = weights if scale is None else weights * scale
        of_values, of_keys = torch.zeros_like(values), torch.zeros_like(keys)
        of_queries = torch.zeros_like(asked)
        of_weights = torch.empty_like(weights)
        for place in range(count):
            torch.sum((flat * values.index_select(0, at[place])).view(rows, num_heads, dim), -1, out=of_weights[place])
            of_values.index_add_(0, at[place], (used[place].unsqueeze(-1) * split).view(rows, width))
        if scale is not None:
            of_weights *= scale
        of_logits = weights * (of_weights - (of_weights * weights).sum(dim=0))
        for place in range(count):
            share = of_logits[place].unsqueeze(-1)
            of_queries.addcmul_(share, keys.index_select(0, at[place]).view(rows, num_heads, dim))
            of_keys.index_add_(0, at[place], (share * asked).view(rows, width))
        of_queries = of_queries / math.sqrt(dim)
        shape, kind = gradient.shape, gradient.dtype
        return (
            of_queries.view(shape).to(kind), of_keys.view(shape).to(kind), of_values.view(shape).to(kind),
            None, None, None, None,
        )  # fmt: skip
