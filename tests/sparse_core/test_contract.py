"""Every allowed combination of structure, method and optimizer keeps the contract in every step."""

import pytest

from sparse_core.support import METHODS, OPTIMIZERS, STRUCTURES
from tests.sparse_core.cells import NUM_CASES, case, run, table

PAIRS = [(structure, method) for structure in STRUCTURES for method in METHODS]


def test_the_table_gives_a_reason_for_every_combination_that_is_not_allowed() -> None:
    cells = table().cells
    assert len(cells) == len(STRUCTURES) * len(METHODS) * len(OPTIMIZERS)
    assert {cell.optimizer for cell in cells if not cell.allowed and cell.method == "RigL" and cell.structure == "weight"} == {
        "LBFGS",
        "SparseAdam",
    }
    for cell in cells:
        assert cell.allowed or len(cell.reason) > 20, cell


@pytest.mark.parametrize(
    ("structure", "method", "optimizer", "reason"),
    [
        ("weight", "RigL", "LBFGS", "history of gradients mixes all weights"),
        ("weight", "RigL", "SparseAdam", "sparse gradients of embeddings"),
        ("kernel", "RigL", "Muon", "only supports 2D parameters"),
        ("row", "GMP", "SGD", "fixed counts per row do not allow"),
        ("2:4", "GraNet", "SGD", "fixed counts per 4 neighbours do not allow"),
        ("row", "DSR", "SGD", "fixed counts per row do not allow"),
        ("weight", "SRigL", "SGD", "wants Structure(group='row'), not fixed counts per tensor"),
        ("output groups", "SNFS", "SGD", "moves links between layers"),
    ],
)
def test_combinations_that_are_not_allowed(structure: str, method: str, optimizer: str, reason: str) -> None:
    [cell] = [one for one in table().cells if (one.structure, one.method, one.optimizer) == (structure, method, optimizer)]
    assert not cell.allowed
    assert reason in cell.reason


def test_moving_links_between_layers_wants_units_of_one_size() -> None:
    conditional = {(cell.structure, cell.method) for cell in table().allowed() if cell.reason}
    assert conditional == {
        (structure, method)
        for structure in ("kernel", "channel", "input channel", "diagonal")
        for method in ("SNFS", "GMP", "GraNet", "DSR")
    }


def test_the_printed_table_names_every_row_and_every_reason() -> None:
    text = str(table())
    for structure, method in PAIRS:
        assert any(line.split()[: len(structure.split())] == structure.split() and method in line for line in text.splitlines())
    for cell in table().cells:
        assert cell.reason in text


@pytest.mark.parametrize(("structure", "method"), PAIRS, ids=lambda word: word.replace(" ", "-"))
def test_every_allowed_combination_keeps_the_contract(structure: str, method: str) -> None:
    cells = [cell for cell in table().allowed() if (cell.structure, cell.method) == (structure, method)]
    row = PAIRS.index((structure, method))
    updates = 0
    for place, cell in enumerate(cells):
        # Cases are dealt out over the table, so that all of the 200 are used and every family meets every structure.
        for turn in range(3):
            updates += run(case((row * 37 + place * 7 + turn * 71) % NUM_CASES, cell), cell)
    assert not cells or (updates > 0) == (method != "Static")


@pytest.mark.slow
@pytest.mark.parametrize(("structure", "method"), PAIRS, ids=lambda word: word.replace(" ", "-"))
@pytest.mark.parametrize("part", range(4))
def test_every_allowed_combination_keeps_the_contract_in_all_cases(structure: str, method: str, part: int) -> None:
    for cell in table().allowed():
        if (cell.structure, cell.method) == (structure, method):
            for number in range(part, NUM_CASES, 4):
                run(case(number, cell), cell)
