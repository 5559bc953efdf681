"""`limtr evaluate` and `evaluate_model` on a small dataset."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.baselines import constant_velocity
from evaluation.evaluate import EvaluateConfig, evaluate_model, run
from evaluation.predictions import write_predictions
from evaluation.scoring import best_mode_only, score
from limtr.prediction import ScenePrediction
from limtr.predictor import MotionPredictor
from preprocessing.shards import SceneSource
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset


def truth(scene):
    """A perfect prediction; invalid future steps stay where the track is now."""
    rows = scene.tracks_to_predict
    now = scene.track_states[rows, None, scene.current_step, :2]
    future = np.where(scene.track_valid[rows, 11:, None], scene.track_states[rows, 11:, :2], now)
    xy = future[:, None].astype(float) + scene.origin_m[:2]
    return ScenePrediction(
        scenario_id=scene.scenario_id, object_id=scene.track_id[rows], xy_m=xy, scores=np.ones((len(rows), 1))
    )


def test_a_perfect_prediction_has_perfect_values():
    scenes = [tiny_scene(seed) for seed in range(3)]
    metrics = score(scenes, {"truth": lambda items: [truth(scene) for scene in items]}, batch_size=2)["truth"]
    values = metrics.compute()["mean"]["mean"]
    assert values["minADE"] == pytest.approx(0.0, abs=2e-3)
    assert values["miss_rate"] == 0.0
    assert values["mAP"] == values["soft_mAP"] == pytest.approx(1.0)


def test_batch_size_changes_nothing():
    scenes = [tiny_scene(seed) for seed in range(5)]
    predictors = {"cv": lambda items: [constant_velocity(scene) for scene in items]}
    first, second = (score(scenes, predictors, batch_size=size)["cv"].compute() for size in (1, 3))
    assert first == second


def test_best_mode_only_keeps_the_most_confident_mode():
    scene = tiny_scene(0)
    prediction = truth(scene)
    twice = ScenePrediction(
        scenario_id=scene.scenario_id, object_id=prediction.object_id,
        xy_m=np.concatenate([prediction.xy_m + 9.0, prediction.xy_m], axis=1),
        scores=np.tile([0.3, 0.6], (3, 1)),
    )  # fmt: skip
    best = best_mode_only(twice)
    np.testing.assert_array_equal(best.xy_m, prediction.xy_m)
    assert best.scores.tolist() == [[0.6]] * 3


def test_a_model_in_training_stays_in_training(model_folder, dataset):
    model = MotionPredictor.load(model_folder).train()
    result = evaluate_model(model, SceneSource(dataset, "validation"), rows=[0, 2])
    assert model.training
    assert result.num_scenes == 2
    assert result.summary()["minADE"] == pytest.approx(result.values["mean"]["mean"]["minADE"])
    assert {"minADE/VEHICLE", "mAP", "soft_mAP/CYCLIST"} <= set(result.summary())


def test_the_verb_writes_values_report_and_pictures(model_folder, dataset, tmp_path, capsys):
    assert run(EvaluateConfig(checkpoint=model_folder, data=dataset, out=tmp_path, pictures=2, device="cpu")) == 0
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert list(content["results"]) == ["constant velocity", "model", "model, best mode", "turn-rate fan"]
    assert content["num_scenes"] == 5
    assert content["results"]["model"]["objects"] == {"VEHICLE": 5, "PEDESTRIAN": 5, "CYCLIST": 5}
    assert set(content["results"]["model"]["values"]["CYCLIST"]) == {"3s", "5s", "8s", "mean"}
    assert content["bucketing"] == "2024"
    assert content["licence"] == "test terms"
    assert content["data_fingerprint"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["results"]["model_fingerprint"] == content["model_fingerprint"]
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert len(pictures) == 2
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("constant velocity", "turn-rate fan", "mean of classes", "soft mAP"))


def test_the_test_split_cannot_be_scored(model_folder, dataset, tmp_path):
    config = EvaluateConfig(checkpoint=model_folder, data=dataset, split="test", out=tmp_path, device="cpu")
    with pytest.raises(ValueError, match=r"'tiny0080'.*91 steps.*--split validation"):
        run(config)


def test_exactly_one_of_checkpoint_and_predictions_is_needed(dataset, model_folder):
    with pytest.raises(ValueError, match="either --checkpoint or --predictions"):
        EvaluateConfig(data=dataset)
    with pytest.raises(ValueError, match="either --checkpoint or --predictions"):
        EvaluateConfig(data=dataset, checkpoint=model_folder, predictions=model_folder)


def score_rows(dataset, tmp_path, predictions, **options):
    path = tmp_path / "p.parquet"
    write_predictions(path, predictions, creator="someone")
    status = run(EvaluateConfig(predictions=path, data=dataset, out=tmp_path / "out", **options))
    return status, json.loads((tmp_path / "out" / "metrics.json").read_text())


def test_a_file_with_all_targets_scores_as_its_maker_would(dataset, tmp_path):
    scenes = list(SceneSource(dataset, "validation"))
    status, content = score_rows(dataset, tmp_path, [constant_velocity(scene) for scene in scenes])
    assert status == 0
    assert content["results"]["predictions"] == content["results"]["constant velocity"]
    assert content["file_metadata"]["creator"] == "someone"


def without_object(prediction, keep):
    return ScenePrediction(
        scenario_id=prediction.scenario_id, object_id=prediction.object_id[keep], xy_m=prediction.xy_m[keep],
        scores=prediction.scores[keep],
    )  # fmt: skip


def test_missing_and_unknown_are_named_and_cost_the_exit_status(dataset, tmp_path, capsys):
    scenes = list(SceneSource(dataset, "validation"))
    items = [constant_velocity(scene) for scene in scenes[:4]]
    items[0] = without_object(items[0], slice(1, None))
    items[1] = ScenePrediction(
        scenario_id=items[1].scenario_id, object_id=np.append(items[1].object_id[:2], 135), xy_m=items[1].xy_m,
        scores=items[1].scores,
    )  # fmt: skip
    items.append(constant_velocity(tiny_scene(77)))
    status, content = score_rows(dataset, tmp_path, items)
    assert status == 1
    agreement = content["agreement"]
    assert agreement["unknown_scenarios"] == ["tiny0077"]
    assert agreement["missing_scenarios"] == ["tiny0004"]
    assert agreement["unknown_objects"] == ["tiny0001/135"]
    assert set(agreement["missing_objects"]) == {"tiny0000/100", "tiny0001/114", "tiny0004/100", "tiny0004/107", "tiny0004/114"}
    assert content["results"]["constant velocity"]["objects"]["VEHICLE"] == 4
    assert "tiny0001/135" in capsys.readouterr().err
    assert score_rows(dataset, tmp_path, items, allow_missing=True)[0] == 0


def test_a_predicted_target_that_is_invalid_now_is_counted_and_not_scored(tmp_path):
    scene = tiny_scene(5, with_lidar=False)
    prediction = constant_velocity(scene)
    at = scene.tracks_to_predict[1], scene.current_step
    scene.track_valid[at], scene.track_states[at] = False, 0.0
    data = write_dataset(tmp_path / "data", {"validation": [scene]})
    status, content = score_rows(data, tmp_path, [prediction])
    assert status == 0
    assert content["agreement"]["num_invalid_now"] == 1
    assert content["results"]["predictions"] == content["results"]["constant velocity"]


def test_an_unusable_scenario_costs_the_exit_status_even_where_missing_is_allowed(dataset, tmp_path):
    path = tmp_path / "p.parquet"
    write_predictions(path, [constant_velocity(scene) for scene in SceneSource(dataset, "validation")])
    rows = pq.read_table(path).to_pylist()
    rows[0]["x"][3] = float("nan")
    pq.write_table(pa.Table.from_pylist(rows), path)
    out = tmp_path / "out"
    assert run(EvaluateConfig(predictions=path, data=dataset, out=out, allow_missing=True)) == 1
    bad = json.loads((out / "metrics.json").read_text())["agreement"]["bad_scenarios"]
    assert len(bad) == 1
    assert "tiny0000" in bad[0]


def test_a_file_of_other_scenes_is_an_error(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"no scenario of .* is in it"):
        score_rows(dataset, tmp_path, [constant_velocity(tiny_scene(77))])
