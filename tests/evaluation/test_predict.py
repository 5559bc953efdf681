"""`limtr predict` on shards and on TFRecord files, good and bad."""

import os
from pathlib import Path

import numpy as np
import pytest

from evaluation.predict import PredictConfig, run
from evaluation.predictions import read_metadata, read_predictions
from limtr.files import read_json
from limtr.predictor import MotionPredictor
from preprocessing.shards import SceneSource
from preprocessing.womd import schema
from preprocessing.womd.tfrecord import write_records


def scenario(name="s0", *, steps=91, target=0):
    """A Scenario message of two vehicles and one lane."""
    message = schema.Scenario(scenario_id=name, current_time_index=10, sdc_track_index=1)
    message.timestamps_seconds.extend(0.1 * step for step in range(steps))
    for row in range(2):
        track = message.tracks.add(id=40 + row, object_type=1)
        for step in range(steps):
            track.states.add(
                center_x=1000.0 + step, center_y=2000.0 + 10 * row, center_z=0.5, length=4.5, width=2.0, height=1.5,
                heading=0.0, velocity_x=10.0, velocity_y=0.0, valid=True,
            )  # fmt: skip
    message.tracks_to_predict.add(track_index=target)
    lane = message.map_features.add(id=7).lane
    for x in range(30):
        lane.polyline.add(x=1000.0 + x, y=2000.0)
    return message


def predict(model_folder, source, out, **options):
    status = run(PredictConfig(checkpoint=model_folder, input=source, out=out, device="cpu", **options))
    return status, {item.scenario_id: item for item in read_predictions(out)}


def test_predictions_of_shards_are_those_of_the_model(model_folder, dataset, tmp_path):
    status, read = predict(model_folder, dataset, tmp_path / "p.parquet", batch_size=2)
    assert status == 0
    model = MotionPredictor.load(model_folder)
    for scene in SceneSource(dataset, "validation"):
        expected = model.predict(scene)
        item = read[scene.scenario_id]
        assert item.object_id.tolist() == expected.object_id.tolist()
        np.testing.assert_allclose(item.xy_m, expected.xy_m, atol=1e-3)
        np.testing.assert_allclose(item.scores, expected.scores, atol=1e-5)
    metadata = read_metadata(tmp_path / "p.parquet")
    assert metadata["model_fingerprint"] == model.fingerprint()
    assert metadata["licence"] == "test terms"
    assert metadata["creator"].startswith("limtr ")


def test_scenarios_that_end_at_the_current_step_are_predicted(model_folder, dataset, tmp_path):
    assert list(predict(model_folder, dataset, tmp_path / "p.parquet", split="test")[1]) == ["tiny0080"]
    path = tmp_path / "scenes.tfrecord"
    records = [scenario("long").SerializeToString(), scenario("short", steps=11).SerializeToString()]
    write_records(path, records)
    status, read = predict(model_folder, path, tmp_path / "q.parquet")
    assert status == 0
    assert list(read) == ["long", "short"]
    np.testing.assert_allclose(read["long"].xy_m, read["short"].xy_m, atol=1e-3)
    assert read["short"].object_id.tolist() == [40]


def test_a_broken_record_costs_the_exit_status_and_not_its_neighbours(model_folder, tmp_path, capsys):
    path = tmp_path / "scenes.tfrecord"
    broken = scenario("bad")
    broken.tracks_to_predict[0].track_index = 99
    write_records(path, [scenario("one").SerializeToString(), broken.SerializeToString(), b"\xff\xff", b"",
                         scenario("one").SerializeToString(), scenario("two").SerializeToString()])  # fmt: skip
    status, read = predict(model_folder, path, tmp_path / "p.parquet")
    assert status == 1
    assert list(read) == ["one", "two"]
    problems = read_json(tmp_path / "p.parquet.report" / "report.json")["results"]["problems"]
    assert len(problems) == 4
    assert "record 1" in problems[0]
    assert "second time" in problems[3]
    assert "bad" in capsys.readouterr().err


def test_folders_of_records_are_read_in_womds_layout_too(model_folder, tmp_path):
    for split in ("validation", "testing"):
        write_records(tmp_path / "womd" / "scenario" / split / f"{split}.tfrecord-00000-of-00001",
                      [scenario(split).SerializeToString()])  # fmt: skip
    assert list(predict(model_folder, tmp_path / "womd", tmp_path / "p.parquet")[1]) == ["validation"]
    assert list(predict(model_folder, tmp_path / "womd", tmp_path / "p.parquet", split="test")[1]) == ["testing"]
    flat = tmp_path / "womd" / "scenario" / "validation"
    assert list(predict(model_folder, flat, tmp_path / "p.parquet")[1]) == ["validation"]


def test_input_without_scenarios_is_an_error_and_leaves_no_file(model_folder, tmp_path):
    write_records(tmp_path / "scenes.tfrecord", [b"\xff\xff"])
    with pytest.raises(ValueError, match="no scenario could be predicted"):
        predict(model_folder, tmp_path / "scenes.tfrecord", tmp_path / "p.parquet")
    assert not (tmp_path / "p.parquet").exists()
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        predict(model_folder, tmp_path / "nothing", tmp_path / "p.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"neither a dataset .* nor motion shards"):
        predict(model_folder, tmp_path / "empty", tmp_path / "p.parquet")


def test_lidar_for_a_model_without_it_is_said_to_be_ignored(model_folder, dataset, tmp_path):
    with pytest.warns(UserWarning, match="--lidar .* is ignored"):
        predict(model_folder, dataset, tmp_path / "p.parquet", lidar=tmp_path)


@pytest.mark.skipif("LIMTR_WOMD_SAMPLE" not in os.environ, reason="needs LIMTR_WOMD_SAMPLE, a folder with a real scenario")
def test_a_real_scenario_is_predicted_near_its_targets(model_folder, tmp_path):
    path = Path(os.environ["LIMTR_WOMD_SAMPLE"]) / "motion_data_one_scenario.tfrecord"
    status, read = predict(model_folder, path, tmp_path / "p.parquet")
    assert status == 0
    (item,) = read.values()
    assert item.xy_m.shape == (3, 6, 80, 2)
    assert np.isfinite(item.xy_m).all()
