"""Masked attention: both paths agree, and a query that sees nothing gets nothing."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limtr.attention import masked_attention


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(0, 12), st.sampled_from([0.0, 0.3, 1.0]))
def test_dense_and_gathered_agree_in_results_and_gradients(seed: int, queries: int, keys: int, share: float) -> None:
    torch.manual_seed(seed)
    inputs = [
        torch.randn(2, length, 2 * width, dtype=torch.float64, requires_grad=True)
        for length, width in ((queries, 4), (keys, 4), (keys, 3))
    ]
    allowed = torch.rand(2, queries, keys) < share
    results = []
    for path in ("dense", "gathered"):
        result = masked_attention(*inputs, allowed, num_heads=2, path=path)
        gradients = torch.autograd.grad((result * torch.arange(6)).sum(), inputs)
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        results.append((result, gradients))
    torch.testing.assert_close(results[0], results[1])
    blind = ~allowed.any(dim=-1)
    assert not results[0][0][blind].any()


def test_gathering_few_keys_is_enough_when_no_query_sees_more() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 6, 8), torch.randn(2, 20, 8), torch.randn(2, 20, 8)
    allowed = torch.zeros(2, 6, 20, dtype=torch.bool).scatter_(2, torch.rand(2, 6, 20).topk(4).indices, True)
    dense = masked_attention(query, key, value, allowed, num_heads=2)
    gathered = masked_attention(query, key, value, allowed, num_heads=2, path="gathered", max_keys=4)
    torch.testing.assert_close(dense, gathered, atol=1e-5, rtol=1e-5)


def test_dropped_weights_are_zero_or_scaled_and_right_on_average() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 400, 8), torch.randn(1, 6, 8)
    value = torch.eye(6).repeat(1, 1, 1)  # the result is the row of weights itself
    allowed = torch.rand(1, 400, 6) < 0.7
    for path in ("dense", "gathered"):
        kept = masked_attention(query, key, value, allowed, num_heads=1, path=path)
        dropped = masked_attention(query, key, value, allowed, num_heads=1, dropout=0.25, path=path)
        gone = dropped == 0
        torch.testing.assert_close(dropped[~gone], kept[~gone] / 0.75, rtol=1e-4, atol=1e-6)
        share = (gone & (kept > 0)).sum() / (kept > 0).sum()
        assert abs(float(share) - 0.25) < 0.05
