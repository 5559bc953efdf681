"""SRigL: links compete over a layer, rows that stay have equally many, the others are ablated and may come back."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor, nn

import sparse_core as sc
from sparse_core import Method, Structure, schedules
from sparse_core.constant_fan_in import ConstantFanIn, Exchange, choose_rows
from tests.sparse_core.plain_loops import share_out
from tests.sparse_core.small_trainings import Training, batches, copied, mlp, require_exact_density, same, training

Links = set[tuple[int, int]]


def plain_update(
    links: Links,
    places: list[tuple[int, int]],
    weight: list[list[float]],
    slope: list[list[float]],
    total: int,
    rate: float,
    ablate: float | None,
) -> Links:
    """An update as the paper tells it (section 3.2, steps 1 to 7), one link at a time; `total` links stand in the end.

    `places`: where links may be, row by row; rows with less room have fewer links, in proportion.
    """
    rows = len(weight)
    room = [sum(at[0] == row for at in places) for row in range(rows)]
    left = min(len(links), total)
    moved = min(math.floor(rate * left), len(places) - left)
    by_size = sorted(sorted(links), key=lambda at: abs(weight[at[0]][at[1]]))
    kept = set(by_size[len(links) - left + moved :])
    idle = [at for at in places if at not in kept]
    salient = kept | set(sorted(idle, key=lambda at: -abs(slope[at[0]][at[1]]))[: total - left + moved])
    counts = [sum(at[0] == row for at in salient) for row in range(rows)]
    fan_in = len(links) // len({row for row, _ in links})
    enough = [row for row in range(rows) if ablate is None or counts[row] >= max(1, ablate * fan_in)]
    best = sorted(range(rows), key=lambda row: -counts[row])
    needed = [row for place, row in enumerate(best) if sum(room[other] for other in best[:place]) < total]
    stay = [row for row in range(rows) if room[row] and row in enough + needed]
    shares = [room[row] for row in stay]
    new: Links = set()
    for row, wanted in zip(stay, share_out(total, [float(share) for share in shares], shares), strict=True):
        own = [at for at in by_size if at in kept and at[0] == row]
        own = own[max(0, len(own) - wanted) :]
        others = sorted((at for at in places if at[0] == row and at not in own), key=lambda at: -abs(slope[row][at[1]]))
        new |= set(own) | set(others[: wanted - len(own)])
    return new


@pytest.mark.parametrize("ablate", [None, 0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_one_update_is_that_of_the_paper(ablate: float | None, ties: bool) -> None:
    draw, generator = random.Random(5), torch.Generator().manual_seed(5)
    ablated = 0
    for _ in range(60):
        rows, columns = draw.randint(1, 9), draw.randint(1, 9)
        before = draw.randint(rows, rows * columns)
        total, rate = draw.choice([before, draw.randint(rows, rows * columns)]), draw.choice([0.0, 0.2, 0.5, 0.95])
        weight, slope = torch.randn(2, rows, columns, generator=generator, dtype=torch.float64)
        if ties:
            weight, slope = weight.round(), slope.round()
        places = torch.randperm(rows * columns, generator=generator)[:before]
        active = torch.zeros(rows * columns, dtype=torch.bool).index_fill_(0, places, True).view(rows, columns)
        links = {(row, column) for row, column in active.nonzero().tolist()}
        everywhere = [(row, column) for row in range(rows) for column in range(columns)]
        expected = plain_update(links, everywhere, weight.tolist(), slope.tolist(), total, rate, ablate)
        assert one_update(active, None, weight, slope, total, rate, ablate) == expected
        ablated += rows - len({row for row, _ in expected})
        assert len(expected) == total
    assert (ablated > 0) == (ablate is not None)


@pytest.mark.parametrize("ablate", [None, 0.3, 0.8])
def test_one_update_inside_of_a_region_is_that_of_the_paper(ablate: float | None) -> None:
    """Rows have different room, some none; gradients of links that may not be make no row salient."""
    draw, generator = random.Random(6), torch.Generator().manual_seed(6)
    for _ in range(40):
        rows, columns = draw.randint(2, 8), draw.randint(2, 8)
        region = torch.rand(rows, columns, generator=generator) < draw.choice([0.3, 0.6])
        places = [(row, column) for row, column in region.nonzero().tolist()]
        if not places:
            continue
        before = draw.randint(len({row for row, _ in places}), len(places))
        weight, slope = torch.randn(2, rows, columns, generator=generator, dtype=torch.float64)
        slope = torch.where(region, slope, 9.0)
        links = set(draw.sample(places, before))
        active = torch.zeros(rows, columns, dtype=torch.bool)
        active[tuple(zip(*links, strict=True))] = True
        rate = draw.choice([0.2, 0.5])
        expected = plain_update(links, places, weight.tolist(), slope.tolist(), before, rate, ablate)
        assert one_update(active, region, weight, slope, before, rate, ablate) == expected


def one_update(
    active: Tensor, region: Tensor | None, weight: Tensor, slope: Tensor, total: int, rate: float, ablate: float | None
) -> Links:
    """The same through the engine, its weights, gradients and links set by hand."""
    layer = nn.Linear(active.shape[1], active.shape[0], bias=False, dtype=torch.float64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    size = active.numel() if region is None else int(region.sum())
    structure = Structure(group="row", allowed=None if region is None else {"weight": region})
    density = schedules.Linear(int(active.sum()) / size, total / size)
    steady = schedules.Constant(rate)
    method = sc.SRigL(density, 1, 1, steady, ablate, (), structure=structure)  # type: ignore[arg-type]
    engine = sc.sparsify(layer, optimizer, method)
    state = engine.state_dict()
    with torch.no_grad():
        layer.weight.copy_(weight * active)
        engine._layers[0].mask.copy_(active)
        engine._layers[0].counts = active.sum(dim=1).tolist()
    layer.weight.grad = slope.clone()
    optimizer.step()
    assert engine.updates == 1
    assert state["updates"] == 0
    return {(row, column) for row, column in engine.masks["weight"].nonzero().tolist()}


def invariants(run: Training, totals: dict[str, int]) -> None:
    """A layer's total is exact; its rows have equally many links or one more, the first ones, or none at all."""
    for name, mask in run.engine.masks.items():
        rows = mask.flatten(1).sum(dim=1).tolist()
        alive = [links for links in rows if links]
        assert sum(rows) == totals[name], name
        assert alive == sorted(alive, reverse=True), name
        assert alive[0] - alive[-1] <= 1, name
        assert len(alive) >= math.ceil(totals[name] / mask[0].numel()), name


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_totals_are_exact_and_rows_equal_after_every_step(optimizer: str) -> None:
    run = training(mlp(6, 24, 24, 5), sc.SRigL(0.3, end=60, every=2, ablate=0.7), optimizer)
    totals = {name: int(mask.sum()) for name, mask in run.engine.masks.items()}
    assert sum(totals.values()) == round(0.3 * sum(mask.numel() for mask in run.engine.masks.values()))
    gone, back = 0, 0
    for batch in batches(60, 8, 6, 5):
        before = {name: mask.any(dim=1).clone() for name, mask in run.engine.masks.items()}
        run.step(batch)
        invariants(run, totals)
        for name, mask in run.engine.masks.items():
            gone += int((before[name] & ~mask.any(dim=1)).sum())
            back += int((~before[name] & mask.any(dim=1)).sum())
    assert run.engine.updates == 30
    assert gone > back > 0  # neurons are ablated, and some of them return
    assert run.engine.masks["4.weight"].any(dim=1).all()  # the network keeps its outputs


