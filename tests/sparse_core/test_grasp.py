"""GraSP: what stays is what the gradient's flow would miss."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import layout
from sparse_core.grasp import LossAt, grasp_scores
from sparse_core.start import Start

Build = Callable[[], nn.Module]


def network() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 5, dtype=torch.float64), nn.Tanh(), nn.Linear(5, 3, bias=False, dtype=torch.float64))


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 4, generator=generator, dtype=torch.float64), torch.arange(size) % 3


def loss_of(model: nn.Module, x: Tensor, y: Tensor, reduction: str = "mean") -> LossAt:
    return lambda temperature: nn.functional.cross_entropy(model(x) / temperature, y, reduction=reduction)


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.dim() == 2}


def scores_of(model: nn.Module, *losses: LossAt, temperature: float = 1.0) -> dict[str, Tensor]:
    return grasp_scores(Start(model, weights_of(model), [], 0.5, lambda scores, share: {}), losses, temperature)


def masks(model: nn.Module, how: layout.Layout, density: float = 0.4, **options: object) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return dict(sc.sparsify(model, optimizer, sc.Static(density, layout=how, **options)).masks)  # type: ignore[arg-type]


def test_scores_are_the_weight_times_the_hessian_times_the_gradient() -> None:
    """H g link by link, from the whole Hessian."""
    model, (x, y) = network(), batch()
    first, bias, last = (parameter.detach().clone() for parameter in model.parameters())

    def loss(flat: Tensor) -> Tensor:
        hidden = torch.tanh(x @ flat[:20].view(5, 4).T + bias)
        return nn.functional.cross_entropy(hidden @ flat[20:].view(3, 5).T / 3.0, y)

    theta = torch.cat([first.view(-1), last.view(-1)])
    gradient = torch.autograd.functional.jacobian(loss, theta).tolist()
    hessian = torch.autograd.functional.hessian(loss, theta).tolist()
    expected = [theta[q].item() * sum(hessian[q][p] * gradient[p] for p in range(35)) for q in range(35)]
    found = scores_of(model, loss_of(model, x, y), temperature=3.0)
    assert torch.cat([score.view(-1) for score in found.values()]).tolist() == pytest.approx(expected, abs=1e-12)


def test_removing_a_bit_of_a_link_changes_the_gradient_flow_by_minus_two_scores() -> None:
    """The sign: where the score is large, the flow g'g falls most as the link goes."""
    model, (x, y) = network(), batch()
    scores = torch.cat([score.view(-1) for score in scores_of(model, loss_of(model, x, y)).values()])

    def flow() -> float:
        found = torch.autograd.grad(loss_of(model, x, y)(1.0), list(weights_of(model).values()))
        return float(sum(gradient.square().sum() for gradient in found))

    part, before, changes = 1e-6, flow(), []
    for weight in weights_of(model).values():
        for place in range(weight.numel()):
            value = float(weight.detach().view(-1)[place])
            weight.data.view(-1)[place] = value * (1 - part)
            changes.append((flow() - before) / part)
            weight.data.view(-1)[place] = value
    assert changes == pytest.approx((-2 * scores).tolist(), abs=1e-5)
    assert scores.abs().max() > 1e-3


def test_the_links_with_the_largest_scores_of_all_layers_begin() -> None:
    model, (x, y) = network(), batch()
    scores = scores_of(model, loss_of(model, x, y), temperature=200.0)
    border = torch.cat([score.view(-1) for score in scores.values()]).sort(descending=True).values[13]
    found = masks(model, layout.one_shot_grasp(loss_of(model, x, y)))
    assert sum(int(mask.sum()) for mask in found.values()) == 14
    for name, mask in found.items():
        assert torch.equal(mask, scores[name] >= border)


def test_several_batches_count_as_one() -> None:
    model, (x, y) = network(), batch(8)
    whole = scores_of(model, loss_of(model, x, y, "sum"))
    parts = scores_of(model, loss_of(model, x[:3], y[:3], "sum"), loss_of(model, x[3:], y[3:], "sum"))
    for name, score in whole.items():
        torch.testing.assert_close(parts[name], score, rtol=1e-10, atol=1e-12)


def test_nothing_of_the_model_is_changed_and_random_layers_are_the_same_in_both_passes() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Tanh(), nn.Linear(16, 3))
    x, y = batch()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model[0].weight.grad = torch.ones(16, 4)
    random = torch.get_rng_state()
    seen: list[Tensor] = []

    def loss(temperature: float) -> Tensor:
        seen.append(nn.functional.cross_entropy(model(x.float()) / temperature, y))
        return seen[-1]

    scores_of(model, loss)
    assert torch.equal(torch.get_rng_state(), random)
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones(16, 4))
    assert model[4].weight.grad is None


def test_attention_is_differentiated_twice() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = torch.randn(2, 3, 8)
    found = masks(model, layout.one_shot_grasp(lambda temperature: model(x)[..., 0].square().mean()), density=0.3)
    assert set(found) == {"self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"}
    assert sum(int(mask.sum()) for mask in found.values()) == round(0.3 * (24 * 8 + 8 * 8 + 16 * 8 * 2))


def test_a_layer_that_a_loss_does_not_use_scores_nothing_for_it() -> None:
    model, (x, y) = network(), batch()
    aside = nn.ModuleDict({"net": model, "other": nn.Linear(4, 4, dtype=torch.float64)})
    found = scores_of(aside, loss_of(model, x, y))
    assert not found["other.weight"].any()
    for name, score in scores_of(model, loss_of(model, x, y)).items():
        assert torch.equal(found[f"net.{name}"], score)


def test_units_live_and_die_by_the_sum_of_their_scores() -> None:
    model, (x, y) = network(), batch()
    scores = scores_of(model, loss_of(model, x, y), temperature=200.0)
    found = masks(model, layout.one_shot_grasp(loss_of(model, x, y)), structure=sc.Structure(unit="channel"), density=0.5)
    for name, mask in found.items():
        assert torch.equal(mask.any(1), mask.all(1))
        kept, gone = scores[name].sum(1)[mask.all(1)], scores[name].sum(1)[~mask.all(1)]
        assert not len(kept) or not len(gone) or kept.min() > gone.max()


@pytest.mark.parametrize(
    ("loss", "temperature", "message"),
    [([], 200.0, "0 losses"), (lambda t: torch.zeros(()), 0.0, "1 losses at temperature 0.0")],
)
def test_what_cannot_be_is_refused(loss: object, temperature: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout.one_shot_grasp(loss, temperature)  # type: ignore[arg-type]


def test_a_loss_without_curvature_ranks_nothing() -> None:
    model = nn.Linear(4, 3, bias=False)
    with pytest.raises(ValueError, match="second derivative of the loss is zero"):
        masks(model, layout.one_shot_grasp(lambda temperature: model(torch.ones(2, 4)).sum()))
