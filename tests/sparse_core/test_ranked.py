"""First masks over all layers together: the total is exact and no layer is left out in silence."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import layout


def uneven() -> nn.Sequential:
    """Three layers whose weights differ by orders of magnitude."""
    torch.manual_seed(1)
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)))
    with torch.no_grad():
        for layer, size in zip(model, (1.0, 1e-3, 1e-6), strict=True):
            layer.weight.uniform_(0.5, 1.0).mul_(size)
    return model


def masks(model: nn.Module, density: float, **options: object) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = sc.Static(density, layout=layout.global_magnitude(), **options)
    return dict(sc.sparsify(model, optimizer, method).masks)


def test_a_layer_that_would_get_none_gets_its_best_link_and_is_named() -> None:
    model = uneven()
    with pytest.warns(UserWarning, match=r"global magnitude would leave no link in 1.weight, 2.weight; each got its best one"):
        found = masks(model, 10 / 48)
    assert [int(mask.sum()) for mask in found.values()] == [8, 1, 1]
    for layer, mask in zip(model, found.values(), strict=True):
        kept = layer.weight.detach().abs()
        assert kept.view(-1)[mask.view(-1)].min() >= (kept * ~mask).max()


def test_nothing_is_said_where_every_layer_has_links() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = masks(uneven(), 40 / 48)
    assert [int(mask.sum()) for mask in found.values()] == [16, 16, 8]


def test_fixed_counts_per_group_cannot_be_ranked() -> None:
    with pytest.raises(ValueError, match=r"global magnitude ranks links over layers; fixed counts per group do not allow that"):
        masks(uneven(), 0.5, structure=sc.Structure(group="row"))


def test_scores_that_are_not_finite_are_named() -> None:
    model = uneven()
    model[1].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"1.weight: the layout global magnitude gives scores that are not finite"):
        masks(model, 0.5)
