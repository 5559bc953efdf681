"""Under FSDP2, two ranks that hold some rows each train the network that one process trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_core import masks
from tests.sparse_core.sharded_trainings import (
    DATA,
    METHODS,
    STEPS,
    assert_zero_off_the_mask,
    backward,
    close,
    made,
    message,
    trained,
    weights,
)
from tests.sparse_core.small_trainings import copied, same, through_a_file
from tests.sparse_core.two_ranks import on_ranks

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
FAST = ("SET", "Static", "GMP", "rows-RigL", "2:4-RigL", "whole", "in two parts", "mixed-global")


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
    found["single"], found["loaded"] = single_steps(), from_one_process()
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


def test_gradients_are_masked_before_the_step_and_a_dry_run_changes_nothing(ranks: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(ranks):
        single = found["single"]
        assert (single["masked"], single["dry"], single["at rest"]) == (True, True, "nothing was raised")
        assert single["rows"] == [[17, 3, 1], [16, 2, 0]][rank]
