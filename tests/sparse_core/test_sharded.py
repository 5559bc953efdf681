"""Under FSDP2, two ranks that hold some rows each train the network that one process trains."""

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
    METHODS,
    STEPS,
    Branches,
    assert_zero_off_the_mask,
    backward,
    close,
    made,
    shard,
    trained,
    weights,
)
from tests.sparse_core.small_trainings import copied, preset, same, through_a_file
from tests.sparse_core.two_ranks import RANKS, on_ranks

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHODS},
    "in two parts": ("RigL", {"parts": 2}),
    "mixed": ("SET", {"mixed": True}),
    "mixed-global": ("RigL-global", {"mixed": True}),
    "mixed-GraNet": ("GraNet", {"mixed": True}),
    "SGD": ("RigL", {"optimizer": "SGD"}),
    "Adamax": ("RigL", {"optimizer": "Adamax"}),
    "Adadelta": ("SET", {"optimizer": "Adadelta"}),
}
WHOLE = ("cost", "cost, whole masks", "compile_sparse", "to_24", "freeze", "scale_to_fan_in", "sync_target")
FAST = ("SET", "Static", "GMP", "rows-RigL", "2:4-RigL", "in two parts", "mixed-global")


def resumed(name: str) -> dict[str, Any]:
    """Whether a training that was saved goes on bit for bit, and what the engine's state is."""
    stop = 5
    model, optimizer, engine = made(name, True)

    def steps(of: tuple[nn.Module, torch.optim.Optimizer, Any], data: list[tuple[Tensor, Tensor]]) -> None:
        for batch in data:
            of[1].zero_grad()
            backward(of[0], batch)
            of[1].step()

    steps((model, optimizer, engine), DATA[:stop])
    state = through_a_file(engine.state_dict())
    kept = {"model": copied(model.state_dict()), "optimizer": optimizer.state_dict()}
    kept["optimizer"] = {
        "state": {i: {k: v.clone() for k, v in one.items()} for i, one in kept["optimizer"]["state"].items()},
        "param_groups": kept["optimizer"]["param_groups"],
    }
    steps((model, optimizer, engine), DATA[stop:])

    again = made(name, True, seed=9)
    steps(again, DATA[:2])
    again[2].load_state_dict(state)
    again[0].load_state_dict(kept["model"])
    again[1].load_state_dict(kept["optimizer"])
    steps(again, DATA[stop:])
    return {
        "same weights": close(weights(again[0]), weights(model), at_most=0.0),
        "same masks": same(again[2].masks, engine.masks),
        "updates": again[2].updates,
        "state": state,
    }


def message(call: Callable[[], Any]) -> str:
    """The error that a call raises, its class first."""
    try:
        call()
    except (ValueError, RuntimeError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


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


def not_finite(rank: int) -> str:
    """A gradient that is not finite in a row that only the first rank has."""
    model, optimizer, engine = made("RigL", True)
    engine.update(0.3)
    before = copied(engine.masks)
    backward(model, DATA[0])
    if rank == 0:
        gradient = model.first.weight.grad
        assert gradient is not None
        gradient.to_local()[0] = float("nan")  # type: ignore[attr-defined]
    text = message(optimizer.step)
    return text if same(engine.masks, before) else "the masks changed"


def drifted(rank: int) -> str:
    """What the next update says where the ranks have loaded different states."""
    states = [made("RigL", True, seed=seed)[2].state_dict() for seed in (1, 2)]
    model, optimizer, engine = made("RigL", True)
    states[rank]["seed"] = 3
    engine.load_state_dict(states[rank])
    engine.update(0.3)
    backward(model, DATA[0])
    return message(optimizer.step)


def drifted_whole(rank: int) -> str:
    """What the next update says where a weight that is not sharded has as many links on each rank, but at other places."""
    model, optimizer, engine = made("RigL", True, mixed=True)
    engine.masks["narrow.weight"][0, rank] = False  # one of 20 links, all of which it had
    engine.update(0.3)
    backward(model, DATA[0])
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
    }


def single_steps() -> dict[str, Any]:
    """What can be seen between backward and step, and of a dry run."""
    model, optimizer, engine = made("RigL", True)
    backward(model, DATA[0])
    here = {name: model.get_parameter(name).grad.to_local() for name in engine.masks}  # type: ignore[union-attr]
    masked = all(not gradient[~engine.masks[name]].any() for name, gradient in here.items())
    trained_at = [bool(gradient.any()) or not gradient.numel() for gradient in here.values()]
    optimizer.step()
    optimizer.zero_grad()
    backward(model, DATA[1])
    before = copied(engine.masks)
    proposed = engine.propose()
    unchanged = same(before, engine.masks)
    optimizer.step()
    came = {name: mask & ~before[name] for name, mask in engine.masks.items()}
    with torch.no_grad():
        model(DATA[0][0])  # leaves weights gathered, until
    optimizer.step()
    model.reshard()  # type: ignore[operator]
    return {
        "masked": masked and all(trained_at),
        "dry": unchanged and same(proposed.grown, came),
        "at rest": message(lambda: assert_zero_off_the_mask(model, optimizer, engine)),
        "rows": [mask.shape[0] for mask in engine.masks.values()],
    }


