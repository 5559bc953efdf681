"""What a run is known by."""

from pathlib import Path

import pytest

from evaluation.comparison.runs import EvaluationPlan, plan_runs
from evaluation.comparison.variants import read_variants
from tests.evaluation.comparison.made_runs import made_data, write_variants

SPARSE = "{steps: 400, sparsity: {method: rigl}}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_data(tmp_path_factory.mktemp("data") / "shards")


def test_a_later_option_is_part_of_a_key_only_where_it_is_used(data: Path, tmp_path: Path) -> None:
    given = {
        "plain": SPARSE,
        "said": "{steps: 400, sparsity: {method: rigl, start: random}}",
        "other": "{steps: 400, sparsity: {method: rigl, start: magnitude}}",
    }
    variants = read_variants(write_variants(tmp_path, **given), data)
    runs = plan_runs(variants, range(1), EvaluationPlan(split="validation", bucketing="2024"), tmp_path, threads=1)
    plain, said, other = (run.settings["recipe"] for run in runs)
    assert "start" not in plain["sparsity"]
    assert plain == said
    assert other["sparsity"]["start"] == "magnitude"
    assert plain["sparsity"]["method"] == "rigl"
