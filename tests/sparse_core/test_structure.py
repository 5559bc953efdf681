"""Structures: units and groups cover a weight once, and impossible shapes are refused by name."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_core.structure import Block, Group, Structure, neighbours, output_groups

UNITS = ["weight", "kernel", "channel", "input channel", "diagonal", (2, 3)]


def shape_for(unit: object, dims: list[int]) -> tuple[int, ...]:
    return (dims[0] * 2, dims[1] * 3, *dims[2:]) if isinstance(unit, tuple) else tuple(dims)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(UNITS), st.lists(st.integers(1, 5), min_size=2, max_size=5), st.booleans())
def test_restore_is_the_inverse_of_arrange(unit: object, dims: list[int], inputs_last: bool) -> None:
    shape = shape_for(unit, dims)
    tensor = torch.arange(math.prod(shape)).view(shape)
    resolved = Structure(unit=unit).unit  # type: ignore[arg-type]
    grid = resolved.arrange(tensor, inputs_last)  # type: ignore[union-attr]
    assert grid.dim() == 3
    assert sorted(grid.reshape(-1).tolist()) == list(range(math.prod(shape)))
    assert torch.equal(resolved.restore(grid, shape, inputs_last), tensor)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("unit", "shape", "first", "number"),
    [
        ("weight", (2, 3), [0], 6),
        ("kernel", (2, 3, 2, 2), [0, 1, 2, 3], 6),
        ("channel", (3, 2, 2), [0, 1, 2, 3], 3),
        ("input channel", (2, 3, 2), [0, 1, 6, 7], 3),
        ((2, 2), (4, 6), [0, 1, 6, 7], 6),
        ("diagonal", (3, 5), [0, 6, 12], 5),
        ("diagonal", (5, 3), [0, 4, 8], 5),
    ],
)
def test_members_of_the_first_unit(unit: object, shape: tuple[int, ...], first: list[int], number: int) -> None:
    grid = Structure(unit=unit).fit("w", shape)  # type: ignore[arg-type]
    members = grid.members_of(torch.arange(math.prod(shape)).view(shape))
    assert members[0, 0].tolist() == first
    assert members.shape == (1, number, len(first))


def test_the_last_diagonals_wrap_around() -> None:
    grid = Structure(unit="diagonal").fit("w", (3, 5))
    assert grid.members_of(torch.arange(15).view(3, 5))[0, 4].tolist() == [4, 5, 11]


def test_neighbours_of_a_convolution_are_inputs_of_one_tap() -> None:
    weight = torch.arange(2 * 4 * 3).view(2, 4, 3)  # 2 outputs, 4 inputs, 3 taps
    grid = Structure(group=4).fit("w", (2, 4, 3))
    assert grid.groups == 6
    assert grid.members_of(weight)[1].view(-1).tolist() == [1, 4, 7, 10]
    mask = torch.zeros(6, 4, dtype=torch.bool)
    mask[1, 2] = True
    assert grid.mask_of(mask).nonzero().tolist() == [[0, 2, 1]]


@pytest.mark.parametrize(
    ("group", "groups", "units"),
    [("tensor", 1, 24), ("row", 4, 6), (3, 8, 3), (output_groups(2), 2, 12), (neighbours(6), 4, 6)],
)
def test_groups_are_equal_runs(group: object, groups: int, units: int) -> None:
    grid = Structure(group=group).fit("w", (4, 6))  # type: ignore[arg-type]
    assert (grid.groups, grid.units, grid.room()) == (groups, units, [units] * groups)
    assert grid.members_of(torch.arange(24).view(4, 6))[-1].view(-1).tolist() == list(range(24 - units, 24))


def test_pooling() -> None:
    scores = torch.tensor([[1.0, 2.0, -5.0], [3.0, 6.0, 8.0]])
    for pool, expected in (("sum", [-2.0, 17.0]), ("max", [2.0, 8.0]), ("mean", [-2 / 3, 17 / 3])):
        grid = Structure(unit="channel", pool=pool).fit("w", (2, 3))  # type: ignore[arg-type]
        assert grid.scores_of(scores)[0].tolist() == pytest.approx(expected)


def test_regions_by_pattern_and_by_function() -> None:
    region = torch.eye(4, dtype=torch.bool)
    by_name = Structure(allowed={"first*": region}, group="row")
    assert by_name.fit("first.weight", (4, 4)).room() == [1, 1, 1, 1]
    assert by_name.fit("second.weight", (4, 4)).room() == [4, 4, 4, 4]
    by_function = Structure(allowed=lambda name, shape: region if shape == (4, 4) else None)
    assert by_function.fit("w", (4, 4)).room() == [4]
    assert by_function.fit("w", (2, 4)).allowed is None


def test_a_region_keeps_its_place_in_a_convolution_with_neighbours() -> None:
    region = torch.zeros(1, 4, 2, dtype=torch.bool)
    region[0, 3, 1] = True
    grid = Structure(group=4, allowed={"*": region}).fit("w", (1, 4, 2))
    assert grid.allowed is not None
    assert grid.allowed.tolist() == [[False] * 4, [False, False, False, True]]


@pytest.mark.parametrize(
    ("structure", "shape", "message"),
    [
        (Structure(group=4), (7, 6), "6 inputs cannot be cut into groups of 4"),
        (Structure(group=4), (1, 1), "1 inputs cannot be cut"),
        (Structure(unit=(2, 3)), (7, 48), r"blocks of 2 x 3 do not tile 7 x 48"),
        (Structure(unit=(2, 3)), (4, 4), r"blocks of 2 x 3 do not tile 4 x 4"),
        (Structure(group=output_groups(3)), (7, 6), "7 outputs cannot be cut into 3 equal groups"),
        (Structure(unit="channel", group="row", allowed={"*": torch.eye(3).bool()}), (3, 3), "cuts through units"),
        (Structure(allowed={"*": torch.eye(3).bool()}), (3, 4), r"the allowed region is torch.bool \(3, 3\)"),
        (Structure(allowed={"*": torch.eye(3)}), (3, 3), "the allowed region is torch.float32"),
    ],
)
def test_impossible_shapes_name_the_layer(structure: Structure, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^net.weight: .*{message}"):
        structure.fit("net.weight", shape)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unit": "neuron"}, "Structure.unit is 'neuron'"),
        ({"unit": (0, 2)}, "Structure.unit is"),
        ({"unit": (2, 2, 2)}, "Structure.unit is"),
        ({"group": "column"}, "Structure.group is 'column'"),
        ({"group": 1}, "Structure.group is 1"),
        ({"pool": "median"}, "Structure.pool is 'median'"),
    ],
)
def test_unknown_words(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Structure(**fields)  # type: ignore[arg-type]


def test_a_new_unit_and_a_new_group_need_no_engine() -> None:
    halves = Group("half", lambda rows, columns: 2)
    grid = Structure(unit=Block(1, 2), group=halves).fit("w", (2, 4))
    assert (grid.groups, grid.units, grid.members) == (2, 2, 2)
    assert not Structure(group=halves).plain
    assert Structure().plain
