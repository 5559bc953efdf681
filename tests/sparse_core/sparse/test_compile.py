"""Layers are swapped where they were measured to be faster, and nowhere else. Times are given, not taken."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse_core.sparse import CompiledSparse, Decision, Linear, Timing, compile_sparse, interleaved


def masked(model: nn.Module, density: float = 0.3, seed: int = 0) -> SimpleNamespace:
    """Masks for all matrices of a model, whose other entries are set to zero: what an engine would hold."""
    generator = torch.Generator().manual_seed(seed)
    masks = {n: torch.rand(p.shape, generator=generator) < density for n, p in model.named_parameters() if p.dim() > 1}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    return SimpleNamespace(masks=masks)


def always(dense: float, sparse: float):
    return lambda dense_layer, sparse_layer, x: Timing(dense, sparse)


def faster(dense_layer: nn.Linear, sparse_layer: Linear, x: Tensor) -> Timing:
    return Timing(10.0, 1.0)


def by_layer(compiled: CompiledSparse) -> dict[str, Decision]:
    return {decision.layer: decision for decision in compiled.decisions}


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 6))


def test_a_layer_is_replaced_where_it_was_measured_faster() -> None:
    model, x = mlp(), torch.randn(20, 8)
    engine = masked(model)

    def measure(dense: nn.Linear, sparse: Linear, inputs: Tensor) -> Timing:
        assert torch.equal(sparse.weight, dense.weight)
        return Timing(3.0, 1.0) if dense.in_features == 8 else Timing(1.0, 3.0)

    compiled = compile_sparse(model, engine, x, measure=measure)
    assert [type(layer) for layer in compiled.model] == [Linear, nn.ReLU, nn.Linear]
    assert torch.allclose(compiled(x), model(x), rtol=1e-5, atol=1e-6)
    first, last = compiled.decisions
    assert (first.layer, first.replaced, first.ratio, first.inputs) == ("0.weight", True, 3.0, (((20, 8), 1),))
    assert (last.layer, last.replaced, last.dense_s, last.sparse_s) == ("2.weight", False, 1.0, 3.0)
    assert first.density == pytest.approx(engine.masks["0.weight"].float().mean().item())


@pytest.mark.parametrize(("ratio", "replaced"), [(0.5, False), (1.0, False), (1.49, False), (1.5, True), (9.0, True)])
def test_a_tie_within_the_margin_stays_dense(ratio: float, replaced: bool) -> None:
    model = mlp()
    compiled = compile_sparse(model, masked(model), torch.randn(3, 8), measure=always(ratio, 1.0))
    assert [decision.replaced for decision in compiled.decisions] == [replaced, replaced]
    assert "1.5 times" in compiled.decisions[0].reason


def test_the_original_is_untouched_and_shares_nothing() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    engine = masked(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modules = list(model.modules())
    random_state = torch.get_rng_state()
    compiled = compile_sparse(model, engine, torch.ones(4, 8), measure=faster)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.training
    assert not compiled.model.training
    with torch.no_grad():
        for value in (*compiled.model.parameters(), *compiled.model.buffers()):
            value.zero_()
    assert list(model.modules()) == modules
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all("forward" not in module.__dict__ for module in (*model.modules(), *compiled.model.modules()))


def test_all_calls_of_a_layer_count() -> None:
    class Repeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(self.layer(x))
            return self.layer(x[:1])

    model = Repeats()
    engine = masked(model)

    def measure(dense: nn.Linear, sparse: Linear, x: Tensor) -> Timing:
        return Timing(1.0, 2.0) if len(x) == 1 else Timing(4.0, 1.0)

    (decision,) = compile_sparse(model, engine, torch.randn(5, 6), measure=measure).decisions
    assert decision.inputs == (((5, 6), 2), ((1, 6), 1))
    assert (decision.dense_s, decision.sparse_s) == (2 * 4.0 + 1.0, 2 * 1.0 + 2.0)
    assert decision.replaced


class Various(nn.Module):
    """One of everything that must stay dense."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.embedding = nn.Embedding(5, 4)
        self.tied = nn.Linear(4, 5, bias=False)
        self.tied.weight = self.embedding.weight
        self.borrowed = nn.Linear(4, 4)
        self.only_borrowed = nn.Linear(4, 4)
        self.hooked = nn.Linear(4, 4)
        self.hooked.register_forward_hook(lambda module, args, output: output)
        self.unused = nn.Linear(4, 4)
        self.plain = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.transpose(1, 2)).transpose(1, 2)
        x = self.attention(x, x, x)[0] + self.embedding.weight.sum() + self.tied(x).sum()
        x = self.borrowed(x) + F.linear(x, self.borrowed.weight.t()) + x @ self.only_borrowed.weight
        return self.plain(self.hooked(x))


def test_what_cannot_be_replaced_stays_dense_and_says_why() -> None:
    torch.manual_seed(0)
    model, x = Various(), torch.randn(2, 3, 4)
    compiled = compile_sparse(model, masked(model), x, measure=faster)
    reasons = {name: decision.reason for name, decision in by_layer(compiled).items() if not decision.replaced}
    assert {name for name, decision in by_layer(compiled).items() if decision.replaced} == {"plain.weight"}
    assert "Conv1d" in reasons["conv.weight"]
    assert "MultiheadAttention" in reasons["attention.in_proj_weight"]
    assert "NonDynamicallyQuantizableLinear" in reasons["attention.out_proj.weight"]
    assert "tied" in reasons["embedding.weight"]
    assert "outside of the layer" in reasons["borrowed.weight"]
    assert "outside of the layer" in reasons["only_borrowed.weight"]
    assert "hooks" in reasons["hooked.weight"]
    assert "does not reach" in reasons["unused.weight"]
    assert torch.allclose(compiled(x), model.eval()(x), rtol=1e-4, atol=1e-4)


