"""SynFlow: what stays is what most strength flows through, and the model is as it was."""

import copy
import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import layout
from sparse_core.start import Start
from sparse_core.synflow import synflow_scores


def network(*widths: int, bias: bool = False, seed: int = 5) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.dim() >= 2}


def scores_of(model: nn.Module, sample: object, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return synflow_scores(Start(model, weights_of(model), [], 1.0, lambda scores, share: {}), sample, 1, dtype)


def masks(
    model: nn.Module,
    how: layout.Layout,
    density: float = 0.2,
    structure: sc.Structure | None = None,
    single: dict[str, float] | None = None,
) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = sc.Static(density, layout=how, structure=structure or sc.Structure())
    return dict(sc.sparsify(model, optimizer, method, density=single).masks)


def flow_by_paths(weights: list[list[list[float]]]) -> list[dict[tuple[int, int], float]]:
    """For every link, the sum over all paths from an input to an output through it of the product of their |weights|."""
    widths = [len(weights[0][0]), *(len(layer) for layer in weights)]
    found: list[dict[tuple[int, int], float]] = [{} for _ in weights]
    for path in itertools.product(*map(range, widths)):
        product = math.prod(abs(weights[n][path[n + 1]][path[n]]) for n in range(len(weights)))
        for n in range(len(weights)):
            link = (path[n + 1], path[n])
            found[n][link] = found[n].get(link, 0.0) + product
    return found


def test_scores_are_the_strength_of_all_paths_through_a_link() -> None:
    model = network(3, 4, 2, 3)
    expected = flow_by_paths([weight.tolist() for weight in weights_of(model).values()])
    for score, paths in zip(scores_of(model, torch.randn(1, 3)).values(), expected, strict=True):
        for (row, column), strength in paths.items():
            assert float(score[row, column]) == pytest.approx(strength, rel=1e-12)


@pytest.mark.parametrize(("rounds", "density"), [(1, 0.3), (2, 0.2), (4, 0.3), (7, 0.15)])
def test_rounds_prune_as_a_plain_loop_does(rounds: int, density: float) -> None:
    model = network(3, 5, 4, 3, seed=rounds)
    weights = [weight.tolist() for weight in weights_of(model).values()]
    links = {(n, r, c) for n, layer in enumerate(weights) for r, row in enumerate(layer) for c in range(len(row))}
    size = len(links)
    for number in range(1, rounds + 1):
        present = [
            [[value if (n, r, c) in links else 0.0 for c, value in enumerate(row)] for r, row in enumerate(layer)]
            for n, layer in enumerate(weights)
        ]
        flow = flow_by_paths(present)
        best = sorted(links, key=lambda link, f=flow: -f[link[0]][link[1:]])  # type: ignore[misc]
        links = set(best[: round(density ** (number / rounds) * size)])
    found = masks(model, layout.synflow(torch.ones(1, 3), rounds), density)
    for n, mask in enumerate(found.values()):
        assert {(n, row, column) for row, column in mask.nonzero().tolist()} == {link for link in links if link[0] == n}


class Beside(nn.Module):
    """A layer whose outputs are next to nothing beside another's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.strong, self.weak = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.strong(x) + 1e-6 * self.weak(x)


def after_a_round(model: nn.Module, left: dict[str, Tensor]) -> dict[str, list[list[float]]]:
    """The signs of the scores in the second of two rounds, after the first has left these links."""
    shares: list[float] = []

    def keep(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        shares.append(share)
        return left

    start = Start(model, weights_of(model), [], 0.25, keep)
    found = synflow_scores(start, torch.ones(1, next(iter(left.values())).shape[1]), 2, torch.float64)
    assert shares == [0.5]
    return {name: score.sign().tolist() for name, score in found.items()}


def test_what_a_round_took_away_is_below_what_is_left_without_a_flow() -> None:
    left = {"0.weight": torch.tensor([[True, True], [True, False]]), "2.weight": torch.tensor([[False, True]])}
    assert after_a_round(network(2, 2, 1), left) == {"0.weight": [[0, 0], [1, -1]], "2.weight": [[-1, 1]]}
    none, every = torch.zeros(4, 6, dtype=torch.bool), torch.ones(4, 6, dtype=torch.bool)
    assert after_a_round(Beside(), {"strong.weight": every, "weak.weight": none})["weak.weight"] == [[-1.0] * 6] * 4
    with pytest.raises(ValueError, match="no path is left through the network after round 1; raise the density"):
        after_a_round(Beside(), {"strong.weight": none, "weak.weight": none})


def test_a_layer_that_every_round_would_empty_is_named_once() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = masks(Beside(), layout.synflow(torch.ones(1, 6), 10), 0.25)
    assert [str(one.message).partition(";")[0] for one in told] == ["the layout SynFlow would leave no link in weak.weight"]
    assert {name: int(mask.sum()) for name, mask in found.items()} == {"strong.weight": 11, "weak.weight": 1}


def test_what_flows_into_a_layer_flows_out_of_it() -> None:
    """Tanaka's conservation: the same sum in every layer, which is why none collapses before the others."""
    model = network(6, 20, 3, 30, 4)
    sums = [float(score.sum()) for score in scores_of(model, torch.randn(2, 6)).values()]
    assert sums == pytest.approx([sums[0]] * 4, rel=1e-10)


@pytest.mark.parametrize("density", [0.5, 0.05, 0.02])
def test_no_layer_collapses_and_the_total_is_exact(density: float) -> None:
    model = network(10, 60, 4, 80, 5)
    found = masks(model, layout.synflow(torch.ones(1, 10), 50), density)
    size = sum(mask.numel() for mask in found.values())
    assert sum(int(mask.sum()) for mask in found.values()) == round(density * size)
    assert all(mask.any() for mask in found.values())
    with torch.no_grad():  # the same network with all that is left made positive still says something
        strengths = [mask.float() for mask in found.values()]
        out = torch.ones(10)
        for strength in strengths:
            out = strength @ out
    assert out.sum() > 0


def test_the_same_model_gives_the_same_masks_whatever_torch_draws() -> None:
    first = masks(network(6, 20, 4), layout.synflow(torch.randn(3, 6), 10))
    torch.manual_seed(99)
    second = masks(network(6, 20, 4), layout.synflow(torch.randn(3, 6), 10))
    assert all(torch.equal(mask, second[name]) for name, mask in first.items())


class Branches(nn.Module):
    """A convolution with batch norm and dropout, part of it frozen in evaluation mode, and a head used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.convolution = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 4)
        self.again = nn.Linear(4, 4)
        self.again.weight = self.head.weight
        self.register_buffer("offset", torch.full((4,), -1.0))
        self.register_buffer("order", torch.tensor([3, 2, 1, 0]))

    def forward(self, x: Tensor, order: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        features = self.dropout(torch.relu(self.norm(self.convolution(x)))).mean((2, 3))
        out = self.again(torch.relu(self.head(features))) + self.offset
        return {"out": (out[:, self.order], out[:, order])}


def test_nothing_of_the_model_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Branches()
    model(torch.randn(4, 2, 5, 5), torch.arange(4))
    model.norm.running_mean.fill_(-0.5)
    model.dropout.eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    identities = {name: id(tensor) for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers())}
    modes = [module.training for module in model.modules()]
    model.head.weight.grad = torch.ones(4, 4)
    sample = {"x": torch.randn(1, 2, 5, 5), "order": torch.arange(4)}
    random = torch.get_rng_state()
    monkeypatch.setattr(copy, "deepcopy", None)
    found = scores_of(model, sample)
    assert list(found) == ["convolution.weight", "head.weight"]
    assert all((score > 0).all() for score in found.values())
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    now = {name: id(tensor) for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers())}
    assert now == identities
    assert torch.equal(model.head.weight.grad, torch.ones(4, 4))


def test_a_norm_flows_by_the_absolute_of_its_scale_shift_and_running_mean() -> None:
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1, bias=False)).double()
    model[1].weight.data = torch.tensor([-2.0, 1.0, 0.5], dtype=torch.float64)
    model[1].bias.data = torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64)
    model[1].running_mean.copy_(torch.tensor([0.0, -0.01, 0.0]))
    model[1].running_var.copy_(torch.tensor([4.0, 1.0, 1.0]))
    first, last = model[0].weight.detach().abs(), model[3].weight.detach().abs()
    scale = torch.tensor([2.0, 1.0, 0.5]) / (torch.tensor([4.0, 1.0, 1.0], dtype=torch.float64) + 1e-5).sqrt()
    found = scores_of(model, torch.zeros(1, 2))
    torch.testing.assert_close(found["0.weight"], first * scale.view(3, 1) * last.view(3, 1))
    hidden = (first.sum(1) - torch.tensor([0.0, 0.01, 0.0])) * scale + torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(found["3.weight"], last * hidden)


@dataclass
class Scene:
    x: Tensor
    valid: Tensor


class Pair(NamedTuple):
    x: Tensor
    valid: Tensor


class OfScenes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, scene: Scene | Pair) -> Scene | Pair:
        return type(scene)(self.layer(scene.x) * scene.valid.unsqueeze(-1), scene.valid)


@pytest.mark.parametrize("kind", [Scene, Pair])
def test_samples_and_outputs_may_be_data_classes_and_named_tuples_and_masks_stay_masks(kind: type) -> None:
    model = OfScenes()
    scene = kind(torch.full((3, 3), float("nan")), torch.tensor([True, False, True]))
    found = scores_of(model, (scene,))
    torch.testing.assert_close(found["layer.weight"], 2 * model.layer.weight.detach().abs().double())
    assert scene.x.isnan().all()


def test_deep_networks_do_not_overflow_and_what_does_is_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(60)))
    found = scores_of(model, torch.ones(1, 64))
    assert all(torch.isfinite(score).all() for score in found.values())
    for layer in model:
        layer.weight.data *= 8
    with pytest.raises(ValueError, match=r"flow through 0.weight is not finite in torch.float32"):
        scores_of(model, torch.ones(1, 64), torch.float32)


def test_a_layer_that_no_flow_reaches_is_named() -> None:
    model = network(4, 6, 3)
    nn.init.zeros_(model[2].weight)
    with pytest.raises(ValueError, match=r"no flow reaches 0.weight"):
        masks(model, layout.synflow(torch.ones(1, 4)))
    cancelled = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6))
    with pytest.raises(ValueError, match=r"no flow reaches 0.weight.*a norm or softmax cancels"):
        masks(cancelled, layout.synflow(torch.ones(1, 4)))
    apart = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    apart.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"no output of the model depends on the ranked weights"):
        masks(apart, layout.synflow(torch.ones(1, 4)))


def test_layers_of_given_density_take_part_with_their_masks() -> None:
    """With one link in the layer between, the flow goes through that one only."""
    model = network(6, 8, 8, 4)
    found = masks(model, layout.synflow(torch.ones(1, 6), 10), 0.2, single={"2": 1 / 64})
    [[row, column]] = found["2.weight"].nonzero().tolist()
    assert int(found["0.weight"].sum() + found["4.weight"].sum()) == round(0.2 * (48 + 32))
    assert found["0.weight"][column].all()
    assert found["4.weight"][:, row].all()


def test_units_and_regions_are_kept() -> None:
    model = network(8, 8, 8)
    region = torch.ones(8, 8, dtype=torch.bool).tril()
    found = masks(model, layout.synflow(torch.ones(1, 8), 5), 0.5, structure=sc.Structure(allowed={"*": region}))
    assert sum(int(mask.sum()) for mask in found.values()) == round(0.5 * 2 * 36)
    assert not any((mask & ~region).any() for mask in found.values())
    blocks = masks(network(8, 8, 8), layout.synflow(torch.ones(1, 8), 5), 0.25, structure=sc.Structure(unit=(2, 2)))
    for mask in blocks.values():
        tiles = mask.view(4, 2, 4, 2).permute(0, 2, 1, 3).reshape(16, 4)
        assert torch.equal(tiles.any(1), tiles.all(1))
    assert sum(int(mask.sum()) for mask in blocks.values()) == 32


def test_rounds_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="rounds is 0"):
        layout.synflow(torch.ones(1, 2), 0)
