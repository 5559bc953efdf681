"""Sine codes, PointNets and pooling."""

from __future__ import annotations

import math

import pytest
import torch

from limtr.config import PointStageConfig
from limtr.polyline_encoder import PointNet, pool
from limtr.position import sine_code


def test_sine_code_puts_y_first_and_interleaves_sine_and_cosine() -> None:
    code = sine_code(torch.tensor([[0.25, 3.1, 99.0]], dtype=torch.float64), 8)[0]
    y, x = 2 * math.pi * 3.1, 2 * math.pi * 0.25
    expected = [f(v / w) for v in (y, x) for w in (1.0, 100.0) for f in (math.sin, math.cos)]
    torch.testing.assert_close(code, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("pooling", ["max", "average", "average-over-padding"])
@pytest.mark.parametrize("concat", [True, False])
def test_packed_and_padded_pointnets_agree(pooling: str, concat: bool) -> None:
    torch.manual_seed(0)
    stage = PointStageConfig(num_pre_layers=2, pre_dim=6, num_layers=2, dim=5, concat_pooled=concat)
    net = PointNet(3, stage, pooling).double()  # type: ignore[arg-type]
    x, mask = torch.randn(2, 7, 9, 3, dtype=torch.float64), torch.rand(2, 7, 9) < 0.4
    x = torch.where(mask.unsqueeze(-1), x, 0.0)
    mask[0, 0] = False
    weight, parameters = torch.randn(2, 7, 5, dtype=torch.float64), list(net.parameters())
    results = []
    for path in (net._packed, net._padded):
        pooled = path(x, mask)
        results.append((pooled.detach(), torch.autograd.grad((pooled * weight).sum(), parameters)))
    torch.testing.assert_close(results[0], results[1])
    assert not results[0][0][0, 0].any()


def test_averages_count_valid_elements_or_in_reference_mode_all() -> None:
    x, mask = torch.tensor([[2.0], [4.0], [9.0]]), torch.tensor([True, True, False])
    assert float(pool(x, mask, "average")) == 3.0
    assert float(pool(x, mask, "average-over-padding")) == 2.0
    assert float(pool(x, mask, "max")) == 4.0
