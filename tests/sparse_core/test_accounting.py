"""Costs equal torch's own counter when dense, scale with the masks, and leave the model alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sparse_core.accounting import Cost, cost
from sparse_core.sparse import Linear


class CrossAttention(nn.Module):
    """Learned queries, packed projections, torch's attention function, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 5, 16))
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(self.query.expand(len(x), -1, -1), x, x)[0]
        return self.head(F.scaled_dot_product_attention(y, y, y))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "mlp": (mlp, (3, 8), 1),
    "mlp with leading dimensions": (mlp, (2, 3, 8), 1),
    "no bias": (lambda: nn.Linear(8, 4, bias=False), (3, 8), 1),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3, padding=1), nn.Conv1d(6, 2, 3)), (2, 4, 9), 1),
    "conv2d, stride and groups": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, 3, stride=2, groups=2, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1)
        ),
        (2, 4, 12, 12),
        1,
    ),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.Conv3d(4, 2, 1)), (2, 2, 4, 5, 6), 1),
    "transposed conv": (lambda: nn.ConvTranspose2d(4, 2, 3, stride=2), (2, 4, 5, 5), 1),
    "self-attention": (lambda: nn.MultiheadAttention(16, 4, batch_first=True), (2, 7, 16), 3),
    "cross-attention": (CrossAttention, (2, 7, 16), 1),
    "transformer layer": (lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (2, 7, 16), 1),
    "transformer layer in evaluation": (lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval(), (2, 7, 16), 1),
}


