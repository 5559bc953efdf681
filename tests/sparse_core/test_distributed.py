"""Two ranks under DistributedDataParallel decide what one process with the whole batch decides, without a word about masks."""

from __future__ import annotations

import collections
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import sparse_core
from sparse_core import Method, layout
from sparse_core.constant_fan_in import ConstantFanIn
from sparse_core.threshold import Threshold
from tests.sparse_core.small_trainings import backward, batches, copied, mlp, preset, same
from tests.sparse_core.two_ranks import RANKS, counted_collectives, on_ranks

DATA = batches(7, 8, 6, 5, torch.float64)
METHODS: dict[str, Method] = {
    "SET": preset("SET"),
    "RigL": preset("RigL"),
    "ITOP": preset("ITOP"),
    "SNFS": preset("SNFS"),
    "MEST": preset("MEST"),
    "GraNet": preset("GraNet"),
    "CHT": preset("CHT"),
    "CHTs": preset("CHTs"),
    "SRigL": preset("SRigL", fan_in=ConstantFanIn(0.7)),
    "DSR": preset("DSR", rate=0.3, threshold=Threshold(0.1)),
    "Top-KAST": preset("Top-KAST"),
    "SR-STE": preset("SR-STE", density=0.5, structure=sparse_core.Structure(group=2)),
    "RigL-skip": preset("RigL", on_update="skip"),
}


def trained(method: Method, view: bool | None, rank: int = 0) -> dict[str, Any]:
    """A training; `view`: gradient_as_bucket_view of a rank with its half of every batch in two parts, None: all in one."""
    model = mlp(6, 12, 5, dtype=torch.float64)
    outer: nn.Module = model if view is None else DistributedDataParallel(model, gradient_as_bucket_view=view)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    engine = sparse_core.sparsify(outer, optimizer, method, seed=3)
    torch.manual_seed(100 + rank)  # what torch's own generator would draw differs between ranks
    masks, collectives = [copied(engine.masks)], collections.Counter[str]()
    for x, y in DATA:
        optimizer.zero_grad()
        if isinstance(outer, DistributedDataParallel):
            x, y = x[rank::RANKS], y[rank::RANKS]
            with outer.no_sync():
                backward(outer, (x[:2], y[:2]), share=0.5)
            backward(outer, (x[2:], y[2:]), share=0.5)
        else:
            backward(outer, (x, y))
        with counted_collectives() as calls:
            optimizer.step()
        collectives += calls
        masks.append(copied(engine.masks))
    return {
        "masks": masks,
        "weights": copied(dict(model.named_parameters())),
        "collectives": dict(collectives),
        "updates": engine.updates,
    }


def snip(rank: int | None, wrapped: bool) -> dict[str, Tensor]:
    """The masks of one-shot SNIP; each rank has its own half of the batch, None: one process has all."""
    model = mlp(6, 12, 5, dtype=torch.float64)
    outer = DistributedDataParallel(model) if wrapped else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = DATA[0] if rank is None else (DATA[0][0][rank::RANKS], DATA[0][1][rank::RANKS])

    def loss() -> Tensor:
        return nn.functional.mse_loss(outer(x), y)

    engine = sparse_core.sparsify(outer, optimizer, preset("RigL", density=0.4, layout=layout.one_shot_snip(loss)))
    assert all(parameter.grad is None for parameter in model.parameters())
    for batch in DATA[:3]:  # the wrapper still works
        optimizer.zero_grad()
        backward(outer, batch)
        optimizer.step()
    return engine.explored if rank is None else copied(engine.explored)


def local_snip(rank: int) -> dict[str, Tensor]:
    """What a rank would choose by its own half alone: without it, the averaging could not be seen."""
    with_half = mlp(6, 12, 5, dtype=torch.float64)
    loss = nn.functional.mse_loss(with_half(DATA[0][0][rank::RANKS]), DATA[0][1][rank::RANKS])
    names, weights = zip(*[(n, p) for n, p in with_half.named_parameters() if p.dim() == 2], strict=True)
    scores = [(w * g).abs().flatten() for w, g in zip(weights, torch.autograd.grad(loss, weights), strict=True)]
    every = torch.cat(scores)
    best = torch.zeros_like(every, dtype=torch.bool).scatter_(0, every.topk(round(0.4 * len(every))).indices, True)
    parts = torch.split(best, [len(score) for score in scores])
    return {name: part.view_as(weight) for name, part, weight in zip(names, parts, weights, strict=True)}


