"""`limtr train` as it is typed: shards in, a run folder out, and what it says when something is not as it should be."""

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from limtr import cli
from limtr.intentions import save_intentions
from limtr.predictor import MotionPredictor
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset
from tests.training.small import assert_same_tensors, small_config, small_intentions
from training import train
from training.distributed import ALONE
from training.launcher import LAUNCHER_VARIABLES
from training.loop import Trainer
from training.run_lock import sole_writer

STEPS = ("--batch-size", "2", "--learning-rate", "1e-3", "--device", "cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "tiny_preset", small_config)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    scenes = [tiny_scene(seed, num_tracks=4, num_targets=3) for seed in range(6)]
    return with_intentions(write_dataset(folder, {"train": scenes[:5], "validation": scenes[5:]}))


def with_intentions(folder: Path) -> Path:
    save_intentions(folder, small_intentions())
    return folder


def limtr_train(data: Path, out: Path, *options: str) -> int:
    return cli.main(["train", "--data", str(data), "--out", str(out), *STEPS, *options])


def test_a_training_leaves_a_run_that_other_verbs_and_people_can_read(data: Path, tmp_path: Path) -> None:
    assert limtr_train(data, tmp_path, "--steps", "3", "--licence", "test terms") == 0
    model = MotionPredictor.load(tmp_path)
    assert model.licence == "test terms"
    for kind, points in small_intentions().items():
        assert torch.equal(model.intention_points[int(kind) - 1], torch.from_numpy(points))
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["verb"], report["seed"], report["inputs"]) == ("train", 0, [str(data)])
    assert report["config"]["recipe"]["steps"] == report["results"]["position"]["step"] == 3
    assert (report["results"]["scenes"], report["results"]["targets"]) == (5, 15)
    assert report["results"]["validation"]["minADE"] > 0.0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 1), ("train", 3), ("validation", 3)]
    assert any((tmp_path / "tensorboard").iterdir())


def test_every_option_of_a_recipe_trains(data: Path, tmp_path: Path) -> None:
    options = [
        "--steps",
        "2",
        "--accumulate",
        "2",
        "--ema-decay",
        "0.9",
        "--drop-map",
        "0.5",
        "--drop-vehicles",
        "0.5",
        "--classes",
        "vehicle",
        "cyclist",
        "--fraction",
        "0.8",
        "--max-distance-m",
        "80",
        "--precision",
        "bf16",
        "--weight-decay",
        "0.1",
        "--label-smoothing",
        "0.1",
        "--class-weights",
        "1.0",
        "2.0",
        "3.0",
        "--nms-distance-m",
        "2.0",
        "1.0",
        "1.5",
        "--num-lidar-points",
        "4",
        "--traffic-signals",
        "--schedule",
        "mtr",
        "--clip-norm",
        "10",
        "--seed",
        "3",
        "--validation-scenes",
        "1",
    ]
    assert limtr_train(data, tmp_path, *options) == 0
    recipe = json.loads((tmp_path / "report.json").read_text())["config"]["recipe"]
    assert (recipe["classes"], recipe["precision"], recipe["fraction"]) == (["vehicle", "cyclist"], "bf16", 0.8)
    config = MotionPredictor.load(tmp_path).config
    assert (config.loss.label_smoothing, config.loss.class_weights) == (0.1, (1.0, 2.0, 3.0))
    assert (config.nms_distance_m, config.view.num_lidar_points) == ((2.0, 1.0, 1.5), 4)
    assert config.view.traffic_signals