def from_one_process() -> dict[str, Tensor]:
    """The masks of a sharded engine that loaded the state of an engine in one process."""
    alone = made("RigL", False, seed=8)[2]
    engine = made("RigL", True)[2]
    engine.load_state_dict(through_a_file(alone.state_dict()))
    return masks.whole(engine)


def fast_main(rank: int, folder: str) -> None:
    found: dict[str, Any] = {name: trained(VARIANTS[name][0], True, **VARIANTS[name][1]) for name in FAST}
    found["resumed"] = {name: resumed(name) for name in ("SNFS", "2:4-RigL")}
    found["errors"], found["single"], found["loaded"] = errors(rank), single_steps(), from_one_process()
    torch.save(found, f"{folder}/{rank}.pt")


def slow_main(rank: int, folder: str) -> None:
    found = {name: trained(method, True, **options) for name, (method, options) in VARIANTS.items() if name not in FAST}
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(fast_main, tmp_path_factory.mktemp("sharded"))


@pytest.fixture(scope="module")
def ranks_of_the_rest(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(slow_main, tmp_path_factory.mktemp("sharded_rest"))


def assert_as_one_process(name: str, found: list[dict[str, Any]]) -> None:
    method, options = VARIANTS[name]
    alone = trained(method, False, **{key: value for key, value in options.items() if key != "mixed"})
    assert alone["updates"] == (0 if name == "Static" else STEPS // 2)
    assert (name == "Static") == same(alone["masks"][0], alone["masks"][-1])
    for run in (one[name] for one in found):
        assert run["updates"] == alone["updates"]
        for step, (ours, theirs) in enumerate(zip(run["masks"], alone["masks"], strict=True)):
            assert same(ours, theirs), f"step {step}"
        assert close(run["weights"], alone["weights"])
        assert run["report"] == alone["report"]
        assert run["explored"] == alone["explored"]
        assert run["ordinary"] == 0  # no collective but FSDP's own in steps without an update
    weights_in_all = sum(mask.numel() for mask in alone["masks"][0].values())
    kept_whole = 20 if options.get("mixed") else 0
    assert sum(one[name]["here"] for one in found) == weights_in_all + kept_whole
    assert max(one[name]["here"] for one in found) < 0.6 * weights_in_all


@pytest.mark.parametrize("name", FAST)
def test_masks_are_those_of_one_process_and_each_rank_has_its_rows_only(name: str, ranks: list[dict[str, Any]]) -> None:
    assert_as_one_process(name, ranks)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in FAST])
def test_all_methods_have_the_masks_of_one_process(name: str, ranks_of_the_rest: list[dict[str, Any]]) -> None:
    assert_as_one_process(name, ranks_of_the_rest)


@pytest.mark.parametrize("name", ["SNFS", "2:4-RigL"])
def test_a_resumed_training_is_bit_equal(name: str, ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        run = found["resumed"][name]
        assert (run["same weights"], run["same masks"], run["updates"]) == (True, True, STEPS // 2)


@pytest.mark.parametrize("name", ["SNFS", "2:4-RigL"])
def test_the_state_is_that_of_one_process_on_every_rank(name: str, ranks: list[dict[str, Any]]) -> None:
    model, optimizer, engine = made(name, False)
    for batch in DATA[:5]:
        optimizer.zero_grad()
        backward(model, batch)
        optimizer.step()
    alone = engine.state_dict()
    for found in ranks:
        state = found["resumed"][name]["state"]
        assert {key: value for key, value in state.items() if key != "layers"} == {
            key: value for key, value in alone.items() if key != "layers"
        }
        for layer, saved in alone["layers"].items():
            ours = state["layers"][layer]
            assert (ours["shape"], ours["counts"]) == (saved["shape"], saved["counts"])
            assert torch.equal(ours["mask"], saved["mask"])
            assert torch.equal(ours["explored"], saved["explored"])
        again = made(name, False, seed=9)[2]
        again.load_state_dict(state)
        assert same(again.masks, engine.masks)


def test_a_state_of_one_process_can_be_loaded(ranks: list[dict[str, Any]]) -> None:
    alone = made("RigL", False, seed=8)[2]
    for found in ranks:
        assert same(found["loaded"], dict(alone.masks))


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
        *[
            (what, r"RuntimeError: the ranks do not agree on .*load_state_dict alike on every rank")
            for what in ("drifted", "drifted, not sharded")
        ],
    ],
)
def test_what_cannot_be_sharded_is_refused_on_every_rank(what: str, text: str, ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        message = re.fullmatch(text + ".*", found["errors"][what])
        assert message, found["errors"][what]


def test_gradients_are_masked_before_the_step_and_a_dry_run_changes_nothing(ranks: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(ranks):
        single = found["single"]
        assert (single["masked"], single["dry"], single["at rest"]) == (True, True, "nothing was raised")
        assert single["rows"] == [[17, 3, 1], [16, 2, 0]][rank]
