"""Attention by lists of neighbours equals attention with a mask over all tokens."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limtr.attention import masked_attention
from limtr.neighbor_attention import neighbor_attention
from limtr.neighbors import Neighbors, nearest_tokens


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 15), st.sampled_from([0.0, 0.4, 1.0]))
def test_results_and_gradients_are_those_of_a_mask(seed: int, tokens: int, count: int, share: float) -> None:
    torch.manual_seed(seed)
    inputs = [torch.randn(2, tokens, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    valid = torch.rand(2, tokens) < share
    neighbors = nearest_tokens(torch.randn(2, tokens, 3), valid, count)
    lists = neighbor_attention(*inputs, neighbors, num_heads=2)
    masked = masked_attention(*inputs, neighbors.allowed(), num_heads=2)
    weight = torch.arange(8, dtype=torch.float64)
    torch.testing.assert_close(lists, masked)
    torch.testing.assert_close(
        torch.autograd.grad((lists * weight).sum(), inputs), torch.autograd.grad((masked * weight).sum(), inputs)
    )
    assert not lists[~valid].any()


def test_gradients_are_those_of_finite_differences_also_with_dropped_weights() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    neighbors = nearest_tokens(torch.randn(1, 5, 3), torch.tensor([[True, True, True, True, False]]), 3)

    def attend(*tensors: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # the same weights are dropped each time
        return neighbor_attention(*tensors, neighbors, num_heads=2, dropout=0.4)

    assert torch.autograd.gradcheck(attend, inputs)


def test_dropped_weights_are_right_on_average() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 6, 4) for _ in range(3))
    neighbors = nearest_tokens(torch.randn(1, 6, 3), torch.ones(1, 6, dtype=torch.bool), 4)
    whole = neighbor_attention(query, key, value, neighbors, num_heads=1)
    drawn = [neighbor_attention(query, key, value, neighbors, num_heads=1, dropout=0.3) for _ in range(3000)]
    assert not torch.allclose(drawn[0], whole)
    torch.testing.assert_close(torch.stack(drawn).mean(dim=0), whole, atol=0.06, rtol=0.0)


def test_half_precision_is_summed_in_float32() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 40, 16).bfloat16().requires_grad_() for _ in range(3)]
    neighbors = nearest_tokens(torch.randn(2, 40, 3), torch.ones(2, 40, dtype=torch.bool), 8)
    out = neighbor_attention(*inputs, neighbors, num_heads=4)
    assert out.dtype == torch.bfloat16
    exact = neighbor_attention(*(x.float() for x in inputs), neighbors, num_heads=4)
    torch.testing.assert_close(out, exact.bfloat16())
    assert all(gradient.dtype == torch.bfloat16 for gradient in torch.autograd.grad(out.sum(), inputs))


def test_a_token_may_be_listed_unseen() -> None:
    index = torch.tensor([[[0, 1], [1, 0]]])
    seen = torch.tensor([[[True, False], [False, False]]])
    value = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    out = neighbor_attention(torch.ones(1, 2, 2), torch.ones(1, 2, 2), value, Neighbors(index, seen), num_heads=1)
    assert out.tolist() == [[[1.0, 2.0], [0.0, 0.0]]]
