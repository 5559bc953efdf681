"""The dense future prediction: who gets one, and in which precision."""

from __future__ import annotations

import torch

from limtr.dense_future import DenseFuture


def predict(*, autocast: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    module = DenseFuture(16, 4)
    feature, position = torch.randn(3, 5, 16), 100 * torch.randn(3, 5, 3)
    valid = torch.rand(3, 5) < 0.6
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        return *module(feature, valid, position), valid


def test_predicted_metres_stay_exact_under_autocast() -> None:
    exact, found = predict(autocast=False)[1], predict(autocast=True)[1]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0, atol=0)


def test_agents_that_are_not_there_get_no_future() -> None:
    feature, trajectory, valid = predict(autocast=False)
    assert not feature[~valid].any()
    assert not trajectory[~valid].any()
    assert trajectory[valid].any(dim=-1).all()