def test_the_last_update_of_a_cosine_changes_nothing() -> None:
    assert sc.SRigL(0.3, end=8, rate=0.4).rate == schedules.Cosine(0.4)
    run = training(mlp(6, 24, 24, 5), sc.SRigL(0.3, end=8, every=2, ablate=1.0))
    data = batches(8, 8, 6, 5)
    for batch in data[:7]:
        run.step(batch)
    before = copied(run.engine.masks)
    run.step(data[7])
    assert run.engine.updates == 4
    assert same(before, run.engine.masks)


def test_a_row_is_cut_to_its_largest_weights() -> None:
    """The authors' code cuts it to those that sorting a row of True and False happens to put first."""
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.1, 0.0, 0.0, 0.0]])
    active = torch.tensor([[True] * 4, [True, False, False, False]])
    numbers = [torch.tensor([number]) for number in (5, 0, 0, 5)]
    done = choose_rows(active, None, weight.abs(), torch.ones(2, 4), Exchange(*numbers), None)
    assert done.counts.tolist() == [3, 2]
    assert done.kept.tolist() == [[False, True, True, True], [True, False, False, False]]


def test_a_neuron_is_ablated_and_comes_back_when_its_gradients_grow() -> None:
    layer = nn.Linear(8, 4, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    engine = sc.sparsify(layer, optimizer, sc.SRigL(0.25, 1000, 1, schedules.Constant(0.25), 0.6, spare=()))
    with torch.no_grad():
        layer.weight.mul_(torch.tensor([[0.001], [1.0], [1.0], [1.0]]))
    push = torch.zeros(4, 8)
    push[1:] = torch.rand(3, 8, generator=torch.Generator().manual_seed(0)) + 1
    layer.weight.grad = push.clone()
    optimizer.step()
    assert [layer.dead_rows for layer in engine.report().layers] == [(0,)]
    assert "ablated in weight: 0" in str(engine.report())
    assert engine.masks["weight"].sum(dim=1).tolist() == [0, 3, 3, 2]
    push[0] = 10.0
    layer.weight.grad = push.clone()
    optimizer.step()
    assert engine.masks["weight"][0].any()
    assert int(engine.masks["weight"].sum()) == 8


def test_enough_rows_stay_to_hold_all_links() -> None:
    """Were every row ablated that lacks salient links, there would be no place for the others'."""
    active = torch.zeros(6, 5, dtype=torch.bool)
    active[:, :2] = True
    size, slope = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) * active, torch.zeros(6, 5)
    size[2:] *= 1e-3
    slope[0] = 1.0
    numbers = [torch.tensor([number]) for number in (12, 8, 8, 12)]
    done = choose_rows(active, None, size, slope, Exchange(*numbers), 1.0)
    assert (done.counts > 0).sum() == 3  # ceil(12 / 5)
    assert done.counts[:2].tolist() == [4, 4]
    assert int(done.counts.sum()) == 12


