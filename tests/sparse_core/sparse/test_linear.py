"""The sparse layer computes and learns what the masked dense layer does, and trusts no pattern that it has not checked."""

from __future__ import annotations

import copy
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sparse_core.sparse import Linear

ROOT = Path(__file__).parents[3]


def masked_pair(
    out_features: int = 5, in_features: int = 7, density: float = 0.4, *, bias: bool = True, dtype=torch.float32, seed=0
):
    """A dense layer that is zero outside of a mask with an empty row and an empty column, the mask, and the sparse layer."""
    generator = torch.Generator().manual_seed(seed)
    dense = nn.Linear(in_features, out_features, bias=bias, dtype=dtype)
    mask = torch.rand(out_features, in_features, generator=generator) < density
    mask[out_features // 2] = False
    mask[:, in_features // 3] = False
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        dense.weight.mul_(mask)
    return dense, mask, Linear.from_dense(dense, mask)


def close(ours: Tensor, theirs: Tensor, relative: float) -> bool:
    """Largest difference against the largest entry."""
    return bool((ours - theirs).abs().max() <= relative * theirs.abs().max())


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (16,), (17,), (64,), (70,), (300,), (2, 3, 11)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_outputs_and_gradients_are_those_of_the_masked_dense_layer(
    shape: tuple[int, ...], dtype: torch.dtype, bias: bool
) -> None:
    dense, mask, sparse = masked_pair(33, 48, 0.2, bias=bias, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, 48, generator=generator, dtype=dtype)
    upper = torch.randn(*shape, 33, generator=generator, dtype=dtype)
    theirs_x, ours_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    theirs, ours = dense(theirs_x), sparse(ours_x)
    assert ours.shape == theirs.shape
    assert ours.is_contiguous()
    assert close(ours, theirs, 1e-5)
    theirs.backward(upper)
    ours.backward(upper)
    assert close(ours_x.grad, theirs_x.grad, 1e-4)
    assert close(sparse.values.grad, dense.weight.grad[mask], 1e-4)
    if bias:
        assert close(sparse.bias.grad, dense.bias.grad, 1e-4)
    with torch.no_grad():
        assert close(sparse(x), theirs, 1e-5)


@pytest.mark.parametrize("num_tokens", [2, 20])
def test_first_and_second_derivatives_pass_torchs_check(num_tokens: int) -> None:
    _, _, sparse = masked_pair(dtype=torch.float64)

    def run(x: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(sparse, {"values": values, "bias": bias}, (x,))

    inputs = (torch.randn(num_tokens, 7, dtype=torch.float64, requires_grad=True), sparse.values, sparse.bias)
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_training_goes_the_way_of_the_masked_dense_layer() -> None:
    dense, mask, sparse = masked_pair(12, 20, 0.3)
    optimizers = [torch.optim.AdamW(layer.parameters(), lr=0.05) for layer in (dense, sparse)]
    for step in range(20):
        x = torch.randn(32, 20, generator=torch.Generator().manual_seed(step))
        for layer, optimizer in zip((dense, sparse), optimizers, strict=True):
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            if layer is dense:
                dense.weight.grad.mul_(mask)
            optimizer.step()
    assert close(sparse.weight, dense.weight, 1e-4)
    assert close(sparse.bias, dense.bias, 1e-4)


def test_only_the_gradients_that_are_asked_for_are_computed() -> None:
    _, _, sparse = masked_pair()
    sparse(torch.randn(20, 7)).sum().backward()
    assert sparse.values.grad is not None
    assert sparse._transposed_order is None  # the pattern for the input's gradient was never made
    sparse.values.requires_grad_(False)
    sparse.values.grad = None
    x = torch.randn(20, 7, requires_grad=True)
    sparse(x).sum().backward()
    assert x.grad is not None
    assert sparse.values.grad is None


@pytest.mark.parametrize("shape", [(0, 7), (2, 0, 7)], ids=str)
def test_an_empty_batch_gives_an_empty_output_and_zero_gradients(shape: tuple[int, ...]) -> None:
    _, _, sparse = masked_pair()
    x = torch.randn(shape, requires_grad=True)
    y = sparse(x)
    assert y.shape == (*shape[:-1], 5)
    y.sum().backward()
    assert x.grad.shape == shape
    assert not sparse.values.grad.any()
    assert not sparse.bias.grad.any()


@pytest.mark.parametrize("num_tokens", [2, 20])
def test_a_layer_without_links_gives_its_bias(num_tokens: int) -> None:
    dense = nn.Linear(7, 5)
    sparse = Linear.from_dense(dense, torch.zeros(5, 7, dtype=torch.bool))
    x = torch.randn(num_tokens, 7, requires_grad=True)
    y = sparse(x)
    assert torch.equal(y, dense.bias.expand(num_tokens, 5))
    y.sum().backward()
    assert not x.grad.any()
    assert sparse.values.grad.shape == (0,)
    assert not sparse.to_dense().weight.any()


def test_transposed_and_strided_inputs_are_read_right() -> None:
    dense, _, sparse = masked_pair(33, 48)
    wide = torch.randn(48, 90)
    for x in (wide.t(), wide.t()[::3], torch.randn(20, 1).expand(20, 48)):
        assert close(sparse(x), dense(x), 1e-5)


def test_dense_and_back_is_exact() -> None:
    dense, mask, sparse = masked_pair()
    dense.weight.requires_grad_(False)
    dense.eval()
    sparse = Linear.from_dense(dense, mask)
    back = sparse.to_dense()
    assert type(back) is nn.Linear
    assert torch.equal(back.weight, dense.weight)
    assert torch.equal(back.bias, dense.bias)
    assert torch.equal(sparse.mask, mask)
    assert sparse.density == pytest.approx(mask.float().mean().item())
    assert not back.weight.requires_grad
    assert back.bias.requires_grad
    assert not back.training
    with torch.no_grad():
        sparse.values.zero_()
    assert torch.equal(back.weight, dense.weight)  # nothing is shared


def test_what_lies_outside_of_the_mask_is_left_behind() -> None:
    dense, mask, _ = masked_pair()
    with torch.no_grad():
        dense.weight.add_(1.0)
    before = dense.weight.clone()
    sparse = Linear.from_dense(dense, mask)
    assert torch.equal(sparse.weight, dense.weight * mask)
    assert torch.equal(dense.weight, before)


def test_the_dense_view_of_the_weights_is_differentiable() -> None:
    _, mask, sparse = masked_pair()
    (sparse.weight * torch.arange(35.0).view(5, 7)).sum().backward()
    assert torch.equal(sparse.values.grad, torch.arange(35.0).view(5, 7)[mask])


def test_memory_is_that_of_the_links() -> None:
    _, mask, sparse = masked_pair(64, 64, 0.1)

    def num_bytes() -> int:
        return sum(t.numel() * t.element_size() for t in (*sparse.parameters(), *sparse.buffers()))

    links = int(mask.sum())
    fixed = 4 * (64 + 64 + 1)  # bias and row offsets
    sparse(torch.randn(20, 64)).sum().backward()
    assert num_bytes() == 8 * links + fixed
    sparse(torch.randn(20, 64, requires_grad=True)).sum().backward()
    assert num_bytes() == 16 * links + fixed + 4 * 65


def test_a_state_dict_brings_its_links_along() -> None:
    _, _, first = masked_pair(seed=0)
    mask = first.mask.roll(1, 0).roll(2, 1)
    second = Linear.from_dense(nn.Linear(7, 5), mask)
    x = torch.randn(20, 7, requires_grad=True)
    second(x).sum().backward()  # so that the transposed pattern is there, and must go
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert sorted(second.state_dict()) == ["bias", "columns", "row_offsets", "values"]
    assert torch.equal(second.mask, first.mask)
    assert torch.equal(second(x), first(x))
    gradients = [torch.autograd.grad(layer(x).square().sum(), x)[0] for layer in (first, second)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s["columns"].__setitem__(0, 7), "outside of 0 to 6"),
        (lambda s: s["columns"].__setitem__(0, -1), "outside of 0 to 6"),
        (lambda s: s["columns"].__setitem__(slice(0, 2), s["columns"][:2].flip(0).clone()), "must rise"),
        (lambda s: s["row_offsets"].__setitem__(1, 100), "rise from 0"),
        (lambda s: s["row_offsets"].__setitem__(-1, 1), "rise from 0"),
        (lambda s: s.update(columns=s["columns"][1:]), "links, this layer"),
        (lambda s: s.update(row_offsets=s["row_offsets"][1:]), "5 rows"),
        (lambda s: s.pop("columns"), "belong together"),
        (lambda s: s.update(columns=s["columns"].float()), "integers"),
    ],
    ids=["column beyond", "column below", "unordered", "offset beyond", "last offset", "links", "rows", "half", "float"],
)
def test_a_pattern_that_would_read_foreign_memory_is_not_loaded(change, words: str) -> None:
    _, _, sparse = masked_pair()
    state = copy.deepcopy(sparse.state_dict())
    change(state)
    state["values"] = state["values"] + 1
    before = copy.deepcopy(sparse.state_dict())
    with pytest.raises(RuntimeError, match=words):
        sparse.load_state_dict(state, strict=False)
    assert all(torch.equal(value, before[name]) for name, value in sparse.state_dict().items())


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda d, m: (d, m[:, 1:]), ValueError, r"\(5, 6\).*\(5, 7\)"),
        (lambda d, m: (d, m.view(-1)), ValueError, r"\(35,\)"),
        (lambda d, m: (d, m.float()), TypeError, "bool.*float32"),
        (lambda d, m: (d.bfloat16(), m), TypeError, "bfloat16"),
        (lambda d, m: (d.weight.data.fill_(float("nan")) is None or d, m), ValueError, "finite"),
        (lambda d, m: (d.bias.data.fill_(float("inf")) is None or d, m), ValueError, "finite"),
    ],
    ids=["shape", "not a matrix", "not bool", "precision", "nan", "infinite bias"],
)
def test_unfit_layers_and_masks_are_refused(spoil, error: type[Exception], words: str) -> None:
    dense, mask, _ = masked_pair()
    with pytest.raises(error, match=words):
        Linear.from_dense(*spoil(dense, mask))


