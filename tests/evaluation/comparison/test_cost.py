"""Costs of a variant: links and operations of all its runs, from what their evaluations told or counted now."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from evaluation.comparison.cost import Cost, RunFolders, cost_of
from evaluation.prediction_cost import PredictionCost, prediction_cost
from limtr.files import write_json
from limtr.predictor import MotionPredictor
from preprocessing.shards import SceneSource
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset
from tests.training.small import small_model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, {"validation": [tiny_scene(seed) for seed in range(2)], "train": [tiny_scene(9, num_targets=0)]})
    return folder


def run_of(folder: Path, model: MotionPredictor, told: PredictionCost | None = None, *, cpu_s: float = 1.0) -> RunFolders:
    model.save(folder / "training")
    write_json(folder / "evaluation" / "metrics.json", {} if told is None else {"cost": asdict(told)})
    finished = {
        "cost": {"train": {"cpu_s": cpu_s, "wall_s": 3.0, "peak_rss_bytes": 100 * cpu_s}},
        "position": {"elapsed_s": 2.0 * cpu_s, "step": 7},
    }
    return RunFolders(training=folder / "training", evaluation=folder / "evaluation", finished=finished)


def with_zeros(share: float) -> MotionPredictor:
    model = small_model()
    for name, parameter in model.named_parameters():
        if name.startswith("encoder.") and parameter.dim() == 2:
            parameter.data[: round(share * len(parameter))] = 0.0
    return model


def test_what_evaluations_told_is_averaged_over_the_runs_and_nothing_is_loaded(data: Path, tmp_path: Path) -> None:
    runs = []
    for number in range(2):
        told = PredictionCost(parameters=100, links=50 + 2 * number, flops=800.0, sparse_flops=400.0 + 100 * number)
        runs.append(run_of(tmp_path / str(number), small_model(), told, cpu_s=1.0 + number))
        (tmp_path / str(number) / "training" / "model.safetensors").unlink()
    assert cost_of(runs, data, "validation") == Cost(
        parameters=100, links=51, flops_per_agent=800.0, sparse_flops_per_agent=450.0, training_cpu_s=1.5, training_wall_s=3.0,
        peak_rss_bytes=200, steps=7,
    )  # fmt: skip


def test_of_an_evaluation_that_did_not_count_the_model_is_counted_now(data: Path, tmp_path: Path) -> None:
    dense = cost_of([run_of(tmp_path / "dense", small_model())], data, "validation")
    sparse = cost_of([run_of(tmp_path / "sparse", with_zeros(0.5))], data, "validation")
    assert not dense.is_sparse
    assert dense.sparse_flops_per_agent == dense.flops_per_agent > 0
    assert sparse.is_sparse
    assert (sparse.parameters, sparse.flops_per_agent) == (dense.parameters, dense.flops_per_agent)
    assert 0 < sparse.sparse_flops_per_agent < dense.flops_per_agent


def test_an_evaluation_and_a_comparison_count_alike(data: Path, tmp_path: Path) -> None:
    model = with_zeros(0.5)
    told = prediction_cost(model, SceneSource(data, "validation"))
    assert cost_of([run_of(tmp_path / "told", model, told)], data, "validation") == cost_of(
        [run_of(tmp_path / "counted", model)], data, "validation"
    )


def test_without_an_agent_to_predict_links_are_known_and_operations_are_none(data: Path, tmp_path: Path) -> None:
    model = with_zeros(0.5)
    found = cost_of([run_of(tmp_path, model)], data, "train")
    zeros = sum(int((parameter == 0).sum()) for parameter in model.parameters() if parameter.dim() == 2)
    assert found.parameters - found.links == zeros > 0
    assert found.flops_per_agent == found.sparse_flops_per_agent == 0.0
