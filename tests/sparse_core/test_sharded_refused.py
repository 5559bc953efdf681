"""Under FSDP2, what ranks that hold some rows each cannot do is refused by all of them, with a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

import sparse_core
from sparse_core import Method, Structure, layout, masks, scores
from tests.sparse_core.sharded_trainings import (
    DATA,
    Branches,
    backward,
    made,
    message,
    shard,
)
from tests.sparse_core.small_trainings import copied, preset, same
from tests.sparse_core.two_ranks import RANKS, on_ranks

WHOLE = ("cost", "cost, whole masks", "compile_sparse", "to_24", "freeze", "scale_to_fan_in", "sync_target")


def sharded(method: Method, include: str = "first", **options: Any) -> Any:
    model = Branches()
    shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return sparse_core.sparsify(model, optimizer, method, include=include, **options)


def sharded_too_late(new_optimizer: bool, detached: bool = False) -> None:
    model = Branches()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine = sparse_core.sparsify(model, optimizer, preset("RigL"))
    shard(model)
    if detached:
        engine.detach()
    if new_optimizer:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    backward(model, DATA[0])
    optimizer.step()


def cut_otherwise(placement: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    model = nn.Linear(20, 33)
    if placement == "columns":
        fully_shard(model, shard_placement_fn=lambda parameter: Shard(parameter.dim() - 1))
    else:
        fully_shard(model, mesh=init_device_mesh("cpu", (1, RANKS), mesh_dim_names=("replicate", "shard")))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse_core.sparsify(model, optimizer, preset("RigL"))


def two_meshes() -> None:
    from torch.distributed.device_mesh import init_device_mesh

    model = Branches()
    for name, part in (("one", model.first), ("other", model.second)):
        fully_shard(part, mesh=init_device_mesh("cpu", (RANKS,), mesh_dim_names=(name,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse_core.sparsify(model, optimizer, preset("RigL"), include=["first", "second"])


def said_by_update(
    model: Branches, optimizer: torch.optim.Optimizer, engine: sparse_core.SparseEngine, then: Callable[[], None] | None = None
) -> str:
    """What an update says in the first step.

    Args:
        then: done between the backward pass and the step.
    """
    engine.update(0.3)
    backward(model, DATA[0])
    if then is not None:
        then()
    return message(optimizer.step)


def not_finite(rank: int) -> str:
    """A gradient that is not finite in a row that only the first rank has."""
    model, optimizer, engine = made("RigL", True)
    before = copied(engine.masks)

    def spoil() -> None:
        gradient = model.first.weight.grad
        assert gradient is not None
        gradient.to_local()[0] = float("nan")  # type: ignore[attr-defined]

    text = said_by_update(model, optimizer, engine, spoil if rank == 0 else None)
    return text if same(engine.masks, before) else "the masks changed"


def drifted(rank: int) -> str:
    """What the next update says where the ranks have loaded different states."""
    states = [made("RigL", True, seed=seed)[2].state_dict() for seed in (1, 2)]
    model, optimizer, engine = made("RigL", True)
    states[rank]["seed"] = 3
    engine.load_state_dict(states[rank])
    return said_by_update(model, optimizer, engine)


def drifted_whole(rank: int) -> str:
    """What the next update says where a weight that is not sharded has as many links on each rank, but at other places."""
    model, optimizer, engine = made("RigL", True, mixed=True)
    engine.masks["narrow.weight"][0, rank] = False  # one of 20 links, all of which it had
    return said_by_update(model, optimizer, engine)


def drifted_updates(rank: int) -> str:
    """What the next update says where one rank has loaded a state with another number of updates, and is else the same."""
    model, optimizer, engine = made("RigL", True)
    engine.load_state_dict({**engine.state_dict(), "updates": rank})
    return said_by_update(model, optimizer, engine)


def one_without_a_gradient(rank: int) -> str:
    """What the update says where the first rank alone has lost a gradient."""
    model, optimizer, engine = made("RigL", True)

    def lose() -> None:
        model.narrow.weight.grad = None

    return said_by_update(model, optimizer, engine, lose if rank == 0 else None)


def one_asked_for_more(rank: int) -> str:
    """What the update says where the first rank alone was asked for a larger one."""
    model, optimizer, engine = made("RigL", True)
    return said_by_update(model, optimizer, engine, (lambda: engine.update(0.4)) if rank == 0 else None)


def remembering(weight: Tensor, gradient: Tensor | None, context: scores.Context) -> Tensor:
    """A score, not marked as elementwise, that would keep the whole layer."""
    context.memory["of all rows"] = weight.abs()
    return weight.abs()


def remembered() -> str:
    model = Branches()
    shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine = sparse_core.sparsify(model, optimizer, preset("RigL", drop=remembering), include="first")
    return said_by_update(model, optimizer, engine)


def cut_gradient() -> str:
    """What a step says of a gradient that every rank has whole."""
    from torch.distributed.tensor import Replicate

    model, optimizer, _ = made("RigL", True)
    backward(model, DATA[0])
    gradient = model.first.weight.grad
    assert gradient is not None
    model.first.weight.grad = None
    model.first.weight.grad = gradient.redistribute(placements=[Replicate()])  # type: ignore[attr-defined]
    return message(optimizer.step)


def watching(weight: Tensor, gradient: Tensor | None, context: scores.Context) -> Tensor:
    return weight.abs()


watching.every_step = True  # type: ignore[attr-defined]


@dataclass(frozen=True)
class WithMore(Method):
    """A method of a kind that nobody has tried on sharded weights."""

    surprise: float | None = None


def wants_whole_weights() -> dict[str, str]:
    """What functions for whole models say, given the masks of the rows that are here or the whole ones."""
    model, optimizer, engine = made("RigL", True)
    whole = SimpleNamespace(masks=masks.whole(engine))
    sample = DATA[0][0][:1]
    return {
        "cost": message(lambda: sparse_core.cost(model, sample, engine.masks)),
        "cost, whole masks": message(lambda: sparse_core.cost(model, sample, whole.masks)),
        "compile_sparse": message(lambda: sparse_core.compile_sparse(model, whole, sample)),
        "to_24": message(lambda: sparse_core.to_24(model, whole)),
        "freeze": message(lambda: masks.freeze(optimizer, model, whole.masks, engine)),
        "scale_to_fan_in": message(lambda: sparse_core.scale_to_fan_in(model, engine.masks)),
        "sync_target": message(lambda: masks.sync_target(model, whole.masks, "mask")),
    }


def errors(rank: int) -> dict[str, str]:
    return {
        **{f"whole: {name}": text for name, text in wants_whole_weights().items()},
        "SRigL": message(lambda: sharded(preset("SRigL"))),
        "DSR": message(lambda: sharded(preset("DSR"))),
        "Top-KAST": message(lambda: sharded(preset("Top-KAST"))),
        "late": message(lambda: sharded_too_late(False)),
        "late, new optimizer": message(lambda: sharded_too_late(True)),
        "late, detached": message(lambda: sharded_too_late(True, detached=True)),
        "columns": message(lambda: cut_otherwise("columns")),
        "two axes": message(lambda: cut_otherwise("two axes")),
        "two meshes": message(two_meshes),
        "blocks": message(lambda: sharded(preset("RigL", structure=Structure(unit=(3, 2))))),
        "input channels": message(lambda: sharded(preset("RigL", structure=Structure(unit="input channel")))),
        "output groups": message(
            lambda: sharded(preset("RigL", structure=Structure(group=sparse_core.structure.output_groups(3))))
        ),
        "loss": message(lambda: sharded(preset("RigL", layout=layout.one_shot_snip(lambda: torch.zeros(()))))),
        "watching": message(lambda: sharded(preset("RigL", drop=watching))),
        "surprise": message(lambda: sharded(WithMore(density=0.5, surprise=0.1))),
        "seeds": message(lambda: sharded(preset("RigL"), seed=rank)),
        "not finite": not_finite(rank),
        "drifted": drifted(rank),
        "drifted, not sharded": drifted_whole(rank),
        "drifted, updates": drifted_updates(rank),
        "one without a gradient": one_without_a_gradient(rank),
        "one asked for more": one_asked_for_more(rank),
        "remembering": remembered(),
        "cut gradient": cut_gradient(),
    }


def main(rank: int, folder: str) -> None:
    torch.save(errors(rank), f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    return on_ranks(main, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("late", r"RuntimeError: first.weight: the model was given to fully_shard after sparsify.*Call fully_shard first"),
        ("late, new optimizer", r"RuntimeError: first.weight: .*another optimizer trains it now.*Call fully_shard first"),
        ("late, detached", "nothing was raised"),
        ("columns", r"ValueError: weight: it is a DTensor placed as \(Shard\(dim=1\),\) on a mesh of shape \(2,\)"),
        (
            "two axes",
            r"ValueError: weight: it is a DTensor placed as \(Replicate\(\), Shard\(dim=0\)\) on a mesh of shape \(1, 2\)",
        ),
        (
            "two meshes",
            r"ValueError: the sparse weights are sharded over different meshes; call sparsify once for those of each",
        ),
        ("blocks", r"ValueError: first.weight: this rank has rows .* of 33, and Block.* would join rows of different ranks"),
        ("input channels", r"ValueError: first.weight: .*Channel\(axis=1\).* would join rows of different ranks"),
        ("output groups", r"ValueError: first.weight: .*in 3 groups would join rows of different ranks"),
        ("loss", r"ValueError: the layout one-shot SNIP ranks whole weights .*after fully_shard"),
        ("watching", r"ValueError: the score watching wants the gradient of every step.*`elementwise = True`"),
        ("surprise", r"ValueError: Method.surprise does not work on the rows that a rank has after fully_shard"),
        *[(f"whole: {name}", r"ValueError: first\.weight is sharded \(FSDP2\).*`masks\.whole\(engine\)`") for name in WHOLE],
        ("SRigL", r"ValueError: Method.fan_in does not work .* train with DistributedDataParallel"),
        ("DSR", r"ValueError: Method.threshold does not work "),
        ("Top-KAST", r"ValueError: Method.off_mask does not work "),
        ("seeds", r"ValueError: sparsify was called with seed [01] for 1 weights here, and with others"),
        (
            "not finite",
            r"FloatingPointError: first.weight: 1[0-9] scores of magnitude \(drop\) or .* are not finite",
        ),
        ("remembering", r"RuntimeError: of all rows would be kept between steps by a score .*`elementwise = True`"),
        ("cut gradient", r"RuntimeError: first.weight: the gradient is placed as .*redistribute it before step"),
        *[
            (what, r"RuntimeError: the ranks do not agree on .*load_state_dict alike on every rank")
            for what in ("drifted", "drifted, not sharded", "drifted, updates", "one without a gradient", "one asked for more")
        ],
    ],
)
def test_what_cannot_be_sharded_is_refused_on_every_rank(what: str, text: str, ranks: list[dict[str, str]]) -> None:
    for found in ranks:
        message = re.fullmatch(text + ".*", found[what])
        assert message, found[what]
