"""Layouts: whole numbers with an exact total, and the numbers of the papers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import layout
from sparse_core.layout import Layer, Layout, counts_of, share_out

Shapes = list[tuple[int, ...]]


def layers_of(shapes: Shapes) -> list[Layer]:
    return [Layer(f"{index}.weight", shape, math.prod(shape)) for index, shape in enumerate(shapes)]


def rigl_densities(shapes: Shapes, density: float, power: float) -> list[float]:
    """RigL's own way to Erdős-Rényi-kernel: raise layers to dense ones, the most eager first, until no density exceeds 1."""
    dense: set[int] = set()
    scale = [(sum(shape) / math.prod(shape)) ** power for shape in shapes]
    size = [math.prod(shape) for shape in shapes]
    while True:
        free = [index for index in range(len(shapes)) if index not in dense]
        if not free:
            return [1.0] * len(shapes)
        links = density * sum(size) - sum(size[index] for index in dense)
        unit = links / sum(scale[index] * size[index] for index in free)
        eager = max(scale[index] for index in free)
        if unit * eager <= 1:
            return [1.0 if index in dense else unit * scale[index] for index in range(len(shapes))]
        dense |= {index for index in free if scale[index] == eager}


shapes_of = st.lists(
    st.lists(st.integers(1, 40), min_size=2, max_size=2).flatmap(
        lambda two: st.lists(st.integers(1, 3), max_size=2).map(lambda taps: (*two, *taps))
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(shapes_of, st.floats(0.01, 1.0), st.sampled_from([1.0, 0.5, 2.0]))
def test_erk_saturates_as_rigl_does_and_has_the_exact_total(shapes: Shapes, density: float, power: float) -> None:
    layers = layers_of(shapes)
    counts = counts_of(layout.erk(power), layers, density, {})
    total = round(density * sum(layer.size for layer in layers))
    if total >= len(shapes):
        assert sum(counts) == total
    bumped = sum(
        1 for value, layer in zip(rigl_densities(shapes, density, power), layers, strict=True) if value * layer.size < 1
    )
    for count, layer, value in zip(counts, layers, rigl_densities(shapes, density, power), strict=True):
        assert 0 <= count <= layer.size
        assert abs(count - value * layer.size) < 1 + bumped + len(shapes) * 0.5 / max(1, total) + 0.5


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.just(0.0) | st.floats(1e-6, 1e6), st.integers(0, 50)), min_size=1, max_size=8), st.data())
def test_sharing_out_is_exact_capped_and_in_proportion(entries: list[tuple[float, int]], data: st.DataObject) -> None:
    shares = torch.tensor([share for share, _ in entries], dtype=torch.float64)
    caps = torch.tensor([cap for _, cap in entries])
    total = data.draw(st.integers(0, int(caps.sum()) + 3))
    given_ = share_out(total, shares, caps)
    assert int(given_.sum()) == min(total, int(caps.sum()))
    assert (given_ <= caps).all()
    assert (given_ >= 0).all()
    # In proportion: nobody below its cap is further below its due than one, seen from anybody who got something.
    level = [
        float(count - 1) / share
        for count, share in zip(given_.tolist(), shares.tolist(), strict=True)
        if count > 0 and share > 0
    ]
    for count, cap, share in zip(given_.tolist(), caps.tolist(), shares.tolist(), strict=True):
        if count < cap and level:
            assert count + 1 >= share * max(level) * (1 - 1e-9) - 1e-9


def test_largest_remainders_come_first_then_the_lowest_index() -> None:
    shares = torch.tensor([1.0, 1.0, 1.0, 2.0], dtype=torch.float64)
    caps = torch.tensor([9, 9, 9, 9])
    assert share_out(7, shares, caps).tolist() == [2, 1, 1, 3]  # 1.4, 1.4, 1.4, 2.8
    assert share_out(torch.tensor(6), shares, caps).tolist() == [1, 1, 1, 2 + 1]  # 1.2, 1.2, 1.2, 2.4
    assert share_out(7, shares, torch.tensor([9, 9, 9, 1])).tolist() == [2, 2, 2, 1]


def test_uniform_er_and_er_of_a_convolution() -> None:
    layers = layers_of([(10, 20), (30, 10), (8, 4, 3, 3)])
    assert counts_of(layout.uniform(), layers, 0.1, {}) == [20, 30, 29]  # 78.8 rounds to 79: 20, 30, 28.8
    er = counts_of(layout.er(), layers, 0.1, {})
    due = [10 + 20, 30 + 10, (8 + 4) * 9]
    assert er == pytest.approx([79 * share / sum(due) for share in due], abs=1)
    assert sum(er) == 79


def test_erk_of_power_0_is_uniform() -> None:
    layers = layers_of([(10, 20), (30, 10), (8, 4, 3, 3)])
    assert counts_of(layout.erk(0.0), layers, 0.25, {}) == counts_of(layout.uniform(), layers, 0.25, {})