def counted_by_torch(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[int, int]:
    """FLOPs forward, and backward, by FlopCounterMode."""
    with FlopCounterMode(display=False) as forward:
        model(*sample)
    with FlopCounterMode(display=False) as both:
        output = model(*sample)
        (output[0] if isinstance(output, tuple) else output).sum().backward()
    model.zero_grad()
    return forward.get_total_flops(), both.get_total_flops() - forward.get_total_flops()


def row_of(counts: Cost, name: str):
    return next(row for row in counts.weights if row.name == name)


@pytest.mark.parametrize("input_needs_gradient", [False, True], ids=["data", "leaf"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_dense_costs_equal_those_of_torch(
    case: tuple[Callable[[], nn.Module], tuple[int, ...], int], input_needs_gradient: bool
) -> None:
    build, shape, repeats = case
    torch.manual_seed(0)
    model = build()
    sample = (torch.randn(shape, requires_grad=input_needs_gradient),) * repeats
    full = {name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters() if p.dim() > 1}
    counts = cost(model, sample, full)
    assert (counts.forward, counts.backward) == counted_by_torch(model, sample)
    assert (counts.sparse_forward, counts.sparse_backward) == (counts.forward, counts.backward)
    assert counts.forward > 0
    assert counts.backward > 0


def test_an_mlp_costs_what_arithmetic_says() -> None:
    model = mlp()
    half = torch.zeros(16, 8, dtype=torch.bool)
    half[:, :4] = True
    counts = cost(model, torch.randn(3, 8), {"0.weight": half})
    first, last = row_of(counts, "0.weight"), row_of(counts, "2.weight")
    assert (first.forward, first.backward) == (2 * 3 * 8 * 16, 2 * 3 * 8 * 16)  # nobody wants the gradient of the data
    assert (last.forward, last.backward) == (2 * 3 * 16 * 4, 2 * 2 * 3 * 16 * 4)
    assert (first.sparse_forward, first.sparse_backward) == (first.forward // 2, first.backward // 2)
    assert (last.sparse_forward, last.sparse_backward) == (last.forward, last.backward)
    assert (counts.parameters, counts.active) == (8 * 16 + 16 + 16 * 4 + 4, 4 * 16 + 16 + 16 * 4 + 4)
    assert first.density == 0.5


def test_both_gradients_of_a_weight_scale_with_its_density() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 10, bias=False))
    mask = torch.zeros(10, 8, dtype=torch.bool)
    mask.view(-1)[:8] = True
    row = row_of(cost(model, torch.randn(5, 8), {"1.weight": mask}), "1.weight")
    assert row.backward == 2 * (2 * 5 * 80)
    assert row.sparse_backward == 2 * (2 * 5 * 8)


def test_packed_projections_are_one_row_and_attention_scores_stay_dense() -> None:
    model = nn.MultiheadAttention(16, 4, batch_first=True)
    sample = (torch.randn(2, 7, 16),) * 3
    nothing = {
        "in_proj_weight": torch.zeros(48, 16, dtype=torch.bool),
        "out_proj.weight": torch.zeros(16, 16, dtype=torch.bool),
    }
    counts = cost(model, sample, nothing)
    assert row_of(counts, "in_proj_weight").forward == 2 * (2 * 7) * 16 * 48
    assert row_of(counts, "out_proj.weight").backward == 2 * 2 * (2 * 7) * 16 * 16
    assert counts.activation_forward == 2 * 2 * 7 * 7 * 16 * 2
    assert (counts.sparse_forward, counts.sparse_backward) == (counts.activation_forward, counts.activation_backward)


class TwiceUsed(nn.Module):
    """One matrix: a layer's weight, a function's, and transposed the way back; and an embedding tied to a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.layer = nn.Linear(4, 3, bias=False)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        x = self.layer(x) @ self.layer.weight
        return self.head(x + F.linear(x, self.layer.weight).sum(-1, keepdim=True))


def test_reuse_is_charged_each_time_and_tied_weights_are_one_row() -> None:
    counts = cost(TwiceUsed(), torch.arange(5), {"head.weight": torch.zeros(6, 4, dtype=torch.bool)})
    assert [row.name for row in counts.weights] == ["embedding.weight", "layer.weight"]
    layer, tied = row_of(counts, "layer.weight"), row_of(counts, "embedding.weight")
    assert (layer.forward, layer.backward) == (3 * 2 * 5 * 12, 6 * 2 * 5 * 12)
    assert (tied.forward, tied.backward) == (2 * 5 * 24, 2 * 2 * 5 * 24)
    assert (tied.sparse_forward, tied.sparse_backward, tied.active) == (0, 0, 0)
    assert counts.activation_forward == counts.activation_backward == 0


def test_casts_and_products_with_buffers_stay_the_weights() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3))
            self.register_buffer("scale", torch.rand(4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, (self.weight * self.scale).double())

    counts = cost(Cast(), torch.randn(2, 3).double(), {"weight": torch.zeros(4, 3, dtype=torch.bool)})
    assert (counts.forward, counts.backward) == (2 * 2 * 12, 2 * 2 * 12)
    assert (counts.sparse_forward, counts.sparse_backward) == (0, 0)


def test_an_untrained_branch_does_not_take_over_the_gradient_of_another_layer() -> None:
    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = nn.Linear(8, 4, bias=False)
            self.teacher = nn.Linear(8, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.student(x)
            with torch.no_grad():
                target = self.teacher(x)
            return y - target

    counts = cost(Teacher(), torch.randn(3, 8))
    assert row_of(counts, "student.weight").backward == 2 * 3 * 32
    assert row_of(counts, "teacher.weight").forward == 2 * 3 * 32
    assert row_of(counts, "teacher.weight").backward == 0


def test_activations_written_into_a_buffer_are_not_taken_for_weights() -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.randn(3, 4))
            self.head = nn.Linear(4, 2, bias=False)
            self.register_buffer("cache", torch.zeros(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            self.cache.copy_(x)
            return (self.cache + self.position) @ x.t()

    model = Cached()
    counts = cost(model, torch.randn(3, 4))
    assert counts.activation_forward == 2 * 3 * 4 * 3
    assert not model.cache.any()


def test_work_that_is_computed_again_is_backward_work_of_its_weights() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=False)

    model, x = Again(), torch.randn(3, 4, requires_grad=True)
    counts = cost(model, x)
    row = row_of(counts, "inner.0.weight")
    assert (row.forward, row.backward) == (2 * 3 * 16, 3 * 2 * 3 * 16)
    assert (counts.forward, counts.backward) == counted_by_torch(model, (x,))


def test_a_sparse_layer_costs_its_links() -> None:
    mask = torch.zeros(10, 8, dtype=torch.bool)
    mask[3, :4] = True
    layer = Linear.from_dense(nn.Linear(8, 10), mask)
    row = row_of(cost(layer, torch.randn(5, 8, requires_grad=True)), "values")
    assert (row.parameters, row.forward, row.backward) == (4, 2 * 5 * 4, 2 * 2 * 5 * 4)


def test_a_frozen_layer_pays_for_no_weight_gradient() -> None:
    model = mlp()
    model[2].weight.requires_grad_(False)
    row = row_of(cost(model, torch.randn(3, 8)), "2.weight")
    assert row.backward == row.forward


@dataclass
class Output:
    """What a model may return."""

    scores: Tensor
    extras: dict[str, list[Tensor]]


@pytest.mark.parametrize("name", list(CASES))
def test_the_forward_pass_can_be_counted_alone(name: str) -> None:
    make, shape, copies = CASES[name]
    torch.manual_seed(0)
    model, sample = make(), (torch.randn(shape),) * copies
    masks = {key: torch.rand(value.shape) < 0.5 for key, value in model.named_parameters() if value.dim() > 1}
    whole, alone = cost(model, sample, masks), cost(model, sample, masks, backward=False)
    assert (alone.forward, alone.sparse_forward, alone.active) == (whole.forward, whole.sparse_forward, whole.active)
    assert alone.backward == alone.sparse_backward == 0 < whole.backward
    assert {row.name: row.forward for row in alone.weights} == {row.name: row.forward for row in whole.weights}
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.is_grad_enabled()


def test_samples_and_outputs_may_be_nested() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor, *, y: Tensor) -> Output:
            return Output(self.a(x), {"b": [self.b(y), y]})

    counts = cost(Nested(), {"x": torch.randn(2, 4), "y": torch.randn(2, 4)})
    assert counts.backward == counts.forward == 2 * 2 * (12 + 8)


def test_the_model_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    model[3].eval()
    model(torch.randn(4, 8)).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [(p.grad, p.grad.clone()) for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    buffers = [id(buffer) for buffer in model.buffers()]
    fired = []
    model[0].weight.register_post_accumulate_grad_hook(fired.append)
    random_state = torch.get_rng_state()
    cost(model, torch.randn(4, 8, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(
        p.grad is grad and torch.equal(grad, values) for p, (grad, values) in zip(model.parameters(), gradients, strict=True)
    )
    assert [module.training for module in model.modules()] == modes
    assert [id(buffer) for buffer in model.buffers()] == buffers
    assert not fired


def test_buffers_come_back_when_the_model_fails() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            raise RuntimeError("broken")

    model = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        cost(model, torch.ones(1))
    assert model.seen == 0


def test_counting_works_under_no_grad_and_through_wrappers() -> None:
    model = mlp()
    expected = cost(model, torch.randn(3, 8))
    with torch.no_grad():
        counts = cost(torch.compile(model), torch.randn(3, 8), {"0.weight": torch.ones(16, 8, dtype=torch.bool)})
    assert counts == expected


@pytest.mark.parametrize(
    ("masks", "error", "words"),
    [
        ({"0.wieght": torch.ones(16, 8, dtype=torch.bool)}, ValueError, "0.wieght.*near: 0.weight"),
        ({"0.weight": torch.ones(8, 16, dtype=torch.bool)}, ValueError, r"0.weight.*\(8, 16\).*\(16, 8\)"),
        ({"0.weight": torch.ones(16, 8)}, TypeError, "0.weight.*bool.*float32"),
    ],
    ids=["name", "shape", "type"],
)
def test_masks_of_another_model_are_refused(masks: dict[str, Tensor], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        cost(mlp(), torch.randn(3, 8), SimpleNamespace(masks=masks).masks)


def test_the_table_shows_weights_and_totals() -> None:
    counts = cost(
        nn.MultiheadAttention(16, 4), (torch.randn(7, 2, 16),) * 3, {"in_proj_weight": torch.zeros(48, 16, dtype=torch.bool)}
    )
    lines = str(counts).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "weight",
        "in_proj_weight",
        "out_proj.weight",
        "2 without products",
        "between activations",
        "total",
    ]
    assert lines[-1].split() == [
        "total",
        f"{counts.parameters:,}",
        f"{counts.active:,}",
        f"{counts.active / counts.parameters:.3f}",
        *(f"{flops:,}" for flops in (counts.forward, counts.sparse_forward, counts.backward, counts.sparse_backward)),
    ]