def test_a_fused_transformer_layer_which_reads_weights_itself_stays_dense() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1, enable_nested_tensor=False)
    engine, x = masked(model), torch.randn(2, 5, 8)
    compiled = compile_sparse(model, engine, x, measure=faster)
    assert not any(decision.replaced for decision in compiled.decisions)
    assert "outside of the layer" in by_layer(compiled)["layers.0.linear1.weight"].reason
    with torch.no_grad():
        assert torch.equal(compiled(x), model.eval()(x))


def test_a_module_in_two_places_is_replaced_in_both() -> None:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    engine, x = masked(model), torch.randn(3, 4)
    compiled = compile_sparse(model, engine, x, measure=faster)
    assert isinstance(compiled.model[0], Linear)
    assert compiled.model[0] is compiled.model[2]
    assert torch.allclose(compiled(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_model_that_is_one_layer_becomes_one_sparse_layer() -> None:
    model = nn.Linear(4, 4)
    compiled = compile_sparse(model, masked(model), torch.randn(3, 4), measure=faster)
    assert isinstance(compiled.model, Linear)


def test_wrappers_come_off_at_any_depth() -> None:
    model = mlp()
    engine = masked(model)
    wrapped = torch.compile(nn.Sequential(torch.compile(model)))
    engine.masks = {f"0.{name}": mask for name, mask in engine.masks.items()}
    x = torch.randn(3, 8)
    compiled = compile_sparse(wrapped, engine, x, measure=faster)
    assert [name for name, _ in compiled.model.named_parameters()][:2] == ["0.0.values", "0.0.bias"]
    assert all(decision.replaced for decision in compiled.decisions)
    assert torch.allclose(compiled(x), model(x), rtol=1e-5, atol=1e-6)


def test_data_parallel_wrappers_come_off() -> None:
    model = mlp()
    engine = masked(model)
    compiled = compile_sparse(nn.DataParallel(model), engine, torch.randn(3, 8), measure=faster)
    assert isinstance(compiled.model, nn.Sequential)
    assert all(decision.replaced for decision in compiled.decisions)


def test_layers_in_low_precision_stay_dense() -> None:
    class Autocast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.layer(x)

    for model, x in ((Autocast(), torch.randn(2, 4)), (nn.Linear(4, 4).bfloat16(), torch.randn(2, 4).bfloat16())):
        (decision,) = compile_sparse(model, masked(model), x, measure=faster).decisions
        assert not decision.replaced
        assert "precision" in decision.reason or "bfloat16" in decision.reason


def test_a_sample_may_be_arguments_or_keywords() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.layer(x + y)

    model = Two()
    engine, x = masked(model), torch.randn(3, 4)
    for sample in ((x, x), {"x": x, "y": x}):
        assert compile_sparse(model, engine, sample, measure=faster).decisions[0].replaced


def test_masks_that_are_not_of_this_model_are_refused() -> None:
    model = mlp()
    engine = masked(model)
    x = torch.randn(3, 8)
    with pytest.raises(ValueError, match="no parameter"):
        compile_sparse(model, SimpleNamespace(masks={"1.weight": engine.masks["0.weight"]}), x, measure=faster)
    with pytest.raises(ValueError, match="margin"):
        compile_sparse(model, engine, x, margin=0.9, measure=faster)
    with torch.no_grad():
        model[2].weight.add_(1.0)
    with pytest.raises(ValueError, match=r"2\.weight is not zero outside"):
        compile_sparse(model, engine, x, measure=faster)
    with torch.no_grad():
        model[2].weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"2\.weight .* not finite"):
        compile_sparse(model, engine, x, measure=faster)


def test_the_table_names_every_mask_with_its_times_and_reason() -> None:
    model = nn.Sequential(nn.Conv1d(4, 4, 1), nn.Linear(8, 2))
    lines = str(compile_sparse(model, masked(model), torch.randn(2, 4, 8), measure=always(0.006, 0.002))).splitlines()
    assert lines[0].split() == ["layer", "density", "inputs", "dense", "ms", "sparse", "ms", "ratio", "decision", "reason"]
    assert "dense" in lines[1]
    assert "Conv1d" in lines[1]
    assert "2x4x8  " in lines[2]
    assert "6.000" in lines[2]
    assert "2.000" in lines[2]
    assert " 3.00 " in lines[2]
    assert "sparse" in lines[2]


def test_measuring_takes_turns_and_gives_the_least_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that layers move: each call costs what the layer costs, and one turn of each is disturbed."""
    now, order = [0.0], []

    class Slow(nn.Module):
        def __init__(self, name: str, cost: float) -> None:
            super().__init__()
            self.name, self.cost, self.calls = name, cost, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            order.append(self.name)
            now[0] += self.cost * (10 if self.calls == 4 else 1)
            return x

    monkeypatch.setattr("sparse_core.sparse.compile.time.perf_counter", lambda: now[0])
    timing = interleaved(Slow("dense", 2.0), Slow("sparse", 1.0), torch.zeros(1), repeats=4)
    assert (timing.dense, timing.sparse) == (2.0, 1.0)
    assert order[-8:] == ["dense", "sparse", "sparse", "dense", "dense", "sparse", "sparse", "dense"]


def test_measuring_real_layers_gives_times() -> None:
    dense = nn.Linear(8, 8)
    sparse = Linear.from_dense(dense, torch.ones(8, 8, dtype=torch.bool))
    timing = interleaved(dense, sparse, torch.randn(4, 8), repeats=2, block_s=0.0)
    assert timing.dense > 0
    assert timing.sparse > 0
