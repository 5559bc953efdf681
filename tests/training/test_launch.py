"""Training on Ray: what is refused before a worker starts, and how a signal reaches the workers."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from limtr import cli
from tests.training.small import small_config, small_dataset
from training import launch, train
from training.config import TrainConfig
from training.launch import check_before_start, compared_versions, require_resources, require_same_versions, until_the_end


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("data"))


def options(data: Path, out: Path, **given: Any) -> TrainConfig:
    return TrainConfig(data=data, out=out, **{"num_workers": 2, "batch_size": 2, "steps": 1, **given})


def test_a_batch_that_the_workers_cannot_share_is_refused_before_ray_starts(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a batch of 2 scenes.*by 3 workers: use --batch-size 3, or 2 workers"):
        launch.train_on_ray(options(data, tmp_path / "run", num_workers=3))


def test_a_run_of_another_configuration_is_not_gone_on_with(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "tiny_preset", small_config)
    words = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--steps", "1", "--batch-size", "2"]
    assert cli.main([*words, "--device", "cpu"]) == 0
    check_before_start(options(data, tmp_path / "run"))
    monkeypatch.setattr(launch, "start_ray", lambda *arguments: pytest.fail("Ray was started before the options were compared"))
    for changed, message in (
        (["--learning-rate", "1"], r"was trained differently (learning_rate: was 0.0015, is 1.0)"),
        (["--steps", "2"], "was trained differently (steps: was 1, is 2)"),
    ):
        assert cli.main([*words, "--num-workers", "2", "--resume", *changed]) == 1
        assert message in capsys.readouterr().err
    assert cli.main([*words, "--num-workers", "2"]) == 1
    assert "already holds a run; go on with --resume" in capsys.readouterr().err


def test_one_device_for_all_workers_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--device cuda:0: with --num-workers, --gpu alone chooses"):
        check_before_start(options(data, tmp_path / "run", device="cuda:0"))


def test_an_address_without_ray_is_told_with_the_remedy(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{used.getsockname()[1]}"
    words = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--steps", "1", "--batch-size", "2"]
    assert cli.main([*words, "--num-workers", "2", "--ray-address", address]) == 1
    assert f"--ray-address {address}: Connection refused; start one with `ray start --head`" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("there", "given", "message"),
    [
        ({"CPU": 3.0}, {"workers": 1}, "2 workers with 1 readers each need 4 CPUs, Ray has 3: use a smaller --num-workers or"),
        (
            {"CPU": 8.0, "GPU": 1.0},
            {"gpu": True},
            "need 2 GPUs, Ray has 1: .*, or train without --gpu",
        ),
    ],
    ids=["CPUs", "GPUs"],
)
def test_a_cluster_that_is_too_small_is_refused(
    there: dict[str, float], given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        require_resources(there, options(tmp_path, tmp_path, **given))


def test_a_machine_with_other_versions_is_refused_by_name() -> None:
    require_same_versions(compared_versions())
    with pytest.raises(ValueError, match=r"has other versions than .* \(torch .* here, 1\.0 there\): install the same on both"):
        require_same_versions({**compared_versions(), "torch": "1.0"})


def test_a_signal_becomes_the_stop_file_while_the_training_goes_on(tmp_path: Path) -> None:
    stop_file = tmp_path / "run" / "stop"

    def fit() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        end = time.monotonic() + 60
        while not stop_file.exists() and time.monotonic() < end:
            time.sleep(0.01)
        return "stopped" if stop_file.exists() else "not told"

    before = signal.getsignal(signal.SIGTERM)
    assert until_the_end(fit, stop_file) == "stopped"
    assert not stop_file.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_ends_a_training_is_raised_where_it_was_started(tmp_path: Path) -> None:
    def fit() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        until_the_end(fit, tmp_path / "stop")


def test_options_that_nothing_would_heed_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--steps", "1"]
    assert cli.main([*words, "--gpu", "--ray-address", "auto"]) == 1
    assert "leave out --gpu, --ray-address: they are for --num-workers" in capsys.readouterr().err
