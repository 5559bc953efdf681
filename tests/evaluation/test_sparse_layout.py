"""A predictor made sparse for measuring: as a sparse training begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evaluation.sparse_layout import make_sparse
from evaluation.zero_weights import zero_masks
from tests.training.small import recipe, session, small_model
from training.sparsity import SparsityOptions


@pytest.mark.parametrize("include", [("encoder.*",), ("*",)], ids=["encoders", "all"])
def test_links_are_spread_as_a_sparse_training_spreads_them(include: tuple[str, ...], tmp_path: Path) -> None:
    model = small_model()
    make_sparse(model, 0.3, include, seed=0)
    wanted = recipe(sparsity=SparsityOptions(method="static", density=0.3, include=include))
    trainer = session(tmp_path, wanted).trainer
    assert trainer.sparse is not None
    named = dict(model.named_parameters())
    for name, mask in trainer.sparse.engine.masks.items():
        assert torch.equal(named[name] != 0, mask), name
    others = {name: value for name, value in named.items() if name not in trainer.sparse.engine.masks}
    assert all(torch.equal(value, dict(small_model().named_parameters())[name]) for name, value in others.items())


def test_the_model_can_be_trained_densely_afterwards() -> None:
    model = small_model()
    make_sparse(model, 0.3, ("encoder.*",), seed=0)
    weight = model.get_parameter(next(iter(zero_masks(model))))
    weight.sum().backward()
    assert weight.grad is not None
    assert bool((weight.grad == 1).all())


def test_a_pattern_that_matches_nothing_is_told() -> None:
    with pytest.raises(ValueError, match="matches no weight"):
        make_sparse(small_model(), 0.3, ("nothing.*",), seed=0)


def test_only_matrices_with_a_good_part_of_zeros_have_masks() -> None:
    model = small_model()
    first, second = model.encoder.layers[0].linear1, model.encoder.layers[0].linear2
    with torch.no_grad():
        first.bias.zero_()
        first.weight[: len(first.weight) // 4] = 0.0
        second.weight[0, :3] = 0.0
    masks = zero_masks(model)
    assert list(masks) == ["encoder.layers.0.linear1.weight"]
    assert torch.equal(masks["encoder.layers.0.linear1.weight"], first.weight != 0)