def initial_snip(rank: int | None) -> dict[str, Tensor]:
    model = mlp(6, 12, 5, dtype=torch.float64)
    x, y = DATA[0] if rank is None else (DATA[0][0][rank::RANKS], DATA[0][1][rank::RANKS])
    how = layout.one_shot_snip(lambda: nn.functional.mse_loss(model(x), y))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counted_collectives() as calls:
        engine = sparse_core.sparsify(model, optimizer, sparse_core.Static(0.4, layout=how))
    return {**copied(engine.masks), "reductions": torch.tensor(calls["all_reduce"])}


def initial_ranked(rank: int | None, name: str, wrapped: bool = True) -> dict[str, Tensor]:
    """The masks of GraSP, each rank with its half of a batch (None: one process has all), or of SynFlow, which needs none."""
    model = mlp(6, 12, 5, dtype=torch.float64)
    x, y = DATA[0] if rank is None else (DATA[0][0][rank::RANKS], DATA[0][1][rank::RANKS])
    outer: nn.Module = DistributedDataParallel(model) if wrapped else model
    how = {
        "grasp": layout.one_shot_grasp(lambda temperature: nn.functional.mse_loss(outer(x) / temperature, y), 2.0),
        "synflow": layout.synflow(x, 20),
    }[name]
    torch.manual_seed(0 if rank is None else rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return copied(sparse_core.sparsify(outer, optimizer, sparse_core.Static(0.4, layout=how)).masks)


def rank_main(rank: int, folder: str) -> None:
    found: dict[str, Any] = {"snip": initial_snip(rank), "snip-wrapped": snip(rank, True), "snip-plain": snip(rank, False)}
    found |= {name: initial_ranked(rank, name) for name in ("grasp", "synflow")}
    for name, method in METHODS.items():
        for view in (False, True):
            found[f"{name}-{view}"] = trained(method, view, rank)
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found, all of it in one process group."""
    return on_ranks(rank_main, tmp_path_factory.mktemp("ranks"), limit_s=180)


@pytest.mark.parametrize("view", [False, True], ids=["own gradients", "bucket views"])
@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_have_the_masks_of_one_process(name: str, view: bool, ranks: list[dict[str, Any]]) -> None:
    alone = trained(METHODS[name], None)
    assert alone["updates"] == 3
    assert not same(alone["masks"][1], alone["masks"][2])
    for found in ranks:
        run = found[f"{name}-{view}"]
        assert run["updates"] == 3
        for step, (ours, theirs) in enumerate(zip(run["masks"], alone["masks"], strict=True)):
            assert same(ours, theirs), f"step {step}"
        for parameter, weight in run["weights"].items():
            assert torch.allclose(weight, alone["weights"][parameter], rtol=0, atol=1e-12), parameter


@pytest.mark.parametrize("name", METHODS)
def test_steps_issue_no_collective(name: str, ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        for view in (False, True):
            assert {call: number for call, number in found[f"{name}-{view}"]["collectives"].items() if number} == {}


def test_one_shot_snip_is_averaged_over_ranks_before_anything_is_chosen(ranks: list[dict[str, Any]]) -> None:
    alone = initial_snip(None)
    assert alone.pop("reductions") == 0
    for rank, found in enumerate(ranks):
        assert found["snip"].pop("reductions") == 2  # one a layer
        assert same(found["snip"], alone)
        assert not same(local_snip(rank), alone)


def test_one_shot_snip_may_use_the_wrapped_model(ranks: list[dict[str, Any]]) -> None:
    alone = snip(None, False)
    for found in ranks:
        assert same(found["snip-plain"], found["snip-wrapped"])
        assert same({**found["snip-wrapped"]}, dict(alone))


@pytest.mark.parametrize("name", ["grasp", "synflow"])
def test_grasp_and_synflow_start_with_the_links_of_one_process(name: str, ranks: list[dict[str, Any]]) -> None:
    alone = initial_ranked(None, name, wrapped=False)
    assert sum(int(mask.sum()) for mask in alone.values()) == round(0.4 * (72 + 60))
    for found in ranks:
        assert same(found[name], alone)
    if name == "grasp":  # a rank's half alone would have chosen others
        assert not same(initial_ranked(0, name, wrapped=False), alone)


def test_collectives_are_counted_where_there_are_some() -> None:
    with counted_collectives() as calls, pytest.raises(ValueError, match="process group"):
        dist.all_reduce(torch.ones(1))
    assert calls["all_reduce"] == 1
