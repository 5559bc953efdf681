"""A sparse training under torch.compile: masks change without a new graph, and everything ends as it does without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import sparse_core
from evaluation.sparse_layout import with_packed
from limtr.loss import compute_loss
from limtr.predictor import MotionPredictor
from tests.limtr.model_builders import one_layer_config, random_batch

STEPS, EVERY, END = 7, 2, 6
BLIND_TO = "decoder.*.sa_*"
"""In the first decoder layer, here the only one, all queries have one content: whom they attend to changes nothing, and links
that grow there by gradients grow by rounding."""


def trained(method: sparse_core.Method, backend: Any = None) -> tuple[MotionPredictor, sparse_core.SparseEngine, list[int]]:
    """A few steps in float64; with a counting backend, how many frames were compiled by the end of each."""
    config = one_layer_config()
    torch.manual_seed(0)
    model = MotionPredictor(config).double().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, eps=1e-5)
    engine = sparse_core.sparsify(model, optimizer, method, include=with_packed(model, ("*",)), exclude=BLIND_TO)
    call = model if backend is None else torch.compile(model, backend=backend)
    batch, frames = random_batch(config), []
    for _ in range(STEPS):
        compute_loss(call(batch), batch, config).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        frames.append(0 if backend is None else backend.frame_count)
    return model, engine, frames


METHODS = {
    "rigl": lambda: sparse_core.RigL(density=0.3, end=END, every=EVERY),
    "set": lambda: sparse_core.SET(density=0.3, end=END, every=EVERY),
    "gmp": lambda: sparse_core.GMP(density=0.3, end=END, every=EVERY),
}


@pytest.mark.parametrize(
    ("method", "backend"),
    [("rigl", "eager"), *(pytest.param(name, "aot_eager", marks=pytest.mark.slow) for name in METHODS)],
)
def test_updates_of_the_links_compile_nothing_anew_and_end_as_without_compiling(method: str, backend: str) -> None:
    torch._dynamo.reset()
    model, engine, frames = trained(METHODS[method](), CompileCounterWithBackend(backend))
    assert engine.updates == END // EVERY
    assert frames[0] > 0
    assert frames == frames[:1] * STEPS
    plain, by_hand, _ = trained(METHODS[method]())
    assert any(bool((mask != by_hand.explored[name]).any()) for name, mask in by_hand.masks.items())
    for name, mask in by_hand.masks.items():
        assert torch.equal(engine.masks[name], mask), name
    # Over all weights: Adam moves those that the model is blind to, such as biases in front of a batch norm, by rounding too.
    found, expected = (torch.cat([value.detach().flatten() for value in each.parameters()]) for each in (model, plain))
    assert (found - expected).norm() <= 1e-9 * expected.norm()
