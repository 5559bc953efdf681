"""The variants that the repository ships are variants."""

import os
import subprocess
from pathlib import Path

import pytest
import tyro

from evaluation.compare import CompareConfig
from evaluation.comparison.results import why_order_differs
from evaluation.comparison.variants import read_variants

ROOT = Path(__file__).parents[3]
STUDIES = {
    "lidar": (ROOT / "benchmarks" / "lidar" / "study.sh", ("2", "pedestrian", "cyclist"), 2),
    "sparse": (ROOT / "benchmarks" / "sparse" / "study.sh", ("shards",), 9),
}


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_compares_variants_that_can_be_read_and_see_the_scenes_in_one_order(tmp_path: Path, study: str) -> None:
    script, words, comparisons = STUDIES[study]
    (tmp_path / "shards").mkdir()
    (tmp_path / "out" / "lead2").mkdir(parents=True)
    noted = tmp_path / "calls.txt"
    recorder = tmp_path / "limtr"
    recorder.write_text(f'#!/bin/sh\necho "$@" >> {noted}\n')
    recorder.chmod(0o755)
    environment = {**os.environ, "LIMTR": str(recorder), "PYTHON": str(recorder)}
    subprocess.run(["sh", str(script), "out", *words], cwd=tmp_path, env=environment, check=True)
    calls = [line.split() for line in noted.read_text().splitlines()]
    configs = [tyro.cli(CompareConfig, args=call[1:]) for call in calls if call[0] == "compare"]
    assert len(configs) == comparisons
    for config in configs:
        variants = read_variants([tmp_path / "out" / file for file in config.config], config.data)
        assert len(variants) > 1
        assert why_order_differs(variants) == ""
        for variant in variants:
            recipe = variant.recipe(seed=0)
            assert recipe["steps"] is not None
            assert recipe["minutes"] is None
