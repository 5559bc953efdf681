import fcntl
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.compare import CompareConfig, run
from evaluation.comparison import perform, plots
from evaluation.comparison.plots import pareto_front
from evaluation.comparison.results import why_order_differs
from evaluation.comparison.variants import read_variants
from tests.builders import tiny_scene
from tests.evaluation.comparison.made_runs import MadeCommands, made_data, write_variants
from tests.evaluation.examples import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_data(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> MadeCommands:
    made = MadeCommands(one=0.0, two=0.4)
    monkeypatch.setattr(perform, "_limtr", made)
    return made


def compare(files: tuple[Path, ...], data: Path, out: Path, **options: object) -> CompareConfig:
    given = {"seeds": 2, "resamples": 100, "executor": "local", **options}
    return CompareConfig(config=files, data=data, out=out, **given)  # type: ignore[arg-type]


def test_a_comparison_finds_the_better_variant_and_writes_everything(
    commands: MadeCommands, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_variants(tmp_path, one="{steps: 4}", two="{steps: 4, lidar: false}")
    assert run(compare(files, data, tmp_path / "out")) == 0
    assert commands.trained() == [("one", 0), ("two", 0), ("one", 1), ("two", 1)]  # seed by seed: whole pairs early
    said = "mean of classes, minADE: two is better than one by "
    assert said in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["baseline"] == "one"
    two = results["variants"]["two"]
    assert two["difference"]["mean"]["mean"]["minADE"]["high"] < 0
    assert any(sentence.startswith(said) for sentence in two["verdicts"])
    assert (two["cost"]["training_cpu_s"], two["cost"]["steps"], two["seeds"]) == (1.5, 4, [0, 1])
    assert two["cost"]["parameters"] > 0
    assert two["cost"]["flops_per_agent"] > 0
    text = (tmp_path / "out" / "compare.md").read_text()
    assert said in text
    assert "MFLOP at the links" not in text  # no variant is sparse
    assert "all variants see the training scenes in one order" in text
    looked, excluded = results["intervals_looked_at"], results["intervals_excluding_zero"]
    assert (looked, excluded) == (20, len(two["verdicts"]))
    assert f"{excluded} of 20 intervals exclude zero. Were nothing different, about 1.0 of them would by chance" in text
    for name in ("differences.png", "pareto.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in text
    assert json.loads((tmp_path / "out" / "report.json").read_text())["verb"] == "compare"


def test_links_and_operations_at_them_stand_beside_the_dense_cost(
    commands: MadeCommands, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    panels = {}

    def save(figure, path):  # type: ignore[no-untyped-def]
        panels[path.name] = figure.axes
        return path

    monkeypatch.setattr(plots, "save_figure", save)
    files = write_variants(tmp_path, one="{steps: 40}", two="{steps: 40, sparsity: {method: static, density: 0.5}}")
    assert run(compare(files, data, tmp_path / "out")) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    one, two = (results["variants"][name]["cost"] for name in ("one", "two"))
    assert one["links"] == one["parameters"] == two["parameters"] > two["links"]
    assert one["sparse_flops_per_agent"] == one["flops_per_agent"] == two["flops_per_agent"] > two["sparse_flops_per_agent"] > 0
    text = (tmp_path / "out" / "compare.md").read_text()
    assert f"| two | 2 | {two['parameters']:,} | " in text
    assert f" | {two['links']:,} | {two['sparse_flops_per_agent'] / 1e6:.1f} | 4 |" in text
    assert "MFLOP at the links" in capsys.readouterr().out
    panel = panels["pareto.png"][0]
    assert panel.get_xlabel() == "MFLOP per agent, of sparse variants at their links"
    drawn = {round(float(line.get_xdata()[0]), 6) for line in panel.lines if line.get_marker() in ("o", "s")}
    assert drawn == {round(cost["sparse_flops_per_agent"] / 1e6, 6) for cost in (one, two)}


def test_classes_can_be_compared_alone(
    commands: MadeCommands, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_variants(tmp_path, one="{steps: 4}", two="{steps: 4, lidar: false}")
    assert run(compare(files, data, tmp_path / "out", classes=("pedestrian",))) == 0
    told = capsys.readouterr().out
    assert "pedestrian, minADE: two is better than one by " in told
    assert "vehicle" not in told
    assert "mean of classes" not in told
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["variants"]["two"]["values"]["VEHICLE"]["mean"]["minADE"]["estimate"] is None
    assert "--classes pedestrian" in (tmp_path / "out" / "compare.md").read_text()


def test_degraded_inputs_are_passed_on_and_shown_without_training_again(
    commands: MadeCommands, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_variants(tmp_path, one="{steps: 4}", two="{steps: 4, lidar: false}")
    run(compare(files, data, tmp_path / "out"))
    commands.trained()
    assert run(compare(files, data, tmp_path / "out", corrupt=("lidar-fog",), severities=(1, 4))) == 0
    assert commands.trained() == []
    assert "degraded inputs, mean over horizons" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["robustness"]["two"]["lidar-fog"]["4"]["minADE"] == pytest.approx([5.0, 5.1])
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "| minADE m | lidar-fog | two | 1.050 | 2.050 | 5.050 | +381.0% |" in text
    assert "--corrupt lidar-fog --severities 1 4" in text
    assert "feels nothing" not in text
    assert (tmp_path / "out" / "robustness.png").read_bytes().startswith(b"\x89PNG")


def test_finished_runs_are_kept_and_a_failed_one_is_named_and_tried_again(
    commands: MadeCommands, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compare(write_variants(tmp_path, one="{steps: 4}", two="{steps: 5}"), data, tmp_path / "out")
    commands.failing = {("two", 0)}
    assert run(config) == 1
    assert commands.trained() == [("one", 0), ("two", 0), ("one", 1), ("two", 1)]
    told = capsys.readouterr().err
    assert "two, seed 0 failed: `limtr train` ended with status 1; its log is" in told
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["variants"]["two"]["shared_seeds"] == [1]
    assert [item["run"] for item in results["failed"]] == ["two, seed 0"]
    assert "the words of its log" in Path(results["failed"][0]["log"]).read_text()
    assert "**Without a result** (1 runs" in (tmp_path / "out" / "compare.md").read_text()

    commands.failing = set()
    assert run(config) == 0
    assert commands.trained() == [("two", 0)]
    assert "3 finished in" in capsys.readouterr().out
    assert run(config) == 0
    assert commands.trained() == []
    assert json.loads((tmp_path / "out" / "results.json").read_text())["variants"]["two"]["shared_seeds"] == [0, 1]


def test_a_training_that_was_stopped_goes_on_and_a_finished_one_is_only_evaluated(
    commands: MadeCommands, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compare(write_variants(tmp_path, one="{steps: 4}"), data, tmp_path / "out", seeds=1)
    words: list[list[str]] = []

    def stopped(item, verb, given, lock):  # type: ignore[no-untyped-def]
        words.append([verb, *given])
        if len(words) == 1:
            (item.training / "checkpoints").mkdir(parents=True)
            (item.training / "checkpoints" / "latest.txt").write_text("step-00000002\n")
            raise perform.RunFailedError("stopped")
        if len(words) == 3:
            raise perform.RunFailedError("no evaluation")
        commands(item, verb, given, lock)

    monkeypatch.setattr(perform, "_limtr", stopped)
    for _ in range(2):
        with pytest.raises(ValueError, match="no run of 'one', the first variant, is finished"):
            run(config)
    assert run(config) == 0
    assert [item[0] for item in words] == ["train", "train", "evaluate", "evaluate"]
    assert ["--resume" in item for item in words] == [False, True, False, False]


def test_a_changed_file_is_noticed_and_trained_anew(
    commands: MadeCommands, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(compare(write_variants(tmp_path, one="{steps: 4}", two="{steps: 4, lidar: false}"), data, out))
    commands.trained()
    capsys.readouterr()
    files = write_variants(tmp_path, one="{steps: 4}", two="{steps: 6, lidar: false}")
    assert run(compare(files, data, out)) == 0
    assert commands.trained() == [("two", 0), ("two", 1)]
    assert "two, seed 0 changed and is trained anew: recipe.steps: 4 before, 6 now (kept in " in capsys.readouterr().out
    # The first runs are still there, and what the preset says anyway may be written out.
    files = write_variants(tmp_path, one="{steps: 4}", two="{steps: 4, lidar: false, batch_size: 2, workers: 0}")
    assert run(compare(files, data, out)) == 0
    assert commands.trained() == []


def test_other_data_are_noticed(commands: MadeCommands, data: Path, tmp_path: Path) -> None:
    files, out = write_variants(tmp_path, one="{steps: 4}"), tmp_path / "out"
    other = made_data(tmp_path / "other")
    run(compare(files, other, out, seeds=1))
    commands.trained()
    (other / "intentions.json").write_text((other / "intentions.json").read_text() + "\n")
    run(compare(files, other, out, seeds=1))
    assert commands.trained() == [("one", 0)]


def test_everything_is_checked_before_anything_is_trained(commands: MadeCommands, data: Path, tmp_path: Path) -> None:
    files = write_variants(tmp_path, one="{steps: 4}", two="{stepz: 4}")
    with pytest.raises(ValueError, match="did you mean 'steps'"):
        run(compare(files, data, tmp_path / "out"))
    good = write_variants(tmp_path, one="{steps: 4}")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(compare(good, tmp_path / "nowhere", tmp_path / "out"))
    with pytest.raises((FileNotFoundError, ValueError), match="test"):
        run(compare(good, data, tmp_path / "out", split="test"))
    assert commands.done == []


def test_a_run_whose_model_was_removed_is_done_again(commands: MadeCommands, data: Path, tmp_path: Path) -> None:
    config = compare(write_variants(tmp_path, one="{steps: 4}"), data, tmp_path / "out", seeds=1)
    run(config)
    commands.trained()
    (training,) = (tmp_path / "out" / "runs").glob("*/training")
    shutil.rmtree(training)
    assert run(config) == 0
    assert commands.trained() == [("one", 0)]


def test_a_damaged_result_is_told(commands: MadeCommands, data: Path, tmp_path: Path) -> None:
    config = compare(write_variants(tmp_path, one="{steps: 4}"), data, tmp_path / "out", seeds=1)
    run(config)
    (path,) = (tmp_path / "out" / "runs").glob("*/evaluation-*/scene_scores.npz")
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"scene_scores.npz: not a file of scene scores"):
        run(config)


def test_two_comparisons_do_not_work_on_one_run(commands: MadeCommands, data: Path, tmp_path: Path) -> None:
    config = compare(write_variants(tmp_path, one="{steps: 4}"), data, tmp_path / "out", seeds=1)
    errors = []

    def busy(item, verb, given, lock):  # type: ignore[no-untyped-def]
        errors.append(perform.attempt(item).error)
        commands(item, verb, given, lock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perform, "_limtr", busy)
        assert run(config) == 0
    assert all(error is not None and "another process is at work in" in error for error in errors)


def test_variants_in_batches_of_their_own_are_said_to_differ_in_order(
    commands: MadeCommands, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_variants(tmp_path, one="{steps: 4}", two="{steps: 4, batch_size: 1}")
    run(compare(files, data, tmp_path / "out"))
    assert "the variants differ in batch_size, so they do not see the scenes in one order" in capsys.readouterr().out


def test_variants_of_other_scenes_are_said_to_differ_in_data(data: Path, tmp_path: Path) -> None:
    same, other = made_data(tmp_path / "same"), tmp_path / "other"
    write_dataset(other, {"train": [tiny_scene(2), tiny_scene(1)], "validation": [tiny_scene(50)]})
    (one,) = read_variants(write_variants(tmp_path, one="{steps: 4}"), data)
    assert why_order_differs([one, replace(one, data=same)]) == ""
    assert why_order_differs([one, replace(one, data=other)]) == "data"


def test_names_of_any_letters_are_shown_as_they_are(
    commands: MadeCommands, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("../_one [/b]", "$x_$ | [red]two")
    files = []
    for number, name in enumerate(names):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(f"name: {json.dumps(name)}\ntrain: {{steps: 4, lidar: {json.dumps(bool(number))}}}\n")
    out = tmp_path / "out"
    assert run(compare(tuple(files), data, out, seeds=1)) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in names)
    assert f"differences to {names[0]} with 95% intervals over scenes (one seed)" in told
    assert {path.parent for path in (out / "runs").iterdir()} == {out / "runs"}
    assert (out / "differences.png").exists()


def test_equal_variants_and_limits_in_minutes_are_remarked(
    commands: MadeCommands, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_variants(tmp_path, one="{steps: 4}", two="{steps: 4, workers: 0}", three="{steps: 4, minutes: 1}")
    assert run(compare(files, data, tmp_path / "out", seeds=1)) == 0
    told = capsys.readouterr().err
    assert "one and two are the same training: their difference can only be zero" in told
    assert told.count("are the same training") == 1
    assert "three is limited in minutes" in told
    assert told.count("is limited in minutes") == 1


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_scene_is_compared_without_any_interval(commands: MadeCommands, data: Path, tmp_path: Path, seeds: int) -> None:
    commands.num_scenes = 1
    files, out = write_variants(tmp_path, one="{steps: 4}", two="{steps: 4, lidar: false}"), tmp_path / "out"
    assert run(compare(files, data, out, seeds=seeds)) == 0
    text = (out / "compare.md").read_text()
    assert "**two**: no interval of the difference to one is known: too few scenes." in text
    assert "[?]" in text
    assert json.loads((out / "results.json").read_text())["variants"]["two"]["verdicts"] == []
    assert (out / "differences.png").exists()


def test_results_are_not_written_into_another_verbs_folder(commands: MadeCommands, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text('{"verb": "train"}')
    with pytest.raises(ValueError, match=r"out holds what `limtr train` wrote .*; choose another folder"):
        run(compare(write_variants(tmp_path, one="{steps: 4}"), data, out, seeds=1))
    assert commands.done == []
    assert (out / "report.json").read_text() == '{"verb": "train"}'


def test_pictures_of_an_earlier_call_do_not_stay(commands: MadeCommands, data: Path, tmp_path: Path) -> None:
    files, out = write_variants(tmp_path, one="{steps: 4}", two="{steps: 4, lidar: false}"), tmp_path / "out"
    run(compare(files, data, out, seeds=1, corrupt=("lidar-fog",), severities=(1, 4)))
    assert (out / "robustness.png").exists()
    run(compare(files[:1], data, out, seeds=1))
    assert not (out / "robustness.png").exists()
    assert not (out / "differences.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seeds": 0}, "--seeds must be at least 1, is 0"), ({"resamples": 10}, "--resamples must be at least 100"),
     ({"executor": "local", "workers": 2}, "--workers 2 needs --executor ray"),
     ({"executor": "local", "ray_address": "here"}, "--ray-address needs --executor ray"),
     ({"level": 1.0}, "--level"), ({"config": ()}, "--config must name")],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"config": (Path("a.yaml"),), "out": Path("out"), **options}
    with pytest.raises(ValueError, match=message):
        CompareConfig(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spent", "reached", "higher", "front"),
    [([1, 2, 3], [3, 2, 1], False, [0, 1, 2]), ([1, 2, 3], [3, 2, 1], True, [0]), ([2, 1, 1], [5, 6, 5], False, [2]),
     ([3, 1, 2], [0.9, 0.5, 0.4], True, [1, 0])],
)  # fmt: skip
def test_the_front_holds_what_nothing_beats_in_both(
    spent: list[float], reached: list[float], higher: bool, front: list[int]
) -> None:
    assert pareto_front(spent, reached, higher_is_better=higher) == front


def command(tmp_path: Path, data: Path, files: tuple[Path, ...], *words: str) -> list[str]:
    return [sys.executable, "-m", "limtr.cli", "compare", "--config", *map(str, files), "--data", str(data), "--out",
            str(tmp_path / "out"), "--resamples", "100", *words]  # fmt: skip


@pytest.mark.slow
def test_real_trainings_on_ray_are_compared(data: Path, tmp_path: Path) -> None:
    files = write_variants(tmp_path, mtr="{preset: tiny, lidar: false, steps: 2}", limtr="{preset: tiny, steps: 2}")
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        command(tmp_path, data, files, "--seeds", "1", "--workers", "2"), capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["baseline"] == "mtr"
    assert results["variants"]["limtr"]["cost"]["parameters"] > results["variants"]["mtr"]["cost"]["parameters"]
    assert results["variants"]["limtr"]["cost"]["training_cpu_s"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "number"), [("local", signal.SIGINT), ("ray", signal.SIGTERM)], ids=["local", "ray"])
def test_a_stopped_comparison_leaves_a_checkpoint_and_no_process_and_goes_on(
    data: Path, tmp_path: Path, executor: str, number: signal.Signals
) -> None:
    files = write_variants(tmp_path, one="{preset: tiny, steps: 40}")
    words = command(tmp_path, data, files, "--seeds", "1", "--workers", "1", "--executor", executor)
    # As a shell starts what is put into the background: with SIGINT ignored.
    ignore = functools.partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    first = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=ignore)
    log = tmp_path / "out" / "runs"
    while first.poll() is None and not any("step" in path.read_text() for path in log.glob("*/training/log.jsonl")):
        time.sleep(0.1)
    first.send_signal(number)
    told, _ = first.communicate(timeout=120)
    assert first.returncode == 130, told
    assert list(log.glob("*/training/checkpoints/latest.txt"))
    (lock,) = log.glob("*/lock")
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nothing holds the run any more
    second = subprocess.run(words, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    (path,) = log.glob("*/log.txt")
    assert "going on from" in path.read_text()
