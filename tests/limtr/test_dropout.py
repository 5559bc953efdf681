"""Dropout: zero with the stated probability, scaled so that the expectation stays, drawn from torch's generator."""

from __future__ import annotations

import pytest
import torch

from limtr.dropout import Dropout, drop


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_stated_share_is_dropped_and_the_mean_stays(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    out = drop(torch.ones(100_001, dtype=dtype), p)
    assert out.dtype == dtype
    assert abs(float((out == 0).double().mean()) - p) < 0.01
    assert len(out.unique()) == 2
    assert abs(float(out.double().mean()) - 1.0) < 0.02


def test_entries_are_dropped_independently_of_their_neighbours() -> None:
    torch.manual_seed(0)
    gone = drop(torch.ones(400_000), 0.5).reshape(-1, 4) == 0
    for first in range(4):
        for second in range(first):
            both = (gone[:, first] & gone[:, second]).double().mean()
            assert abs(float(both) - 0.25) < 0.01


def test_gradients_flow_where_features_were_kept() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 7, requires_grad=True)
    out = drop(x, 0.3)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient * x, out)


def test_the_generators_seed_decides_and_evaluation_draws_nothing() -> None:
    layer, x = Dropout(0.4), torch.ones(1000)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)
    before = torch.get_rng_state()
    assert layer.eval()(x) is x
    assert drop(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (2, 0, 4)])
def test_any_shape_will_do(shape: tuple[int, ...]) -> None:
    assert drop(torch.ones(shape), 0.5).shape == shape


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_probability_that_is_none_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="p must be in"):
        Dropout(p)