def test_a_second_training_into_a_run_needs_resume_and_the_same_options(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limtr_train(data, tmp_path, "--steps", "1") == 0
    assert limtr_train(data, tmp_path, "--steps", "1") == 1
    assert "go on with --resume" in capsys.readouterr().err
    assert limtr_train(data, tmp_path, "--steps", "2", "--resume") == 1
    assert "steps: was 1, is 2" in capsys.readouterr().err
    assert limtr_train(data, tmp_path, "--steps", "1", "--resume") == 0


def test_an_interrupted_training_says_how_to_go_on_and_ends_where_a_straight_one_does(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limtr_train(data, tmp_path / "straight", "--steps", "3") == 0
    step = Trainer._step

    def interrupted(trainer: Trainer, group: object) -> object:
        trainer.interrupt.requested = True
        return step(trainer, group)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_step", interrupted)
    assert limtr_train(data, tmp_path / "parts", "--steps", "3") == 130
    assert "--resume" in capsys.readouterr().out
    monkeypatch.setattr(Trainer, "_step", step)
    assert limtr_train(data, tmp_path / "parts", "--steps", "3", "--resume") == 0
    ends = [MotionPredictor.load(tmp_path / name).state_dict() for name in ("straight", "parts")]
    assert_same_tensors(*ends)


def test_initial_weights_are_taken_even_where_resume_finds_nothing_to_resume(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limtr_train(data, tmp_path / "first", "--steps", "2") == 0
    for name, more in (("plain", ()), ("resume", ("--resume",))):
        capsys.readouterr()
        options = ("--steps", "1", "--seed", "7", "--init-from", str(tmp_path / "first"), *more)
        with pytest.warns(UserWarning, match="starts anew") if more else nullcontext():
            assert limtr_train(data, tmp_path / name, *options) == 0
        assert "initialised" in capsys.readouterr().out
    # The first step's learning rate is 0 (warm-up), so the weights are still those of the source.
    source, *others = [dict(MotionPredictor.load(tmp_path / name).named_parameters()) for name in ("first", "plain", "resume")]
    for other in others:
        assert_same_tensors(source, other)


def test_a_model_with_lidar_on_scenes_without_warns(tmp_path: Path) -> None:
    scenes = [tiny_scene(seed, num_tracks=4, num_targets=3, with_lidar=False) for seed in range(2)]
    data = with_intentions(write_dataset(tmp_path / "data", {"train": scenes[:1], "validation": scenes[1:]}))
    with pytest.warns(UserWarning, match="1 of 1 training scenes have no LiDAR points.*--no-lidar"):
        assert limtr_train(data, tmp_path / "with", "--steps", "1") == 0
    assert limtr_train(data, tmp_path / "without", "--steps", "1", "--no-lidar") == 0
    assert not MotionPredictor.load(tmp_path / "without").config.view.use_lidar


def test_training_shards_alone_are_enough(tmp_path: Path) -> None:
    data = with_intentions(write_dataset(tmp_path / "data", {"train": [tiny_scene(1, num_tracks=4)]}))
    with pytest.warns(UserWarning, match="no split 'validation'.*without validation"):
        assert limtr_train(data, tmp_path / "run", "--steps", "1") == 0
    assert json.loads((tmp_path / "run" / "report.json").read_text())["results"]["validation"] == {}


def test_what_is_missing_is_named_with_what_to_do(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = {"test": [tiny_scene(0, num_steps=11)]}
    only_test = with_intentions(write_dataset(tmp_path / "only-test", scenes))
    unclustered = write_dataset(tmp_path / "unclustered", {"train": [tiny_scene(0)], "validation": [tiny_scene(1)]})
    for folder, options, message in (
        (tmp_path / "nowhere", (), "limtr preprocess"),
        (only_test, (), "no split 'train'"),
        (unclustered, (), "limtr intentions"),
        (data, ("--max-distance-m", "0.001"), "no training targets are left"),
        (data, ("--device", "gpu"), "--device gpu: no such device"),
        (data, ("--device", "cuda:99"), "--device cuda:99"),
        (data, ("--init-from", str(tmp_path / "none.pth")), "no such checkpoint"),
    ):
        assert limtr_train(folder, tmp_path / "run", "--steps", "1", *options) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_time_budget_alone_ends_a_training(data: Path, tmp_path: Path) -> None:
    assert limtr_train(data, tmp_path, "--minutes", "0.002") == 0
    position = json.loads((tmp_path / "report.json").read_text())["results"]["position"]
    assert position["elapsed_s"] >= 0.12
    assert position["step"] >= 1


@pytest.mark.slow
def test_readers_in_other_processes_give_the_same_training(data: Path, tmp_path: Path) -> None:
    for workers in ("0", "2"):
        assert limtr_train(data, tmp_path / workers, "--steps", "4", "--workers", workers) == 0
    assert_same_tensors(*(MotionPredictor.load(tmp_path / workers).state_dict() for workers in ("0", "2")))


def test_initial_weights_of_another_architecture_warn(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = small_config()
    MotionPredictor(replace(other, encoder=replace(other.encoder, dim=32), decoder=replace(other.decoder, dim=32))).save(
        tmp_path / "other"
    )
    with pytest.warns(UserWarning, match=r"only \d+ of this model's \d+ tensors fit"):
        assert limtr_train(data, tmp_path / "run", "--steps", "1", "--init-from", str(tmp_path / "other")) == 0


def test_a_launch_that_was_refused_is_refused_again_when_its_launcher_tries_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def launched(launch: str, attempt: int, *options: str) -> int:
        monkeypatch.setattr("training.train.launcher_name", lambda: launch)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
        return limtr_train(data, tmp_path / "run", "--steps", "2", *options)

    for name in LAUNCHER_VARIABLES:
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr("training.train.process_group", lambda device, timeout_s: nullcontext(ALONE))
    assert launched("first", 0) == 0
    assert launched("first", 1) == 0  # one of its processes died: it goes on
    for attempt in range(2):
        capsys.readouterr()
        assert launched("second", attempt) == 1
        assert "already holds a run" in capsys.readouterr().err
    assert launched("first", 2) == 0  # the other launch has not cost it the run
    assert launched("second", 0, "--resume") == 0
    assert launched("second", 1) == 0


def test_a_run_folder_that_another_training_writes_to_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "sole_writer", partial(sole_writer, wait_s=0.1))
    with sole_writer(tmp_path):
        assert limtr_train(data, tmp_path, "--steps", "1") == 1
    assert "trains into it: wait for its end" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()
    assert limtr_train(data, tmp_path, "--steps", "1") == 0
