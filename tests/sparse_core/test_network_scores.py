"""Scores of a layer as a network: by plain loops over nodes, as the papers write them."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sparse_core import network_scores
from sparse_core.network_scores import ch3_l3, ch3_l3_hard, ch3_l3_soft, relative_importance
from sparse_core.scores import Context, needs_gradient


def context(mask: Tensor, **fields: object) -> Context:
    return Context(**({"name": "layer.weight", "mask": mask} | fields))  # type: ignore[arg-type]


def plain_ch3(links: list[list[bool]]) -> list[list[float]]:
    """One non-link after the other: the nodes on its paths of length three, and the links by which each leaves them."""
    rows, columns = len(links), len(links[0])
    scores = [[0.0] * columns for _ in range(rows)]
    for i in range(rows):
        for j in range(columns):
            if links[i][j]:
                continue
            paths = [
                (t, z)
                for t in range(columns)
                for z in range(rows)
                if links[i][t] and links[z][t] and links[z][j]  # i - t - z - j
            ]
            inputs, outputs = {t for t, _ in paths}, {z for _, z in paths}
            for z in outputs:
                external = sum(links[z][t] for t in range(columns) if t not in inputs and t != j)
                scores[i][j] += 1 / (1 + external)
            for t in inputs:
                external = sum(links[z][t] for z in range(rows) if z not in outputs and z != i)
                scores[i][j] += 1 / (1 + external)
    return scores


def drawn(rows: int, columns: int, density: float, seed: int) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < density


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.1, 0.3, 0.6, 0.9]), st.integers(0, 99))
def test_ch3_is_that_of_a_plain_loop_over_nodes(rows: int, columns: int, density: float, seed: int) -> None:
    mask = drawn(rows, columns, density, seed)
    found = ch3_l3(torch.zeros(rows, columns), None, context(mask))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.tensor(plain_ch3(mask.tolist()), dtype=torch.float64), rtol=0, atol=1e-8)


def test_ch3_by_hand() -> None:
    """0 - a - 1 - b closes 0 - b: output 1 also leads to c (external), input a to nothing else."""
    mask = torch.tensor([[True, False, False], [True, True, True]])
    assert ch3_l3(torch.zeros(2, 3), None, context(mask)).tolist() == [[0, 0.5 + 1, 0.5 + 1], [0, 0, 0]]


def test_paths_of_links_that_are_dropped_do_not_count() -> None:
    mask, kept = drawn(8, 6, 0.5, 1), drawn(8, 6, 0.5, 1) & drawn(8, 6, 0.7, 2)
    assert not torch.equal(mask, kept)
    found = ch3_l3(torch.zeros(8, 6), None, context(mask, kept=kept))
    torch.testing.assert_close(found, torch.tensor(plain_ch3(kept.tolist()), dtype=torch.float64), rtol=0, atol=1e-8)


def test_scores_do_not_depend_on_the_order_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = drawn(70, 90, 0.3, 3)
    whole = ch3_l3(torch.zeros(70, 90), None, context(mask))
    rows, columns = torch.randperm(70), torch.randperm(90)
    shuffled = ch3_l3(torch.zeros(70, 90), None, context(mask[rows][:, columns]))
    assert torch.equal(shuffled, whole[rows][:, columns])
    monkeypatch.setattr(network_scores, "_ROWS_AT_ONCE", 7)
    assert torch.equal(ch3_l3(torch.zeros(70, 90), None, context(mask)), whole)


def test_a_step_inside_of_autocast_counts_as_exactly() -> None:
    mask = drawn(300, 400, 0.9, 6)
    plain = ch3_l3(torch.zeros(300, 400), None, context(mask))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ch3_l3(torch.zeros(300, 400), None, context(mask)), plain)


class Largest(TorchDispatchMode):
    """Keeps the number of entries of the largest tensor that any operation makes."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.entries = max(self.entries, made.numel())
        return made


@pytest.mark.parametrize(("rows", "columns"), [(40, 30), (300, 5), (5, 300)])
def test_no_temporary_is_larger_than_the_weight_or_some_rows_of_its_longer_side(
    rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_scores, "_ROWS_AT_ONCE", 8)
    mask = drawn(rows, columns, 0.3, 0)
    with Largest() as largest:
        ch3_l3_soft(torch.zeros(rows, columns), None, context(mask))
    assert rows * columns <= largest.entries <= max(rows * columns, 8 * max(rows, columns))


def test_ch3_of_many_outputs_by_hand() -> None:
    mask = torch.zeros(1500, 4, dtype=torch.bool)
    mask[:, 0] = True
    mask[0, 1:] = True
    found = ch3_l3(torch.zeros(1500, 4), None, context(mask))
    # From output i over input 0 and output 0 to input j: output 0 has two more inputs, input 0 1498 more outputs.
    assert found[1:, 1:].unique().tolist() == pytest.approx([1 / 3 + 1 / 1499], abs=1e-8)


def test_taps_of_a_convolution_are_inputs_of_their_own_and_packed_projections_three_graphs() -> None:
    mask = drawn(6, 12, 0.4, 4)
    flat = ch3_l3(torch.zeros(6, 12), None, context(mask))
    taps = ch3_l3(torch.zeros(6, 3, 4), None, context(mask.view(6, 3, 4)))
    assert torch.equal(taps.view(6, 12), flat)
    packed = ch3_l3(torch.zeros(6, 12), None, context(mask, name="attention.in_proj_weight"))
    apart = [ch3_l3(torch.zeros(2, 12), None, context(part)) for part in mask.split(2)]
    assert torch.equal(packed, torch.cat(apart))
    assert not torch.equal(packed, flat)


def test_equal_scores_and_links_without_paths_come_in_hashed_order_after_larger_ones() -> None:
    mask = drawn(40, 30, 0.05, 5)
    plain = ch3_l3(torch.zeros(40, 30), None, context(mask))
    hard = ch3_l3_hard(torch.zeros(40, 30), None, context(mask, update=1))
    assert (plain == 0).sum() > 100
    assert torch.equal(hard, ch3_l3_hard(torch.zeros(40, 30), None, context(mask, update=1)))
    later = ch3_l3_hard(torch.zeros(40, 30), None, context(mask, update=2))
    assert not torch.equal(hard.view(-1).argsort(), later.view(-1).argsort())
    order = plain.view(-1)[hard.view(-1).argsort(descending=True)]
    assert torch.equal(order, plain.view(-1).sort(descending=True).values)
    soft = ch3_l3_soft(torch.zeros(40, 30), None, context(mask))
    assert torch.isfinite(soft).all()
    assert soft[plain > 0].min() > soft[plain == 0].max()


def test_relative_importance_is_the_share_in_a_links_row_and_column() -> None:
    weight = torch.tensor([[1.0, -3.0, 9.0], [-1.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, True, False], [False, False, False]])
    found = relative_importance(weight, None, context(mask))
    assert found.tolist() == [[1 / 4 + 1 / 2, 3 / 4 + 1, 0.0], [1 + 1 / 2, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_no_gradient_is_needed() -> None:
    for score in (ch3_l3, ch3_l3_hard, ch3_l3_soft, relative_importance):
        assert not needs_gradient(score)
