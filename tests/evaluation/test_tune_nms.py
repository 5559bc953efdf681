"""`limtr tune-nms`: the grid, the choice, and the copy of the model that it writes."""

import json

import numpy as np
import pytest

from evaluation import tune_nms
from evaluation.metric_config import MotionMetricsConfig
from evaluation.scoring import evaluate_model
from evaluation.tune_nms import TuneNmsConfig, best_distance_m, parse_grid, run, search
from limtr.predictor import MotionPredictor
from preprocessing.shards import SceneSource


@pytest.mark.parametrize(
    ("text", "count", "last"), [("0:12.25:0.25", 49, 12.0), ("0:1:0.1", 10, 0.9), ("2:2.1:5", 1, 2.0), ("0:0.3:0.1", 3, 0.2)]
)
def test_a_grid_leaves_its_stop_out(text, count, last):
    grid = parse_grid(text)
    assert len(grid) == count
    assert grid[-1] == last


@pytest.mark.parametrize("text", ["", "1:2", "2:1:0.5", "0:1:0", "-1:1:1", "a:b:c", "0:inf:1"])
def test_what_is_no_grid_is_refused(text):
    with pytest.raises(ValueError, match=r"--grid"):
        parse_grid(text)


def test_the_best_distance_is_the_highest_precision_or_the_lowest_distance():
    assert best_distance_m([0.1, 0.3, 0.2], [0.0, 1.0, 2.0], 2.5, "mAP") == 1.0
    assert best_distance_m([0.1, 0.3, 0.2], [0.0, 1.0, 2.0], 2.5, "minADE") == 0.0
    assert best_distance_m([0.3, 0.3, 0.2], [0.0, 1.0, 2.0], 2.5, "mAP") == 1.0
    assert best_distance_m([None, None], [0.0, 1.0], 2.5, "mAP") == 2.5


def test_searching_the_models_own_distance_gives_its_own_values(model_folder, dataset):
    model = MotionPredictor.load(model_folder)
    source = SceneSource(dataset, "validation")
    (found,) = search(model, source, [2.5], config=MotionMetricsConfig())
    expected = evaluate_model(model, source).values["mean"]["mean"]
    values = found.compute()["mean"]["mean"]
    assert values == pytest.approx(expected, abs=1e-4)


def test_the_chosen_distances_go_into_a_copy_of_the_model(model_folder, dataset, tmp_path):
    before = (model_folder / "config.json").read_bytes()
    options = {"checkpoint": model_folder, "data": dataset, "device": "cpu", "metric": "minADE", "out": tmp_path}
    assert run(TuneNmsConfig(**options, grid="0:6:3", apply=True)) == 0
    found = json.loads((tmp_path / "nms.json").read_text())
    assert found["grid_m"] == [0.0, 2.5, 3.0]
    assert [len(curve) for curve in found["curves"].values()] == [3, 3, 3]
    model = MotionPredictor.load(tmp_path / "model")
    assert model.config.nms_distance_m == tuple(found["best_m"][name] for name in ("VEHICLE", "PEDESTRIAN", "CYCLIST"))
    for name, curve in found["curves"].items():
        assert curve[found["grid_m"].index(found["best_m"][name])] == np.min(curve)
    assert (model_folder / "config.json").read_bytes() == before


def test_every_class_gets_its_own_distance(model_folder, dataset, tmp_path, monkeypatch):
    curves = {"VEHICLE": [0.1, 0.3, 0.2], "PEDESTRIAN": [0.3, 0.2, 0.1], "CYCLIST": [0.1, 0.2, 0.3]}
    monkeypatch.setattr(tune_nms, "curves_of", lambda metrics, metric: curves)
    assert run(TuneNmsConfig(checkpoint=model_folder, data=dataset, device="cpu", grid="0:6:3", out=tmp_path, apply=True)) == 0
    assert MotionPredictor.load(tmp_path / "model").config.nms_distance_m == (2.5, 0.0, 3.0)
