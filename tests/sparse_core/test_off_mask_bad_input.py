"""Weights off the mask: what is refused, and what is warned of."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

import sparse_core
from sparse_core import Method, SparseEngine, layout, scores
from tests.sparse_core.off_mask_runs import DATA, KAST, STE, started
from tests.sparse_core.small_trainings import backward, copied, mlp, same


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grow": scores.gradient}, "does not go with Method.grow = gradient"),
        ({"drop": scores.mest(1.0)}, "does not go with Method.drop = mest"),
        ({"scope": "global"}, "does not go with Method.scope = global"),
        ({"share": scores.magnitude}, "does not go with Method.share = magnitude"),
        ({"grown_value": 0.5}, "does not go with Method.grown_value = 0.5"),
        ({"on_update": "skip"}, "does not go with Method.on_update = skip"),
        ({"final_prune": True, "end": 9}, "does not go with Method.final_prune = True"),
        ({"density": None, "layout": layout.epsilon(3)}, "needs a Method.density, and the layout epsilon"),
        ({"backward": 0.1}, "OffMask.backward is 0.1, below the density of links 0.25"),
        ({"backward": 0.0}, "OffMask.backward is 0.0: expected a share"),
        ({"penalty": math.inf}, "OffMask.penalty is inf: expected a factor from 0"),
        ({"backward": 1.5}, "OffMask.backward is 1.5: expected a share"),
        ({"penalty": -1.0}, "OffMask.penalty is -1.0: expected a factor from 0"),
        ({"rate": 1.5}, "Method.rate is 1.5"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
def test_what_does_not_go_together_is_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        sparse_core.TopKAST(**{"density": 0.25, **fields})


def test_weights_that_are_not_finite_are_told_with_the_layer() -> None:
    run = started(STE, "SGD")
    run.step(DATA[0])
    before = copied(run.engine.masks)
    backward(run.model, DATA[1])
    run.model[2].weight.grad.view(-1)[3] = torch.nan  # type: ignore[index, union-attr, operator]
    with pytest.raises(FloatingPointError, match=r"2\.weight"):
        run.optimizer.step()
    assert same(run.engine.masks, before)


def engine_of_sparse_weights(method: Method, layers: tuple[int, ...] = (0, 2)) -> SparseEngine:
    model = mlp(8, 16, 4)
    with torch.no_grad():
        for weight in (model[layer].weight for layer in layers):
            weight.mul_(torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.1)  # type: ignore[operator]
    return sparse_core.sparsify(model, torch.optim.SGD(model.parameters(), lr=0.1), method)


def test_a_model_that_was_saved_sparse_begins_at_zero_off_the_mask_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"0\.weight and all others are zero off the mask"):
        engine = engine_of_sparse_weights(KAST)
    assert not any(value.any() for value in engine.off_mask.values())


def test_a_single_layer_that_is_zero_off_the_mask_is_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine_of_sparse_weights(KAST, layers=(2,))
