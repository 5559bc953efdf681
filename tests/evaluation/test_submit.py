"""`limtr submit` from a file of predictions to an archive, and the check of one."""

import json
from dataclasses import replace

import pytest

from evaluation.baselines import turn_rate_fan
from evaluation.predict import PredictConfig
from evaluation.predict import run as predict
from evaluation.predictions import write_predictions
from evaluation.submission_archive import read_messages
from evaluation.submission_problems import Problems
from evaluation.submit import SubmitConfig, run
from evaluation.verify_official import VerifyOfficialConfig
from evaluation.verify_official import run as verify_official
from preprocessing.shards import SceneSource
from tests.builders import tiny_scene
from tests.evaluation.examples import needs_oracle, write_dataset

WHO = {"account_name": "someone@example.org", "method_name": "tiny"}
OTHER_MODEL = {"uses_lidar": True, "num_parameters": "64M"}


@pytest.fixture
def predicted(model_folder, dataset, tmp_path):
    path = tmp_path / "p.parquet"
    assert predict(PredictConfig(checkpoint=model_folder, input=dataset, out=path, split="test", device="cpu")) == 0
    return path


def only_message(path):
    ((_, message),) = read_messages(path, Problems())
    return message


def test_a_model_s_predictions_become_an_archive_that_says_what_the_model_is(predicted, model_folder, dataset, capsys):
    config = SubmitConfig(predictions=predicted, data=dataset, checkpoint=model_folder, **WHO)
    assert run(config) == 0
    message = only_message(config.archive)
    assert config.archive.name == "p-motion.tar.gz"
    assert message.uses_lidar_data is False
    assert message.HasField("uses_camera_data")
    assert message.num_model_parameters.endswith("K")
    assert [item.scenario_id for item in message.scenario_predictions] == ["tiny0080"]
    assert "nothing that the server would reject" in capsys.readouterr().out
    report = json.loads((predicted.parent / "p-motion.tar.gz.report" / "report.json").read_text())
    assert report["results"]["info"]["account_name"] == "someone@example.org"
    assert run(SubmitConfig(check=config.archive, data=dataset)) == 0


def test_another_model_than_the_one_that_predicted_is_refused(predicted, dataset, tmp_path, model_folder):
    write_predictions(predicted, [turn_rate_fan(SceneSource(dataset, "test")[0])], fingerprint="another")
    with pytest.raises(ValueError, match="was made by model another"):
        run(SubmitConfig(predictions=predicted, data=dataset, checkpoint=model_folder, **WHO))


def test_a_file_that_lacks_a_scenario_is_written_and_rejected_by_name(dataset, tmp_path, capsys):
    path = tmp_path / "p.parquet"
    write_predictions(path, [turn_rate_fan(scene) for scene in list(SceneSource(dataset, "validation"))[:4]])
    config = SubmitConfig(predictions=path, data=dataset, split="validation", **WHO, **OTHER_MODEL)
    assert run(config) == 1
    assert config.archive.exists()
    assert "scenarios of the split are not predicted: tiny0004" in capsys.readouterr().err
    assert run(SubmitConfig(check=config.archive)) == 0
    assert "ids were not compared with the records" in capsys.readouterr().out


def test_pairs_become_an_interaction_submission(tmp_path):
    scenes = [tiny_scene(seed, num_steps=11, num_targets=2, with_lidar=False) for seed in range(2)]
    data = write_dataset(tmp_path / "data", {"test": scenes})
    path = tmp_path / "p.parquet"
    write_predictions(path, [turn_rate_fan(scene) for scene in scenes])
    config = SubmitConfig(predictions=path, data=data, challenge="interaction", **WHO, **OTHER_MODEL)
    assert run(config) == 0
    message = only_message(config.archive)
    assert [len(item.joint_prediction.joint_trajectories) for item in message.scenario_predictions] == [6, 6]


def test_no_pair_anywhere_is_an_error_that_says_so(dataset, predicted):
    config = SubmitConfig(predictions=predicted, data=dataset, challenge="interaction", **WHO, **OTHER_MODEL)
    with pytest.raises(ValueError, match=r"no scenario can be submitted.*'tiny0080' names no pair"):
        run(config)
    assert not config.archive.exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "either --predictions"),
        ({"predictions": "p", "check": "c"}, "either --predictions"),
        ({"predictions": "p", **OTHER_MODEL}, "the server requires --account-name"),
        ({"predictions": "p", **WHO}, "--checkpoint or both of"),
        ({"predictions": "p", **WHO, **OTHER_MODEL, "challenge": "interaction"}, "needs --data"),
        ({"check": "c", "scenarios_per_shard": 0}, "--scenarios-per-shard"),
    ],
)
def test_what_is_missing_is_said_before_any_work(tmp_path, options, expected):
    paths = {name: tmp_path / value for name, value in options.items() if name in ("predictions", "check")}
    with pytest.raises(ValueError, match=expected):
        SubmitConfig(**{**options, **paths})


@needs_oracle
@pytest.mark.parametrize("challenge", ["motion", "interaction"])
def test_waymo_s_own_protos_read_the_archive(tmp_path, challenge, capsys):
    scenes = [tiny_scene(seed, num_steps=11, num_targets=2, with_lidar=False) for seed in range(3)]
    data = write_dataset(tmp_path / "data", {"test": scenes})
    path = tmp_path / "p.parquet"
    write_predictions(path, [turn_rate_fan(scene) for scene in scenes])
    config = replace(
        SubmitConfig(predictions=path, data=data, challenge=challenge, scenarios_per_shard=2, **WHO, **OTHER_MODEL),
        authors=("A. Author",), affiliation="somewhere", description="a fan", method_link="https://example.org",
        public_models=("a model",),
    )  # fmt: skip
    assert run(config) == 0
    capsys.readouterr()
    assert verify_official(VerifyOfficialConfig(files=(config.archive,))) == 0
    assert "8 of 8 quantities agree" in capsys.readouterr().out
