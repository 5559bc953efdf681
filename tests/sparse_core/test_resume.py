"""A training that was saved and taken up again goes on as if it had never stopped, and says so when it cannot."""

from __future__ import annotations

import copy
import io
import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparse_core
from sparse_core import Method, Structure, scores
from sparse_core.constant_fan_in import ConstantFanIn
from sparse_core.schedules import Linear
from sparse_core.threshold import Threshold
from tests.sparse_core.small_trainings import Training, backward, batches, copied, mlp, preset, same, through_a_file, training

DATA = batches(16, 8, 6, 5)
EVERY = 3
PARTS = ("model", "optimizer", "engine")


def started(method: Method, optimizer: str, dropout: float, seed: int = 0, model_seed: int = 0, **options: object) -> Training:
    return training(mlp(6, 12, 5, dropout=dropout, seed=model_seed), method, optimizer, seed, **options)


def saved(run: Training) -> dict[str, Any]:
    return through_a_file(
        {
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "engine": run.engine.state_dict(),
            "random": torch.get_rng_state(),
        }
    )


def losses_of(run: Training, data: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    return [run.step(batch) for batch in data]


def bits(state: Any) -> Any:
    """Everything in a state, tensors as bytes: equal means equal to the last bit (the sign of a zero aside)."""
    if isinstance(state, Tensor):
        return (tuple(state.shape), str(state.dtype), (state + 0 if state.is_floating_point() else state).numpy().tobytes())
    if isinstance(state, dict):
        return {key: bits(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [bits(value) for value in state]
    return state


def assert_goes_on(
    method: Method,
    optimizer: str,
    stop: int,
    dropout: float = 0.0,
    order: tuple[str, ...] = PARTS,
    **options: Any,
) -> None:
    whole = started(method, optimizer, dropout, **options)
    torch.manual_seed(7)
    losses_of(whole, DATA[:stop])
    state = saved(whole)
    expected = losses_of(whole, DATA[stop:])

    resumed = started(method, optimizer, dropout, seed=5, model_seed=3, **options)  # other weights, other masks
    losses_of(resumed, DATA[10:12])  # and already on its way
    assert not same(resumed.engine.masks, whole.engine.masks)
    for part in order:
        getattr(resumed, part).load_state_dict(state[part])
    torch.set_rng_state(state["random"])
    found = losses_of(resumed, DATA[stop:])

    assert bits(found) == bits(expected)
    assert bits(dict(resumed.engine.masks)) == bits(dict(whole.engine.masks))
    assert bits(saved(resumed)) == bits(saved(whole))
    assert resumed.engine.updates >= 2


METHODS = {
    "SET": preset("SET", every=EVERY),
    "RigL": preset("RigL", every=EVERY),
    "ITOP": preset("ITOP", every=EVERY),
    "SNFS": preset("SNFS", every=EVERY),
    "MEST-soft": preset("MEST-soft", every=EVERY, end=12),
    "GraNet": preset("GraNet", every=EVERY),
    "CHT": preset("CHT", every=EVERY),
    "CHTs": preset("CHTs", every=EVERY, end=12),
    "SRigL": preset("SRigL", every=EVERY, fan_in=ConstantFanIn(0.7)),
    "DSR": preset("DSR", every=EVERY, rate=0.3, threshold=Threshold(0.1)),
    "Top-KAST": preset("Top-KAST", every=EVERY),
    "SR-STE": preset("SR-STE", density=0.5, every=EVERY, structure=Structure(group=2)),
    "2:4": preset("RigL", density=0.5, every=EVERY, structure=Structure(group=2)),
    "rows, falling": preset("RigL", every=EVERY, structure=Structure(group="row")),
}


@pytest.mark.parametrize("stop", [7, 8], ids=["mid-period", "before an update"])
@pytest.mark.parametrize(("optimizer", "options"), [("SGD", {}), ("AdamW", {"fused": True}), ("Adam", {"amsgrad": True})])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_resumed_training_is_bit_equal(method: Method, optimizer: str, options: dict[str, Any], stop: int) -> None:
    assert method.due(9)
    assert_goes_on(method, optimizer, stop, dropout=0.2, **options)


@pytest.mark.parametrize("order", list(itertools.permutations(PARTS)), ids="-".join)
@pytest.mark.parametrize("name", ["SNFS", "MEST-soft", "Top-KAST", "SR-STE"])
def test_the_order_of_loading_does_not_matter(name: str, order: tuple[str, ...]) -> None:
    assert_goes_on(METHODS[name], "AdamW", 8, dropout=0.2, order=order, fused=True)


def test_an_asked_for_update_survives_saving() -> None:
    whole = started(preset("RigL", every=50), "SGD", 0.0)
    losses_of(whole, DATA[:2])
    whole.engine.update(0.4)
    state = saved(whole)
    resumed = started(preset("RigL", every=50), "SGD", 0.0, seed=1)
    resumed.engine.load_state_dict(state["engine"])
    resumed.model.load_state_dict(state["model"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    before = copied(resumed.engine.masks)
    for run in (whole, resumed):
        run.step(DATA[2])
        assert run.engine.updates == 1
    assert same(resumed.engine.masks, whole.engine.masks)
    assert not same(resumed.engine.masks, before)


def test_a_state_saved_between_backward_and_step_is_the_step_before() -> None:
    run = started(preset("RigL", every=EVERY), "SGD", 0.0)
    losses_of(run, DATA[:2])
    before = bits(run.engine.state_dict())
    backward(run.model, DATA[2])
    assert bits(run.engine.state_dict()) == before


def test_masks_take_one_bit_a_weight() -> None:
    run = training(mlp(64, 100, 10), preset("RigL"))
    state = run.engine.state_dict()
    for name, mask in run.engine.masks.items():
        entry = state["layers"][name]
        assert entry["mask"].numel() * entry["mask"].element_size() == -(-mask.numel() // 8)
        assert entry["explored"].numel() == entry["mask"].numel()
    file = io.BytesIO()
    torch.save(state, file)
    weights = sum(mask.numel() for mask in run.engine.masks.values())
    assert file.tell() < 2 * weights / 8 + 6000


@pytest.mark.parametrize("name", ["SNFS", "Top-KAST"])
def test_a_saved_state_does_not_move_with_the_training(name: str) -> None:
    run = started(preset(name, every=EVERY), "SGD", 0.0)
    losses_of(run, DATA[:4])
    state = run.engine.state_dict()
    before = bits(state)
    losses_of(run, DATA[4:8])
    assert bits(state) == before
    run.engine.load_state_dict(state)
    losses_of(run, DATA[8:12])
    assert bits(state) == before


def test_loading_zeroes_weights_and_optimizer_state_off_the_loaded_masks() -> None:
    source = started(preset("RigL"), "Adam", 0.0)
    losses_of(source, DATA[:4])
    target = started(preset("RigL"), "Adam", 0.0, seed=2)
    losses_of(target, DATA[:4])
    target.engine.load_state_dict(source.engine.state_dict())
    for name, parameter in target.model.named_parameters():
        if name in target.engine.masks:
            off = ~target.engine.masks[name]
            assert not parameter[off].any()
            assert not target.optimizer.state[parameter]["exp_avg"][off].any()
            assert not target.optimizer.state[parameter]["exp_avg_sq"][off].any()


# Parameters that were replaced behind the engine.


def assign(model: nn.Sequential) -> None:
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=True)


def swap_a_copy_in(model: nn.Sequential) -> None:
    model[2] = copy.deepcopy(model[2])


def replace_the_weight(model: nn.Sequential) -> None:
    model[2].weight = nn.Parameter(model[2].weight.detach().clone())


@pytest.mark.parametrize(
    ("replaced", "name"),
    [(assign, "0.weight"), (replace_the_weight, "2.weight"), (swap_a_copy_in, "2.weight")],
    ids=["assign", "parameter", "module"],
)
def test_the_step_after_a_parameter_was_replaced_names_its_layer(replaced: Any, name: str) -> None:
    run = started(preset("RigL"), "SGD", 0.0)
    run.step(DATA[0])
    replaced(run.model)
    with pytest.raises(RuntimeError, match=rf"{name}.*replaced"):
        run.step(DATA[1])


# Masks of another model.


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (lambda: training(mlp(6, 13, 5), preset("RigL")), "0.weight"),
        (lambda: training(nn.Sequential(*mlp(6, 12, 5), nn.Linear(5, 5)), preset("RigL")), "3.weight"),
        (lambda: training(nn.Sequential(nn.Identity(), *mlp(6, 12, 5)), preset("RigL")), "1.weight"),
        (lambda: training(mlp(6, 12, 5), preset("RigL", structure=Structure(unit=(1, 3)))), "weight"),
        (lambda: training(mlp(6, 12, 5), preset("RigL", structure=Structure(group="row"))), "0.weight"),
    ],
    ids=["shape", "more layers", "names", "blocks", "rows"],
)
def test_masks_of_another_model_are_refused_by_name_and_nothing_changes(other: Any, name: str) -> None:
    wrong = other().engine.state_dict()
    structure = Structure() if name != "weight" else Structure(unit=(1, 2))
    run = started(preset("RigL", structure=structure), "Adam", 0.0)
    losses_of(run, DATA[:3])
    before = bits(saved(run))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=name):
            run.engine.load_state_dict(wrong)
    assert bits(saved(run)) == before
    run.step(DATA[3])


@pytest.mark.parametrize(
    "damage",
    [
        lambda layer: layer["mask"].bitwise_xor_(torch.tensor([1] + [0] * (layer["mask"].numel() - 1), dtype=torch.uint8)),
        lambda layer: layer.update(mask=layer["mask"][:-1]),
        lambda layer: layer.update(explored=layer["explored"][:-1]),
        lambda layer: layer.update(counts=[3, 4]),
        lambda layer: layer.update(shape=[12, 5]),
    ],
    ids=["a bit", "mask too short", "explored too short", "counts", "shape"],
)
def test_a_damaged_state_is_refused_by_name_and_nothing_changes(damage: Any) -> None:
    run = started(preset("RigL"), "SGD", 0.0)
    losses_of(run, DATA[:3])
    wrong = copy.deepcopy(run.engine.state_dict())
    damage(wrong["layers"]["2.weight"])
    before = bits(saved(run))
    with pytest.raises(ValueError, match=r"2\.weight"):
        run.engine.load_state_dict(wrong)
    assert bits(saved(run)) == before


def test_a_state_of_another_method_is_taken_with_a_warning() -> None:
    source = started(preset("RigL"), "SGD", 0.0)
    losses_of(source, DATA[:2])
    run = started(preset("SET", layout=preset("RigL").layout), "SGD", 0.0)
    with pytest.warns(UserWarning, match="grow gradient -> random"):
        run.engine.load_state_dict(source.engine.state_dict())
    assert same(run.engine.masks, source.engine.masks)


def test_a_score_with_memory_and_a_changing_density_goes_on_too() -> None:
    method = Method(
        density=Linear(0.5, 0.2), drop=scores.ema(scores.snip, 0.8), grow=scores.momentum, rate=0.2, every=EVERY, end=15
    )
    assert_goes_on(method, "Adam", 8, dropout=0.1)


def test_what_is_sparse_in_the_loaded_model_stays_sparse_under_wrappers() -> None:
    plain = started(preset("RigL"), "SGD", 0.0)
    losses_of(plain, DATA[:3])
    model = mlp(6, 12, 5, seed=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    engine = sparse_core.sparsify(torch.compile(model, backend="eager"), optimizer, preset("RigL"))
    engine.load_state_dict(through_a_file(plain.engine.state_dict()))
    assert same(engine.masks, plain.engine.masks)
