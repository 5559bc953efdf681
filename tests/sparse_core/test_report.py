"""The report counts what the masks show."""

import torch
from torch import nn

import sparse_core as sc


def rows_and_corner(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The first two outputs' first three inputs only."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[:2, :3] = True
    return mask


def test_links_density_and_dead_rows_and_columns() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Conv2d(3, 6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = sc.Static(1.0, structure=sc.Structure(allowed=rows_and_corner))
    report = sc.sparsify(model, optimizer, method).report()
    first, second = report.layers
    assert (first.name, first.shape, first.links, first.size) == ("0.weight", (4, 5), 6, 6)
    assert (first.dead_outputs, first.dead_inputs) == (2, 2)
    assert (second.links, second.size, second.dead_outputs, second.dead_inputs) == (24, 24, 4, 0)
    assert (report.links, report.size, report.density, report.wanted) == (30, 30, 1.0, 1.0)


def test_exploration_grows_with_every_link_that_was_ever_active() -> None:
    model = nn.Linear(10, 10, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine = sc.sparsify(model, optimizer, sc.ITOP(0.2, end=None, every=1, rate=0.5))
    assert engine.report().exploration == 0.2
    seen = engine.masks["weight"].clone()
    for update in range(1, 4):
        optimizer.zero_grad()
        model(torch.randn(3, 10)).sum().backward()
        optimizer.step()
        seen |= engine.masks["weight"]
        report = engine.report()
        assert (report.updates, report.steps, report.links) == (update, update, 20)
        assert report.layers[0].explored == int(seen.sum()) == 20 + 10 * update  # links never active come first
        assert report.exploration == report.layers[0].exploration == (20 + 10 * update) / 100


def test_the_text_has_a_line_for_every_layer_and_the_total() -> None:
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    text = str(sc.sparsify(model, optimizer, sc.Static(0.25)).report())
    lines = text.splitlines()
    assert lines[1].split()[:2] == ["0.weight", "30x20"]
    assert lines[2].split()[:2] == ["1.weight", "2x30"]
    assert lines[3].split()[2:4] == ["165", "0.2500"]
    assert "0 updates in 0 steps, asked for 0.2500" in lines[3]
