"""Loss scaling: no update in a step that is skipped, no scores of scaled gradients, no reads but in the steps of updates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparse_core
from sparse_core import Method, SparseEngine, layout, scores
from sparse_core.method import gradient_step
from sparse_core.scores import Context
from tests.sparse_core.small_trainings import backward, batches, copied, mlp, preset, same, training

DATA = batches(16, 8, 6, 5)
EVERY = 3


class Scaled:
    """A training under torch.amp.GradScaler. In the steps in `overflow` one gradient is infinite."""

    def __init__(
        self, method: Method, fused: bool, scale: float, optimizer: str = "Adam", overflow: tuple[int, ...] = ()
    ) -> None:
        self.run = training(mlp(6, 12, 5), method, optimizer, lr=0.01, fused=fused)
        self.engine, self.optimizer, self.model = self.run.engine, self.run.optimizer, self.run.model
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000, backoff_factor=0.5)
        self.overflow, self.calls = overflow, 0

    def step(self, batch: tuple[Tensor, Tensor], unscale: bool = False) -> None:
        self.calls += 1
        self.optimizer.zero_grad()
        loss = nn.functional.mse_loss(self.model(batch[0]), batch[1])
        self.scaler.scale(loss).backward()
        if self.calls in self.overflow:
            next(self.model.parameters()).grad.view(-1)[0] = torch.inf
        if unscale:
            self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()


FUSED = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])


@FUSED
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_an_update_never_happens_in_a_skipped_step_but_in_the_next_one(fused: bool, optimizer: str) -> None:
    scaled = Scaled(preset("RigL", every=EVERY), fused, 16.0, optimizer, overflow=(3, 4))
    for batch in DATA[:2]:
        scaled.step(batch)
    masks, weights = copied(scaled.engine.masks), copied(dict(scaled.model.named_parameters()))
    for batch in DATA[2:4]:
        scaled.step(batch)
        assert scaled.engine.updates == 0
        assert scaled.engine.steps == 2
        assert same(scaled.engine.masks, masks)
        assert same(dict(scaled.model.named_parameters()), weights)
    scaled.step(DATA[4])
    assert (scaled.engine.updates, scaled.engine.steps) == (1, 3)
    assert not same(scaled.engine.masks, masks)
    for name, mask in scaled.engine.masks.items():
        assert not scaled.model.get_parameter(name)[~mask].any()


@FUSED
def test_an_asked_for_update_waits_for_a_step_that_happens(fused: bool) -> None:
    scaled = Scaled(preset("RigL", every=100), fused, 16.0, overflow=(2,))
    scaled.step(DATA[0])
    scaled.engine.update(0.3)
    masks = copied(scaled.engine.masks)
    scaled.step(DATA[1])
    assert scaled.engine.updates == 0
    assert same(scaled.engine.masks, masks)
    scaled.step(DATA[2])
    assert scaled.engine.updates == 1
    assert not same(scaled.engine.masks, masks)


@pytest.mark.parametrize("name", ["RigL", "SNFS", "MEST", "SET", "GraNet"])
def test_skipped_updates_leave_plain_and_fused_runs_alike(name: str) -> None:
    plain, fused = (Scaled(preset(name, every=EVERY), fused, 16.0, overflow=(3, 7)) for fused in (False, True))
    for batch in DATA:
        plain.step(batch)
        fused.step(batch)
        assert plain.engine.steps == fused.engine.steps
        assert plain.engine.updates == fused.engine.updates
        assert same(plain.engine.masks, fused.engine.masks)
    assert plain.engine.updates == 4


class Watched(Tensor):
    """A tensor that remembers every operation whose result leaves the device."""

    reads: list[str] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        if name in {"item", "tolist", "__bool__", "__int__", "__float__", "numpy", "__index__", "cpu"}:
            cls.reads.append(name)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
        alone = all(isinstance(arg, Watched) for arg in args if isinstance(arg, Tensor))
        return result.as_subclass(Watched) if alone and isinstance(result, Tensor) else result  # made of it alone: watched too


@pytest.mark.parametrize("name", ["RigL", "SNFS", "MEST"])
@pytest.mark.parametrize("shape", [(), (1,)], ids=["scalar", "vector"])
def test_found_inf_is_read_in_the_steps_of_updates_only(name: str, shape: tuple[int, ...]) -> None:
    method = preset(name, every=EVERY)
    model = mlp(6, 12, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    engine = sparse_core.sparsify(model, optimizer, method)
    Watched.reads.clear()
    for step, batch in enumerate(DATA[:9], start=1):
        optimizer.zero_grad()
        backward(model, batch)
        optimizer.found_inf = torch.zeros(shape).as_subclass(Watched)
        optimizer.grad_scale = torch.ones(())
        optimizer.step()
        assert len(Watched.reads) == (1 if method.due(step) else 0), f"step {step}"
        Watched.reads.clear()
    assert engine.updates == 3


@FUSED
@pytest.mark.parametrize("unscale", [False, True], ids=["scaled", "unscaled"])
@pytest.mark.parametrize("name", ["MEST", "RigL", "SNFS", "sensitivity", "gradient steps"])
def test_the_scale_of_the_loss_changes_no_mask(name: str, fused: bool, unscale: bool) -> None:
    if name == "sensitivity":
        method = preset("RigL", every=EVERY, drop=scores.sensitivity)
    elif name == "gradient steps":
        method = preset("RigL", every=EVERY, drop=scores.mest(5.0), grown_value=gradient_step(3.0))
    else:
        method = preset(name, every=EVERY)
    runs = [Scaled(method, fused, scale) for scale in (1.0, 1024.0)]
    for batch in DATA[:9]:
        for scaled in runs:
            scaled.step(batch, unscale)
        assert same(runs[0].engine.masks, runs[1].engine.masks)
    assert runs[0].engine.updates == 3
    for one, other in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_masks_of_a_fused_scaled_training_are_those_of_a_training_without_a_scaler() -> None:
    method = preset("MEST", every=EVERY)
    scaled, plain = Scaled(method, True, 1024.0), training(mlp(6, 12, 5), method, "Adam", lr=0.01)
    for batch in DATA[:9]:
        scaled.step(batch)
        plain.step(batch)
    assert same(scaled.engine.masks, plain.engine.masks)


def test_a_skipped_step_leaves_no_trace_in_averages_over_time() -> None:
    method = preset("SNFS", every=5)
    plain, fused = (Scaled(method, fused, 16.0, overflow=(2,)) for fused in (False, True))
    for batch in DATA[:4]:
        plain.step(batch)
        fused.step(batch)
    for name, layer in plain.engine.state_dict()["layers"].items():
        other = fused.engine.state_dict()["layers"][name]["memory"]
        averages = {key: value for key, value in layer["memory"].items() if value.dim()}
        assert averages
        for key, value in averages.items():
            assert torch.allclose(value, other[key], rtol=1e-5, atol=1e-7), name


# Low precision.


def seen_dtypes(dtype: torch.dtype) -> tuple[SparseEngine, set[torch.dtype]]:
    seen: set[torch.dtype] = set()

    def drop(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
        assert gradient is not None
        seen.update((weight.dtype, gradient.dtype))
        return weight.abs() + gradient.abs()

    def grow(weight: Tensor, gradient: Tensor | None, context: Context) -> Tensor:
        assert gradient is not None
        seen.update((weight.dtype, gradient.dtype))
        return gradient.abs()

    model = mlp(6, 12, 5, dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    engine = sparse_core.sparsify(model, optimizer, preset("RigL", every=1, drop=drop, grow=grow, layout=layout.uniform()))
    for x, y in DATA[:3]:
        optimizer.zero_grad()
        backward(model, (x.to(dtype), y.to(dtype)))
        optimizer.step()
    return engine, seen


@pytest.mark.parametrize(
    ("dtype", "scored"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=["bfloat16", "float16", "float64"],
)
def test_scores_are_made_in_at_least_float32(dtype: torch.dtype, scored: torch.dtype) -> None:
    engine, seen = seen_dtypes(dtype)
    assert engine.updates == 3
    assert seen == {scored}


def test_bfloat16_sums_are_ranked_by_what_bfloat16_would_round_away() -> None:
    model = nn.Linear(4, 1, bias=False, dtype=torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    engine = sparse_core.sparsify(model, optimizer, preset("MEST", every=1, density=1.0, rate=0.0, layout=layout.uniform()))
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1.0, 1.0, 1.0]]))
    model.weight.grad = torch.tensor([[3e-3, 1e-3, 4e-3, 2e-3]], dtype=torch.bfloat16)
    dropped = engine.propose(Method(density=0.5, drop=scores.mest(1.0), layout=layout.uniform(), every=1, end=9)).dropped
    assert dropped["weight"].tolist() == [[False, True, False, True]]


def test_new_links_of_float16_layers_get_the_mean_of_many_second_moments() -> None:
    model = nn.Linear(400, 400, bias=False, dtype=torch.float16)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    engine = sparse_core.sparsify(model, optimizer, sparse_core.SET(density=0.6, end=9, every=1, rate=0.1))
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.state[model.weight] = {
        "step": torch.tensor(1.0),
        "square_avg": torch.full_like(model.weight, 0.5) * engine.masks["weight"],
    }
    before = engine.masks["weight"].clone()
    optimizer.step()
    grown = engine.masks["weight"] & ~before
    assert grown.sum() > 7000
    moments = optimizer.state[model.weight]["square_avg"][grown]
    assert torch.allclose(moments.float(), torch.tensor(0.495), atol=2e-3)  # one decay by alpha = 0.99
