"""docs/sparsity/family.md shows what the stored summaries hold, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sparse_core.family import pruning_criteria, set_mlp

DOCS = Path(__file__).parents[3] / "docs" / "sparsity"


def rows(text: str) -> set[str]:
    """Rows of Markdown tables without their padding; rules are left out."""
    lines = [re.sub(r"\s*\|\s*", "|", line.strip()) for line in text.splitlines() if line.startswith("|")]
    return {line for line in lines if set(line) - set("|-: ")}


@pytest.fixture(scope="module")
def rendered() -> set[str]:
    dense, criteria = (json.loads((DOCS / f"{name}.json").read_text()) for name in ("set_mlp", "pruning_criteria"))
    return rows(
        "\n".join(
            [
                set_mlp.results_table(dense),
                pruning_criteria.results_table(criteria, "accuracy"),
                pruning_criteria.results_table(criteria, "against_magnitude", signed=True),
                pruning_criteria.results_table(criteria, "against_static", signed=True),
                pruning_criteria.results_table(criteria, "links_at_dark_pixels"),
            ]
        )
    )


def test_every_row_of_a_table_comes_from_the_summaries(rendered: set[str]) -> None:
    shown = rows((DOCS / "family.md").read_text())
    assert len(shown) > 30
    assert shown <= rendered


def test_the_summaries_are_of_five_seeds_and_at_least_three_thousand_steps() -> None:
    for name in ("set_mlp", "pruning_criteria"):
        summary = json.loads((DOCS / f"{name}.json").read_text())
        assert summary["seeds"] >= 5
        assert summary["steps"] >= 3000
