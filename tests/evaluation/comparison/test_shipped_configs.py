"""The variants that the repository ships are variants."""

import re
from pathlib import Path

import pytest
import tyro

from evaluation.compare import CompareConfig
from evaluation.comparison.results import why_order_differs
from evaluation.comparison.variants import read_variants

ROOT = Path(__file__).parents[3]
FOLDERS = sorted({path.parent for path in (ROOT / "benchmarks").rglob("*.yaml")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_variants_of_a_study_can_be_read_and_see_the_scenes_in_one_order(folder: Path) -> None:
    variants = read_variants(sorted(folder.glob("*.yaml")), Path("shards"))
    assert len(variants) > 1
    assert why_order_differs(variants) == ""
    for variant in variants:
        recipe = variant.recipe(seed=0)
        assert recipe["steps"] is not None
        assert recipe["minutes"] is None


def test_the_study_of_lidar_names_files_and_options_that_exist() -> None:
    text = (ROOT / "benchmarks" / "lidar" / "study.sh").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"\$limtr compare (.*)", text)
    words = re.sub(r"\$\{OPTIONS:-\}|\"", "", line).replace("$here", str(ROOT / "benchmarks" / "lidar")).split()
    config = tyro.cli(CompareConfig, args=words)
    assert all(file.is_file() for file in config.config)