@pytest.mark.parametrize(
    ("spare", "whole"),
    [
        (None, {"4.weight"}),
        ((), set()),
        (("0",), {"0.weight"}),
        (("0", "2.*"), {"0.weight", "2.weight"}),
        ((lambda name, parameter: parameter.shape[0] == 5,), {"4.weight"}),
    ],
    ids=["the last", "none", "a module", "globs", "a predicate"],
)
def test_neurons_are_ablated_where_they_are_not_spared(spare: object, whole: set[str]) -> None:
    run = training(mlp(6, 24, 24, 5), sc.SRigL(0.3, end=100, every=1, ablate=1.0, spare=spare))  # type: ignore[arg-type]
    for batch in batches(12, 8, 6, 5):
        run.step(batch)
    assert {name for name, mask in run.engine.masks.items() if mask.any(dim=1).all()} == whole


def test_without_ablation_all_neurons_keep_the_same_fan_in() -> None:
    run = training(mlp(6, 24, 24, 5), sc.SRigL(0.25, end=100, every=1, ablate=None, layout=sc.layout.uniform()))
    for batch in batches(12, 8, 6, 5):
        before = copied(run.engine.masks)
        run.step(batch)
        assert run.engine.masks["2.weight"].sum(dim=1).tolist() == [6] * 24
        assert not same(before, run.engine.masks)


def test_convolutions_packed_projections_and_kernels() -> None:
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 2))
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    tokens = torch.randn(2, 5, 8)
    for model, call in (
        (convolutions, lambda: convolutions(torch.randn(2, 3, 6, 6))),
        (attention, lambda: attention(tokens, tokens, tokens)[0]),
    ):
        structures = [Structure(group="row")] + [Structure(unit="kernel", group="row")] * (model is convolutions)
        for structure in structures:
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
            method = sc.SRigL(0.4, end=20, every=1, ablate=0.9, spare=(), structure=structure)
            engine = sc.sparsify(model, optimizer, method)
            run = Training(model, optimizer, engine)
            totals = {name: int(mask.sum()) for name, mask in engine.masks.items()}
            for _ in range(8):
                optimizer.zero_grad()
                call().square().sum().backward()
                optimizer.step()
                if structure.unit != Structure(unit="kernel").unit:
                    invariants(run, totals)
                assert {name: int(mask.sum()) for name, mask in engine.masks.items()} == totals
            assert any(layer.dead_rows for layer in engine.report().layers)
            engine.detach()


def test_what_rigl_would_do_in_rows_can_be_asked_for() -> None:
    run = training(mlp(6, 24, 24, 5), sc.SRigL(0.3, end=100, every=1, ablate=0.5))
    for batch in batches(4, 8, 6, 5):
        run.optimizer.zero_grad()
        nn.functional.mse_loss(run.model(batch[0]), batch[1]).backward()
        own = run.engine.propose()
        other = run.engine.propose(sc.RigL(0.3, end=100, every=1, structure=Structure(group="row")))
        assert not same(own.grown, other.grown)
        for name, mask in run.engine.masks.items():
            assert not other.grown[name][~mask.any(dim=1)].any()  # RigL leaves every row its number, none included
            assert (other.grown[name].sum(dim=1) <= other.dropped[name].sum(dim=1)).all()  # some come back at once
        run.step(batch)


