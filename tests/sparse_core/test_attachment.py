"""Engines that no longer hang off what is trained; two ranks that shard too late are in test_sharded."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.optim import optimizer as optimizers

import sparse_core
from tests.sparse_core.small_trainings import preset


def others_are_watched() -> int:
    return len(optimizers._global_optimizer_pre_hooks)


def sparse(model: nn.Module) -> sparse_core.SparseEngine:
    return sparse_core.sparsify(model, torch.optim.SGD(model.parameters(), lr=0.1), preset("RigL"))


def test_a_process_that_is_alone_watches_no_other_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    before = others_are_watched()
    engine = sparse(nn.Linear(4, 4))
    assert others_are_watched() == before
    engine.detach()


@pytest.mark.parametrize("ended", ["detached", "forgotten"])
def test_ranks_watch_other_optimizers_as_long_as_the_engine_lives(ended: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    before = others_are_watched()
    model = nn.Linear(4, 4)
    engine = sparse(model)
    assert others_are_watched() == before + 1
    other = torch.optim.SGD(model.parameters(), lr=0.1)  # of the same plain parameters: nobody's business
    model(torch.randn(2, 4)).sum().backward()
    other.step()
    if ended == "detached":
        engine.detach()
    del engine, model, other
    gc.collect()
    assert others_are_watched() == before


def test_model_and_engine_are_freed_together() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine = sparse_core.sparsify(model, optimizer, preset("RigL"))
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    left = weakref.ref(model), weakref.ref(engine), weakref.ref(model.weight)
    del model, optimizer, engine
    gc.collect()
    assert [one() for one in left] == [None] * 3


def test_the_engine_lives_as_long_as_its_optimizer() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    mask = sparse_core.sparsify(model, optimizer, preset("Static")).masks["weight"].clone()
    gc.collect()
    model(torch.randn(2, 4)).sum().backward()
    assert model.weight.grad is not None
    assert not model.weight.grad[~mask].any()
    assert model.weight.grad[mask].all()
