"""Attention restricted to some keys per query: dense with a mask, or gathered; both behind one function."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from limtr.dropout import drop


def masked_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    allowed: torch.Tensor,
    *,
    num_heads: int,
    dropout: float = 0.0,
    path: str = "dense",
    max_keys: int | None = None,
) -> torch.Tensor:
    """Multi-head attention in which every query sees only the keys allowed to it.

    A query that sees no key gets zeros, and sends back zero gradients.

    Args:
        query: (B, Lq, H * E).
        key: (B, Lk, H * E).
        value: (B, Lk, H * V); V may differ from E.
        allowed: (B, Lq or 1, Lk) bool.
        num_heads: H.
        dropout: share of attention weights dropped.
        path: "dense" masks the full weight matrix; "gathered" collects the allowed keys of each query first.
        max_keys: for "gathered": no query is allowed more keys than this (default: all keys).

    Returns:
        (B, Lq, H * V).
    """
    if not torch.compiler.is_exporting() and (key.shape[1] == 0 or query.shape[0] == 0):
        # A product with every input keeps their gradients defined (zero).
        nothing = query.sum() * 0 + key.sum() * 0 + value.sum() * 0
        return query.new_zeros((*query.shape[:2], value.shape[-1])) + nothing
    if path == "gathered":
        return _gathered(query, key, value, allowed, num_heads, dropout, max_keys)
    sees_any = allowed.any(dim=-1, keepdim=True)
    # An all-masked row has no softmax; let it see everything and set the result to zero.
    mask = (allowed | ~sees_any).unsqueeze(1)
    queries, keys, values = (split_heads(x, num_heads).transpose(1, 2) for x in (query, key, value))
    if dropout > 0.0 and query.device.type == "cpu":
        # No kernel of torch's drops weights on a CPU, and its fallback draws a random number for each.
        logits = (queries / math.sqrt(queries.shape[-1])) @ keys.transpose(-2, -1)
        heads = drop(logits.masked_fill_(~mask, float("-inf")).softmax(dim=-1), dropout) @ values
    else:
        heads = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)
    joined = heads.transpose(1, 2).flatten(start_dim=2)
    return torch.where(sees_any, joined, 0.0)


def _gathered(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    allowed: torch.Tensor,
    num_heads: int,
    dropout: float,
    max_keys: int | None,
) -> torch.Tensor:
    batch, num_queries = query.shape[:2]
    num_keys = key.shape[1]
    count = num_keys if max_keys is None else min(max_keys, num_keys)
    seen, index = allowed.expand(-1, num_queries, -1).to(torch.int8).topk(count, dim=-1, sorted=False)
    seen = seen.bool()
    row = torch.arange(batch, device=query.device)[:, None, None]
    queries = split_heads(query, num_heads)
    keys = split_heads(key[row, index], num_heads)
    values = split_heads(value[row, index], num_heads)
    logits = torch.einsum("bqhe,bqkhe->bqhk", queries, keys) / math.sqrt(queries.shape[-1])
    sees_any = seen.any(dim=-1, keepdim=True)
    logits = logits.masked_fill(~(seen | ~sees_any).unsqueeze(2), float("-inf"))
    weights = drop(logits.softmax(dim=-1), dropout)
    joined = torch.einsum("bqhk,bqkhv->bqhv", weights.to(values.dtype), values).flatten(start_dim=2)
    return torch.where(sees_any, joined, 0.0)


def split_heads(x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """(..., H * E) to (..., H, E)."""
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)