def test_rows_with_less_room_get_fewer_links() -> None:
    def region(name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.ones(shape).tril().bool()

    model = nn.Linear(8, 8)
    structure = Structure(group="row", allowed=region)
    run = training(model, sc.SRigL(0.5, end=50, every=1, ablate=0.5, spare=(), structure=structure))
    for batch in batches(10, 4, 8, 8):
        run.step(batch)
        mask = run.engine.masks["weight"]
        assert not (mask & ~region("", (8, 8))).any()
        assert int(mask.sum()) == 18


def test_what_is_ablated_is_left_out_of_the_cost_and_of_sparse_layers() -> None:
    run = training(mlp(16, 64, 64, 5), sc.SRigL(0.05, end=100, every=1, ablate=0.9))
    for batch in batches(10, 8, 16, 5):
        run.step(batch)
    assert run.engine.report().layers[1].dead_outputs > 0
    sample = torch.randn(32, 16)
    cost = sc.cost(run.model, sample, run.engine.masks)
    links = sum(int(mask.sum()) for mask in run.engine.masks.values())
    assert cost.active == links + 64 + 64 + 5
    torch.testing.assert_close(sc.compile_sparse(run.model, run.engine, sample)(sample), run.model(sample))


def test_every_neuron_begins_with_a_link_however_low_the_density() -> None:
    run = training(mlp(6, 24, 5), sc.SRigL(0.01, end=100, every=1))
    assert [mask.sum(dim=1).tolist() for mask in run.engine.masks.values()] == [[1] * 24, [1] * 5]


def test_a_density_that_falls_is_exact() -> None:
    require_exact_density(sc.SRigL(schedules.Cubic(1.0, 0.2), end=10, every=1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"structure": Structure()}, r"wants Structure\(group='row'\), not fixed counts per tensor"),
        ({"grow": None, "rate": 0.0}, "cuts rows and fills them: give the method `drop` and `grow`"),
        ({"final_prune": True}, "leave final_prune out"),
        ({"ablate": 1.5}, "ablate is 1.5: expected 0 <= ablate <= 1"),
    ],
)
def test_what_cannot_be_is_told(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sc.SRigL(0.3, end=100, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["weight", "gradient"])
def test_a_number_that_is_not_finite_is_named_and_nothing_changes(where: str) -> None:
    run = training(mlp(6, 12, 5), sc.SRigL(0.4, end=100, every=1))
    weight, mask = run.model[0].weight, run.engine.masks["0.weight"]  # type: ignore[index]
    run.model(torch.randn(4, 6)).square().mean().backward()
    with torch.no_grad():
        if where == "weight":
            weight[tuple(mask.nonzero()[0])] = float("inf")
        else:
            weight.grad[tuple((~mask).nonzero()[0])] = float("nan")
    before = copied(run.engine.masks)
    with pytest.raises(
        FloatingPointError, match=r"0.weight: 1 scores of magnitude \(drop\) or gradient \(grow\) are not finite"
    ):
        run.optimizer.step()
    assert same(before, run.engine.masks)


def test_rows_that_are_inputs_are_refused() -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 1), nn.ConvTranspose1d(4, 3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"1.weight: .*the rows of a transposed convolution are its inputs; exclude"):
        sc.sparsify(model, optimizer, sc.SRigL(0.3, end=100), include="*")
    sc.sparsify(model, optimizer, sc.SRigL(0.3, end=100), include="*", exclude="1")


def test_a_spared_layer_that_is_not_there_is_told() -> None:
    with pytest.raises(ValueError, match=r"spare: 'head' matches none of the sparse weights \['0.weight'"):
        training(mlp(6, 8, 5), sc.SRigL(0.3, end=100, spare=("head",)))


def test_a_single_pattern_may_stand_alone() -> None:
    assert ConstantFanIn(0.3, "head.*") == ConstantFanIn(0.3, ("head.*",))  # type: ignore[arg-type]
    method: Method = sc.SRigL(0.3, end=100, spare=("head.*",))
    assert method.describe()["fan_in"] == "ablate 0.3, spare ['head.*']"
