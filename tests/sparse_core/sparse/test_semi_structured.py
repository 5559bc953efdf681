"""2:4 weights: which are converted and which are not, on any machine; what the converted model computes, on CUDA."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

import sparse_core
from sparse_core import Structure
from sparse_core.sparse import CompiledSparse, Decision
from sparse_core.sparse.semi_structured import Backend, cuda_backend, multiples_of, to_24

HALVES = (torch.float16, torch.bfloat16)


def packed_and_unpacked(weight: Tensor) -> Tensor:
    """What CUTLASS's packing keeps of a matrix; it runs on any device, the product does not."""
    values, places = sparse_semi_structured_from_dense_cutlass(weight)
    assert values.shape == (weight.shape[0], weight.shape[1] // 2)
    return sparse_semi_structured_to_dense_cutlass(values, places)


ANYWHERE = Backend("a stand-in", multiples_of(torch.sparse.SparseSemiStructuredTensorCUTLASS), packed_and_unpacked)


def trained(model: nn.Module, inputs: int, density: float = 0.5, group: str | int = 4) -> sparse_core.SparseEngine:
    """An engine that has rewired the model twice."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = sparse_core.RigL(density=density, end=100, every=1, structure=Structure(group=group))
    engine = sparse_core.sparsify(model, optimizer, method)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, inputs)).square().mean().backward()
        optimizer.step()
    return engine


def mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    first, second, third = widths
    return nn.Sequential(nn.Linear(first, second), nn.ReLU(), nn.Linear(second, third))


def by_layer(converted: CompiledSparse) -> dict[str, Decision]:
    return {decision.layer: decision for decision in converted.decisions}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("density", [0.5, 0.25])
def test_packing_loses_nothing_of_a_trained_network(dtype: torch.dtype, density: float) -> None:
    model = mlp(64, 128, 32)
    engine = trained(model, 64, density)
    with torch.no_grad():
        model[0].weight[3] = 0  # links may be zero, too
    model = model.to(dtype)
    converted = to_24(model, engine, backend=ANYWHERE)
    assert all(decision.replaced for decision in converted.decisions)
    assert converted.decisions[0].density == pytest.approx(density)
    for ours, theirs in zip(model.parameters(), converted.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours is not theirs
    assert not converted.model.training
    assert model.training
    assert model[0].weight.requires_grad
    assert "2:4, by a stand-in" in str(converted)


def test_the_stand_in_does_lose_what_is_not_2_to_4() -> None:
    weight = torch.ones(32, 64, dtype=torch.float16)
    assert not torch.equal(packed_and_unpacked(weight), weight)


@pytest.mark.parametrize(
    ("widths", "density", "group", "reason"),
    [
        ((64, 40, 32), 0.5, 4, "40 outputs and 64 inputs are no multiples of 32 and 64, as a stand-in wants"),
        ((72, 64, 32), 0.5, 4, "64 outputs and 72 inputs are no multiples of 32 and 64"),
        (
            (64, 64, 32),
            0.75,
            4,
            r"1024 times, four neighbouring inputs have more than two links; train with Structure\(group=4\)",
        ),
        ((64, 64, 32), 0.5, "row", "times, four neighbouring inputs have more than two links"),
    ],
    ids=["outputs", "inputs", "3:4", "rows"],
)
def test_sizes_and_masks_that_the_kernels_do_not_take(widths: tuple[int, ...], density: float, group: str, reason: str) -> None:
    model = mlp(*widths)
    engine = trained(model, widths[0], density, group)
    with pytest.raises(ValueError, match=rf"^no weight can be 2:4: 0.weight: .*{reason}"):
        to_24(model.half(), SimpleNamespace(masks={"0.weight": engine.masks["0.weight"]}), backend=ANYWHERE)


def test_layers_that_stay_dense_say_why() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.good, self.a, self.b = (nn.Linear(64, 64) for _ in range(3))
            self.b.weight = self.a.weight
            self.attention = nn.MultiheadAttention(64, 2, batch_first=True)
            self.block = nn.TransformerEncoderLayer(64, 2, 128, batch_first=True)
            self.hooked = nn.Linear(64, 64)
            self.precise = nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            x = self.precise(self.hooked(self.b(self.a(self.good(x))))).unsqueeze(0)
            return self.block(self.attention(x, x, x)[0])

    torch.manual_seed(0)
    model = Tied()
    engine = trained(model, 64)
    model.half()
    model.precise.float()
    model.hooked.register_forward_hook(lambda *_: None)
    found = by_layer(to_24(model, engine, backend=ANYWHERE))
    assert {name for name, decision in found.items() if decision.replaced} == {"good.weight"}
    for name, reason in {
        "a.weight": "its weight is tied",
        "attention.in_proj_weight": "MultiheadAttention, not to a plain Linear",
        "block.linear1.weight": "the fused path of its TransformerEncoderLayer",
        "hooked.weight": "hooks",
        "precise.weight": "it is in torch.float32",
    }.items():
        assert reason in found[name].reason, name


def test_on_a_cpu_nothing_is_converted_and_nothing_silent() -> None:
    model = mlp(64, 64, 32)
    engine = trained(model, 64)
    before = copy.deepcopy(model.half().state_dict())
    with pytest.raises(RuntimeError, match=r"multiplied on CUDA only, and these are on cpu.*compile_sparse"):
        to_24(model, engine)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_gpu_without_sparse_tensor_cores_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old one")
    with pytest.raises(RuntimeError, match=r"an old one has compute capability 7\.5; 2:4 weights need 8\.0"):
        cuda_backend(torch.device("cuda"))


@pytest.mark.parametrize("library", [True, False], ids=["cuSPARSELt", "CUTLASS"])
def test_the_backend_is_what_torch_was_built_with(library: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: library)
    backend = cuda_backend(torch.device("cuda"))
    assert backend.name == ("cusparselt" if library else "cutlass")
    assert set(backend.multiples) == set(HALVES)
    assert all(size % 8 == 0 for sizes in backend.multiples.values() for size in sizes)


def test_a_weight_with_more_than_its_mask_is_refused() -> None:
    model = mlp(64, 64, 32)
    engine = trained(model, 64)
    with torch.no_grad():
        model[0].weight += 1
    with pytest.raises(ValueError, match=r"0\.weight is not zero outside of its mask"):
        to_24(model.half(), engine, backend=ANYWHERE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_outputs_on_cuda_are_those_of_the_masked_model(dtype: torch.dtype) -> None:
    model = mlp(128, 256, 64)
    engine = trained(model, 128)
    model = model.to("cuda", dtype).eval()
    converted = to_24(model, engine)
    x = torch.randn(48, 128, device="cuda", dtype=dtype)
    with torch.no_grad():
        expected, found = model(x), converted(x)
    assert isinstance(converted.model[0].weight, torch.sparse.SparseSemiStructuredTensor)
    assert found.dtype == dtype
    assert torch.allclose(found, expected, rtol=2e-2, atol=2e-2)