def test_unfit_inputs_are_refused() -> None:
    _, _, sparse = masked_pair()
    with pytest.raises(ValueError, match=re.escape("(2, 6)")):
        sparse(torch.randn(2, 6))
    with pytest.raises(TypeError, match=r"float64.*float32"):
        sparse(torch.randn(2, 7).double())


def test_under_autocast_it_takes_what_other_layers_give() -> None:
    dense, _, sparse = masked_pair()
    x = torch.randn(20, 7).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = sparse(x)
    assert y.dtype == torch.float32
    assert close(y, dense(x.float()), 1e-5)


def test_a_copy_is_independent_and_precision_can_change() -> None:
    dense, _, sparse = masked_pair()
    sparse(torch.randn(3, 7, requires_grad=True)).sum().backward()
    twin = copy.deepcopy(sparse).double()
    assert twin.columns.dtype == torch.int32
    x = torch.randn(20, 7, dtype=torch.float64)
    assert close(twin(x), dense.double()(x), 1e-12)
    with torch.no_grad():
        twin.values.zero_()
    assert sparse.values.any()


def test_export_keeps_the_layer_whole_with_any_number_of_tokens() -> None:
    _, _, sparse = masked_pair()
    sparse.requires_grad_(False)
    tokens = torch.export.Dim("tokens", min=2)
    program = torch.export.export(sparse, (torch.randn(20, 7),), dynamic_shapes=({0: tokens},))
    x = torch.randn(33, 7)
    assert torch.equal(program.module()(x), sparse(x))


def test_compiling_breaks_no_graph_and_keeps_the_gradients() -> None:
    _, _, sparse = masked_pair()
    x = torch.randn(20, 7, requires_grad=True)
    leaves = (x, *sparse.parameters())
    expected = torch.autograd.grad(sparse(x).square().sum(), leaves)
    compiled = torch.compile(masked_pair()[2], backend="aot_eager", fullgraph=True)
    y = compiled(x)
    assert torch.equal(y, sparse(x))
    gradients = torch.autograd.grad(y.square().sum(), (x, *compiled.parameters()))
    assert all(close(ours, theirs, 1e-6) for ours, theirs in zip(gradients, expected, strict=True))


def test_it_makes_no_warnings() -> None:
    """In a process of its own, for torch gives its warning about CSR tensors only once."""
    code = """
import torch
from sparse_core.sparse import Linear
sparse = Linear.from_dense(torch.nn.Linear(4, 4), torch.eye(4, dtype=torch.bool))
for num_tokens in (2, 20):
    sparse(torch.randn(num_tokens, 4, requires_grad=True)).sum().backward()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stderr == ""
