"""Weights off the mask in saved states: what they take, and what happens to a state that does not have or fit them."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sparse_core
from sparse_core import Method
from tests.sparse_core.small_trainings import Training, batches, copied, mlp, same, training

DATA = batches(8, 8, 8, 4)
KAST, STE = sparse_core.TopKAST(0.25, every=2), sparse_core.SRSTE(0.5)
VALUES, MOVING = "weights off the mask", "weights that move"


def trained(method: Method, steps: int = 4, seed: int = 0) -> Training:
    run = training(mlp(8, 16, 4, seed=seed), method, "AdamW")
    for batch in DATA[:steps]:
        run.step(batch)
    return run


def everything(run: Training) -> dict[str, Tensor]:
    moving = {f"moving {layer.name}": layer.moving for layer in run.engine._layers}
    return copied({**run.engine.dense_weights(), **moving, **{f"model {n}": p for n, p in run.model.named_parameters()}})


def test_a_state_holds_the_weights_off_the_mask_once_and_one_bit_a_weight_for_what_moves() -> None:
    run = training(mlp(64, 100, 12), KAST)
    state = run.engine.state_dict()
    for name, mask in run.engine.masks.items():
        memory = state["layers"][name]["memory"]
        assert memory[VALUES].shape == (int((~mask).sum()),)
        assert memory[MOVING].numel() == -(-mask.numel() // 8)
    file = io.BytesIO()
    torch.save(state, file)
    weights = sum(mask.numel() for mask in run.engine.masks.values())
    assert file.tell() < weights * (0.75 * 4 + 3 / 8) + 8000


@pytest.mark.parametrize("method", [KAST, STE], ids=["Top-KAST", "SR-STE"])
def test_the_model_alone_goes_on_as_the_sparse_network_it_is(method: Method) -> None:
    source = trained(method)
    weights = copied(source.model.state_dict())
    fresh = mlp(8, 16, 4, seed=9)
    fresh.load_state_dict(weights)
    optimizer = torch.optim.AdamW(fresh.parameters(), lr=0.05)
    with pytest.warns(UserWarning, match="zero off the mask"):
        engine = sparse_core.sparsify(fresh, optimizer, method)
    assert same(engine.masks, source.engine.masks)
    assert same(fresh.state_dict(), weights)
    engine.load_state_dict(source.engine.state_dict())
    assert same(engine.dense_weights(), source.engine.dense_weights())


def test_a_dense_checkpoint_loaded_before_keeps_all_of_its_weights() -> None:
    run = trained(STE, steps=0)
    assert all(value[~mask].all() for value, mask in zip(run.engine.off_mask.values(), run.engine.masks.values(), strict=True))


def test_loading_takes_up_what_was_off_the_mask_and_what_moved() -> None:
    source, target = trained(KAST), trained(KAST, steps=3, seed=4)
    assert not same(everything(target), everything(source))
    target.model.load_state_dict(source.model.state_dict())
    target.engine.load_state_dict(source.engine.state_dict())
    assert same(everything(target), everything(source))
    for layer in target.engine._layers:
        assert not target.optimizer.state[layer.target.parameter]["exp_avg"][~layer.moving].any()


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize("method", [sparse_core.TopKAST(0.5, end=3), sparse_core.SRSTE(0.5, end=3)], ids=["Top-KAST", "SR-STE"])
def test_a_training_resumed_before_or_after_its_last_update_is_bit_equal(method: Method, steps: int) -> None:
    source, target = trained(method, steps), trained(method, steps=7 - steps, seed=4)
    target.model.load_state_dict(source.model.state_dict())
    target.optimizer.load_state_dict(copy.deepcopy(source.optimizer.state_dict()))
    target.engine.load_state_dict(source.engine.state_dict())
    for batch in DATA[5:]:
        source.step(batch)
        target.step(batch)
    assert same(everything(target), everything(source))


def test_a_state_of_a_method_without_weights_off_the_mask_begins_at_zero_with_a_warning() -> None:
    source = trained(sparse_core.RigL(0.25, end=8, every=2, layout=KAST.layout))
    target = trained(KAST, seed=4)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        target.engine.load_state_dict(source.engine.state_dict())
    messages = [str(one.message) for one in told]
    assert any(message.startswith("the saved method differs") for message in messages)
    assert any("no weights off the mask for 0.weight (2 of 2 layers)" in message for message in messages)
    assert {one.filename for one in told} == {__file__}
    assert not any(value.any() for value in target.engine.off_mask.values())
    target.step(DATA[0])


def test_a_method_without_weights_off_the_mask_leaves_them_with_a_warning() -> None:
    source = trained(KAST)
    target = trained(sparse_core.RigL(0.25, end=8, every=2, layout=KAST.layout), seed=4)
    with pytest.warns(UserWarning, match=r"off_mask OffMask\(.*-> none"):
        target.engine.load_state_dict(source.engine.state_dict())
    assert same(target.engine.masks, source.engine.masks)
    assert all(not layer["memory"] for layer in target.engine.state_dict()["layers"].values())


def shorten(memory: dict[str, Tensor]) -> None:
    memory[VALUES] = memory[VALUES][:-1]


def lose_bits(memory: dict[str, Tensor]) -> None:
    memory[MOVING] = memory[MOVING][:-1]


def stop_links(memory: dict[str, Tensor]) -> None:
    memory[MOVING] = torch.zeros_like(memory[MOVING])


def forget(memory: dict[str, Tensor]) -> None:
    del memory[MOVING]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shorten, "weights off the mask, whose mask leaves 48"),
        (lose_bits, "do not hold a mask"),
        (stop_links, "does not move all of the links"),
        (forget, "only one of"),
    ],
)
def test_a_damaged_state_is_refused_by_name_and_nothing_changes(damage: Callable[[Any], None], message: str) -> None:
    run = trained(KAST)
    wrong = copy.deepcopy(run.engine.state_dict())
    damage(wrong["layers"]["2.weight"]["memory"])
    run.step(DATA[5])
    before = everything(run)
    with pytest.raises(ValueError, match=rf"2\.weight.*{message}"):
        run.engine.load_state_dict(wrong)
    assert same(everything(run), before)
