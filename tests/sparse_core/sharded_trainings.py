"""Small trainings under FSDP2 on two ranks, and the same in one process: what the tests of sharded weights have in common."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

import sparse_core
from sparse_core import Method, SparseEngine, Structure, masks, schedules
from tests.sparse_core.small_trainings import batches, preset
from tests.sparse_core.two_ranks import RANKS, counted_collectives

STEPS = 11  # with an update in every second one: five
DATA = batches(STEPS, 8, 20, 5, torch.float64)


class Branches(nn.Module):
    """Two branches, with weights of 33 x 20, 5 x 33 and 1 x 20: the last is on one of two ranks only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(20, 33, dtype=torch.float64)
        self.second = nn.Linear(33, 5, dtype=torch.float64)
        self.narrow = nn.Linear(20, 1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x))) + self.narrow(x)


def third_forbidden(name: str, shape: tuple[int, ...]) -> Tensor:
    return (torch.arange(torch.Size(shape).numel()) % 3 != 1).view(shape)


def whole_rank_order(weight: Tensor, gradient: Tensor | None, context: sparse_core.scores.Context) -> Tensor:
    """A score that looks at other weights: how many of its column are larger. Not marked as elementwise.

    By all that it may know of a weight: gradient, optimizer's state and place.
    """
    assert gradient is not None
    place = (torch.arange(weight.numel()) + context.offset).view_as(weight) % 7
    value = weight.abs() + 3.0 * gradient.abs() + context.state["exp_avg"].abs() + 0.02 * place
    return -(value.unsqueeze(0) > value.unsqueeze(1)).sum(dim=1).to(weight.dtype) + 1e-3 * value


ROWS, NEIGHBOURS = Structure(group="row"), Structure(group=4)
METHODS: dict[str, Method] = {
    "Static": preset("Static"),
    "SET": preset("SET"),
    "RigL": preset("RigL"),
    "RigL-skip": preset("RigL", on_update="skip"),
    "RigL-global": preset("RigL", scope="global"),
    "ITOP": preset("ITOP"),
    "SNFS": preset("SNFS"),
    "MEST": preset("MEST-soft", end=10),
    "GMP": preset("GMP", density=0.1, end=10),
    "GMP-layer": preset("GMP", density=0.1, end=10, scope="layer"),
    "GraNet": preset("GraNet", density=0.1, end=10),
    "rows-RigL": preset("RigL", structure=ROWS),
    "rows-SET": preset("SET", structure=ROWS),
    "rows-falling": preset("GMP", density=0.1, end=10, structure=ROWS, scope="layer"),
    "2:4-RigL": preset("RigL", density=0.5, structure=NEIGHBOURS),
    "2:4-SET": preset("SET", density=0.5, structure=NEIGHBOURS),
    "channel": preset("RigL", density=0.5, structure=Structure(unit="channel")),
    "region": preset("RigL", structure=Structure(allowed=third_forbidden)),
    "whole": preset("RigL", drop=whole_rank_order),
    "rising": replace(preset("RigL", end=10), density=schedules.Linear(0.1, 0.6)),
}


def included(name: str) -> list[str]:
    return ["first", "narrow"] if name.startswith("2:4") else ["first", "second", "narrow"]


def shard(model: Branches, mixed: bool = False) -> nn.Module:
    ignored = {model.narrow.weight, model.narrow.bias} if mixed else set()
    fully_shard(model.first)
    return fully_shard(model, ignored_params=ignored)


def made(
    name: str, sharded: bool, mixed: bool = False, optimizer: str = "Adam", seed: int = 3
) -> tuple[Branches, torch.optim.Optimizer, SparseEngine]:
    model = Branches()
    if sharded:
        shard(model, mixed)
    options = {"momentum": 0.9} if optimizer == "SGD" else {}
    steps = getattr(torch.optim, optimizer)(model.parameters(), lr=0.02, **options)
    return model, steps, sparse_core.sparsify(model, steps, METHODS[name], include=included(name), seed=seed)


def backward(model: nn.Module, batch: tuple[Tensor, Tensor], parts: int = 1) -> None:
    """The gradient of the mean over a batch; under FSDP2 of this rank's half, in several parts of which the last is reduced."""
    sharded = isinstance(model, torch.distributed.fsdp.FSDPModule)
    if sharded:
        batch = tuple(tensor[dist.get_rank() :: RANKS] for tensor in batch)
    for part in range(parts):
        if sharded:
            model.set_requires_gradient_sync(part == parts - 1)
        x, y = (tensor[part::parts] for tensor in batch)
        (nn.functional.mse_loss(model(x), y) / parts).backward()
    for parameter in model.parameters():
        if sharded and type(parameter) is nn.Parameter and parameter.grad is not None:  # not sharded: nobody averages it
            dist.all_reduce(parameter.grad)
            parameter.grad /= RANKS


def whole(tensor: Any) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: whole(parameter) for name, parameter in model.named_parameters()}


def assert_zero_off_the_mask(model: nn.Module, optimizer: torch.optim.Optimizer, engine: SparseEngine) -> None:
    """Weight and state, of the rows that are here."""
    named = dict(model.named_parameters())
    for name, mask in engine.masks.items():
        parameter = named[name]
        state = [value for value in optimizer.state[parameter].values() if tuple(value.shape) == tuple(parameter.shape)]
        for tensor in (parameter, *state):
            here = tensor.detach().to_local() if hasattr(tensor, "to_local") else tensor.detach()
            assert here.shape == mask.shape
            assert not here[~mask].any(), name


def trained(name: str, sharded: bool, parts: int = 1, **options: Any) -> dict[str, Any]:
    """A training, and all that can be seen of it in whole tensors."""
    model, optimizer, engine = made(name, sharded, **options)
    found, ordinary = [masks.whole(engine)], collections.Counter[str]()
    for step, batch in enumerate(DATA, start=1):
        optimizer.zero_grad()
        backward(model, batch, parts)
        if sharded:
            with counted_collectives() as calls:
                optimizer.step()
            ordinary += calls if not engine.method.due(step) else collections.Counter()
        else:
            optimizer.step()
        found.append(masks.whole(engine))
        if sharded:
            assert_zero_off_the_mask(model, optimizer, engine)
    return {
        "masks": found,
        "weights": weights(model),
        "updates": engine.updates,
        "ordinary": sum(ordinary.values()),
        "report": str(engine.report()),
        "explored": masks.exploration_rate(engine).total,
        "here": sum(mask.numel() for mask in engine.masks.values()),
    }


def close(a: Mapping[str, Tensor], b: Mapping[str, Tensor], at_most: float = 1e-9) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], rtol=0, atol=at_most) for name in a)


def message(call: Callable[[], Any]) -> str:
    """The error that a call raises, its class first."""
    try:
        call()
    except (ValueError, RuntimeError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"
