"""Three updates of every preset, link by link, against a plain loop written from the paper's formulas."""

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import Method
from sparse_core.network_scores import relative_importance as RI
from tests.sparse_core import plain_loops, plain_network_loops
from tests.sparse_core.plain_loops import Layer, PlainLoop

DENSITY, EVERY, LR, SEED = 0.25, 2, 0.2, 11

PRESETS = {
    "Static": (lambda end: sc.Static(DENSITY), plain_loops.static, DENSITY),
    "SET": (lambda end: sc.SET(DENSITY, end, EVERY), plain_loops.set_update, DENSITY),
    "RigL": (lambda end: sc.RigL(DENSITY, end, EVERY), plain_loops.rigl, DENSITY),
    "ITOP": (lambda end: sc.ITOP(DENSITY, end, EVERY), plain_loops.itop, DENSITY),
    "SNFS": (lambda end: sc.SNFS(DENSITY, end, EVERY), plain_loops.snfs, DENSITY),
    "MEST": (lambda end: sc.MEST(DENSITY, end, EVERY), plain_loops.mest, DENSITY),
    "MEST soft": (lambda end: sc.MEST(DENSITY, end, EVERY, soft=0.1), plain_loops.mest_soft, DENSITY),
    "GMP": (lambda end: sc.GMP(DENSITY, end, EVERY), plain_loops.gmp, 1.0),
    "DSR": (lambda end: sc.DSR(DENSITY, end, EVERY, 0.3, threshold=0.1, layout=sc.layout.er()), plain_loops.dsr, DENSITY),
    "GraNet": (lambda end: sc.GraNet(DENSITY, end, EVERY), plain_loops.granet, 0.5),
    "CHT": (lambda end: sc.CHT(DENSITY, end, EVERY), plain_network_loops.cht, DENSITY),
    "CHT by RI": (lambda end: sc.CHT(DENSITY, end, EVERY, importance=RI), plain_network_loops.cht_by_importance, DENSITY),
    "CHTs": (lambda end: sc.CHTs(DENSITY, end, EVERY), plain_network_loops.chts, DENSITY),
    "CHTs by RI": (lambda end: sc.CHTs(DENSITY, end, EVERY, importance=RI), plain_network_loops.chts_by_importance, DENSITY),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 10, bias=False, dtype=torch.float64)
        self.second = nn.Linear(10, 5, bias=False, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


@pytest.mark.parametrize("end", [7, 20], ids=["with the last update", "in the middle"])
@pytest.mark.parametrize("name", PRESETS)
def test_three_updates_are_those_of_the_paper(name: str, end: int) -> None:
    make, update, start = PRESETS[name]
    method: Method = make(end)
    torch.manual_seed(4)
    model = Net()
    layers = [Layer(key, weight.detach().clone()) for key, weight in model.named_parameters()]
    plain = PlainLoop(layers, DENSITY, end, EVERY, SEED, LR, update)
    plain.start(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    engine = sc.sparsify(model, optimizer, method, seed=SEED)
    changed = 0
    before = [set(layer.links) for layer in layers]
    for number in range(1, 8):
        compare(model, optimizer, engine, layers, number)
        x, target = torch.randn(6, 12, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
        plain.step(number, x, target)
        optimizer.zero_grad()
        (model(x) - target).square().mean().backward()
        optimizer.step()
        changed += before != [layer.links for layer in layers]
        before = [set(layer.links) for layer in layers]
    compare(model, optimizer, engine, layers, 8)
    assert engine.updates == plain.updates == (0 if name == "Static" else 3)
    quiet = {"Static": 3, "RigL": 1, "SNFS": 1}.get(name, 0) if end == 7 or name == "Static" else 0
    assert changed == 3 - quiet  # a cosine ends at 0: the last update exchanges nothing


def compare(
    model: nn.Module, optimizer: torch.optim.Optimizer, engine: sc.SparseEngine, layers: list[Layer], number: int
) -> None:
    for layer, (key, weight) in zip(layers, model.named_parameters(), strict=True):
        links = engine.masks[key].view(-1).nonzero().view(-1).tolist()
        assert set(links) == layer.links, f"{key} before step {number}"
        assert set(engine.explored[key].view(-1).nonzero().view(-1).tolist()) == layer.ever
        torch.testing.assert_close(weight.detach(), layer.weight, rtol=1e-12, atol=1e-14)
        if "momentum_buffer" in optimizer.state[weight]:
            buffer = optimizer.state[weight]["momentum_buffer"].view(-1).tolist()
            assert buffer == pytest.approx(layer.velocity, rel=1e-9, abs=1e-14)