@pytest.mark.parametrize(("inputs", "outputs", "first", "total"), [(17, 6, 1911, 36_215), (23, 1, 1953, 34_977)])
def test_ds_td3_numbers(inputs: int, outputs: int, first: int, total: int) -> None:
    """DS-TD3 on HalfCheetah: lambda 7 for the first layer and 64 for the second, the output layer dense."""
    model = nn.Sequential(nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = sc.Static(None, layout=layout.epsilon({"0.*": 7, "2.*": 64, "4.*": 256}))
    report = sc.sparsify(model, optimizer, method).report()
    assert [layer.links for layer in report.layers] == [first, 32_768, 256 * outputs]
    assert report.links == total
    other = sc.Static(None, layout=layout.epsilon({"0.*": 7, "2.*": 64}))
    model = nn.Sequential(nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert sc.sparsify(model, optimizer, other, density={"4": 1.0}).report().links == total


def test_epsilon_saturates_and_wants_a_number_for_every_layer() -> None:
    layers = layers_of([(10, 20), (3, 2), (8, 4, 3)])
    assert counts_of(layout.epsilon(2), layers, None, {}) == [60, 6, 24]
    assert counts_of(layout.epsilon({"0.*": 1, "*": 2}), layers, None, {}) == [30, 6, 24]
    with pytest.raises(ValueError, match=r"1.weight: no pattern of \['0.*'\] fits this layer"):
        counts_of(layout.epsilon({"0.*": 1}), layers, None, {})


def test_fixed_densities() -> None:
    layers = layers_of([(10, 20), (30, 10)])
    assert counts_of(layout.fixed({"0*": 0.5, "*": 0.1}), layers, None, {}) == [100, 30]
    for wrong in (0.0, 1.2, -1.0):
        with pytest.raises(ValueError, match=r"1.weight: .*expected 0 < density <= 1"):
            counts_of(layout.fixed({"0*": 0.5, "*": wrong}), layers, None, {})


def test_layers_of_given_density_are_left_out_of_the_total() -> None:
    layers = layers_of([(10, 10), (10, 10), (20, 10)])
    assert counts_of(layout.uniform(), layers, 0.1, {"1.weight": 0.55}) == [10, 55, 20]
    assert counts_of(layout.erk(), layers[:1], 0.1, {"0.weight": 0.001}) == [1]


def test_no_layer_is_left_without_a_link_while_the_total_allows() -> None:
    layers = layers_of([(100, 100), (1, 1), (1, 2)])
    assert counts_of(layout.uniform(), layers, 0.01, {}) == [98, 1, 1]
    assert counts_of(layout.uniform(), layers, 0.0001, {}) == [1, 0, 0]


def test_a_layout_without_a_density() -> None:
    with pytest.raises(ValueError, match="the layout uniform needs a density"):
        counts_of(layout.uniform(), layers_of([(2, 2)]), None, {})


def two_layers(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 5, bias=False, dtype=dtype), nn.Linear(5, 4, bias=False, dtype=dtype))


def masks(model: nn.Module, chosen: Layout, **options: object) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return dict(sc.sparsify(model, optimizer, sc.Static(0.4, layout=chosen), **options).masks)  # type: ignore[arg-type]


def best(scores: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    border = sorted(torch.cat([score.reshape(-1) for score in scores.values()]).tolist(), reverse=True)[count - 1]
    return {name: score >= border for name, score in scores.items()}


def test_global_magnitude() -> None:
    model = two_layers()
    weights = {name: weight.detach().abs().clone() for name, weight in model.named_parameters()}
    found = masks(model, layout.global_magnitude())
    assert all(torch.equal(found[name], mask) for name, mask in best(weights, 20).items())


def test_one_shot_snip_by_hand() -> None:
    model, x = two_layers(), torch.randn(3, 6, dtype=torch.float64)
    first, second = model[0].weight.detach().clone(), model[1].weight.detach().clone()
    out = x @ first.T @ second.T  # loss = sum of squares of the output
    by_hand = {
        "0.weight": (first * (2 * out @ second).T.mm(x)).abs(),
        "1.weight": (second * (2 * out).T.mm(x @ first.T)).abs(),
    }
    model[0].weight.grad = torch.ones(5, 6, dtype=torch.float64)
    found = masks(model, layout.one_shot_snip(lambda: model(x).square().sum()))
    assert all(torch.equal(found[name], mask) for name, mask in best(by_hand, 20).items())
    assert torch.equal(model[0].weight.grad, torch.ones(5, 6, dtype=torch.float64))
    assert model[1].weight.grad is None


def test_layouts_that_rank_leave_layers_of_given_density_alone() -> None:
    found = masks(two_layers(), layout.global_magnitude(), density={"1": 0.5})
    assert [int(mask.sum()) for mask in found.values()] == [12, 10]
    found = masks(two_layers(), layout.global_magnitude(), density={"*": 0.5})
    assert [int(mask.sum()) for mask in found.values()] == [15, 10]


@pytest.mark.parametrize("members", [2, 6])
def test_a_structure_gets_as_near_to_the_total_as_whole_units_can(members: int) -> None:
    model = nn.Sequential(*(nn.Linear(12, 6) for _ in range(5)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = sc.Static(0.37, structure=sc.Structure(unit=(1, members)))
    report = sc.sparsify(model, optimizer, method).report()
    assert abs(report.links - 0.37 * 5 * 72) <= members / 2 + 0.5
    assert report.wanted == 0.37
