"""`limtr evaluate --corrupt`: measured against the undisturbed truth, kept, resumed, shown."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from evaluation import evaluate
from evaluation.baselines import constant_velocity
from evaluation.corruptions.catalogue import CORRUPTIONS, corrupt
from evaluation.evaluate import EvaluateConfig, run
from evaluation.metric_config import MotionMetricsConfig
from evaluation.report.robustness_section import robustness_section
from evaluation.robustness import RobustnessPlan, _key, chosen, measure, relative_change
from evaluation.robustness_table import draw_curves, print_curves
from evaluation.scoring import EvaluationResult, result_of, score
from limtr.predictor import MotionPredictor
from limtr.scene import Scene
from preprocessing.shards import SceneSource
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset


def velocity(scenes):
    return [constant_velocity(scene) for scene in scenes]


def clean(scenes: list[Scene]) -> EvaluationResult:
    return result_of(score(scenes, {"x": velocity}, batch_size=4)["x"])


def plan(folder: Path, *names: str, severities: tuple[int, ...] = (1, 3), **about: object) -> RobustnessPlan:
    return RobustnessPlan(names=names, severities=severities, seed=0, about=about, folder=folder)


def test_noise_in_the_tracks_is_felt_by_who_reads_them_and_the_truth_stays(tmp_path):
    scenes = [tiny_scene(number) for number in range(4)]
    curves = measure(plan(tmp_path, "track-noise", "missing-map", severities=(1, 5)), velocity, scenes, clean(scenes))
    noise = [curves["track-noise"][severity].values["mean"]["mean"]["minADE"] for severity in (0, 1, 5)]
    assert noise[0] < noise[1] < noise[2]
    # Constant velocity reads no map: what it is compared with must be the same at every severity.
    assert curves["missing-map"][5].values == curves["missing-map"][0].values
    assert relative_change(curves["missing-map"], "minADE")[5] == 0.0
    assert relative_change(curves["track-noise"], "minADE")[5] == pytest.approx(noise[2] / noise[0] - 1)


def test_the_numbers_are_those_of_a_model_that_was_handed_degraded_scenes(tmp_path):
    scenes = [tiny_scene(number) for number in range(3)]
    curves = measure(plan(tmp_path, "track-noise", severities=(2,)), velocity, scenes, clean(scenes))
    by_hand = {"x": lambda items: velocity([corrupt(scene, "track-noise", 2, seed=0) for scene in items])}
    assert curves["track-noise"][2] == result_of(score(scenes, by_hand)["x"])


def test_finished_corruptions_are_not_measured_again_unless_something_differs(tmp_path):
    scenes = [tiny_scene(number) for number in range(2)]
    calls = []

    def counted(items):
        calls.append(len(items))
        return velocity(items)

    first = measure(plan(tmp_path, "track-noise", model="a"), counted, scenes, clean(scenes))
    done = len(calls)
    assert measure(plan(tmp_path, "track-noise", model="a"), counted, scenes, clean(scenes)) == first
    assert len(calls) == done
    more = measure(plan(tmp_path, "track-noise", severities=(1, 3, 5), model="a"), counted, scenes, clean(scenes))
    assert len(calls) == done + 1, "only the missing severity"
    assert more["track-noise"][3] == first["track-noise"][3]
    measure(plan(tmp_path, "track-noise", model="b"), counted, scenes, clean(scenes))
    assert len(calls) == done + 3, "another model"


def test_an_interrupted_run_keeps_what_was_finished(tmp_path):
    scenes = [tiny_scene(number) for number in range(2)]

    def interrupted(items):
        if not items[0].map_points_m.size:
            raise KeyboardInterrupt
        return velocity(items)

    names = ("track-noise", "missing-map")
    with pytest.raises(KeyboardInterrupt):
        measure(plan(tmp_path, *names, severities=(5,)), interrupted, scenes, clean(scenes))
    assert [path.name for path in tmp_path.iterdir()] == ["track-noise.json"]


def test_a_damaged_result_is_told_and_measured_again(tmp_path):
    scenes = [tiny_scene(0)]
    first = measure(plan(tmp_path, "track-noise"), velocity, scenes, clean(scenes))
    (tmp_path / "track-noise.json").write_text("{")
    with pytest.warns(UserWarning, match=r"track-noise\.json.*measured again"):
        assert measure(plan(tmp_path, "track-noise"), velocity, scenes, clean(scenes)) == first


def test_lidar_corruptions_of_scenes_without_lidar_are_left_out_each_time(tmp_path):
    scenes = [replace(tiny_scene(number), lidar=None) for number in range(2)]
    for _ in range(2):
        with pytest.warns(UserWarning, match="--corrupt lidar-fog left out: no scene has LiDAR"):
            curves = measure(plan(tmp_path, "lidar-fog", "missing-map"), velocity, scenes, clean(scenes))
        assert set(curves) == {"missing-map"}, "a level curve would look like robustness"


def test_a_model_without_lidar_is_not_asked_about_it():
    with pytest.warns(UserWarning, match="lidar-fog left out: the model does not read LiDAR"):
        assert chosen(["lidar-fog", "track-noise"], use_lidar=False) == ("track-noise",)
    assert chosen(["all"], use_lidar=True) == tuple(CORRUPTIONS)
    assert chosen([], use_lidar=True) == ()


def test_evaluate_writes_tables_picture_and_a_section_of_the_report(model_folder, dataset, tmp_path, capsys):
    config = EvaluateConfig(
        checkpoint=model_folder, data=dataset, out=tmp_path, pictures=0, report=True, severities=(1, 5),
        corrupt=("track-noise", "missing-map"),
    )  # fmt: skip
    assert run(config) == 0
    printed = capsys.readouterr().out
    assert "severity 5" in printed
    assert (tmp_path / "robustness/robustness.png").stat().st_size > 10_000
    found = json.loads((tmp_path / "metrics.json").read_text())["robustness"]
    assert set(found) == {"track-noise", "missing-map"}
    assert found["track-noise"]["amounts"] == {"1": 0.05, "5": 0.8}
    page = (tmp_path / "report.html").read_text()
    assert 'id="robustness"' in page
    assert "sigma of positions (m)" in page


def test_shown_numbers_are_the_measured_ones_and_absent_classes_stay_absent(tmp_path, capsys):
    scenes = [tiny_scene(number, num_targets=1) for number in range(2)]  # vehicles alone
    curves = measure(plan(tmp_path, "track-noise"), velocity, scenes, clean(scenes))
    value = curves["track-noise"][3].values["mean"]["mean"]["minADE"]
    page = robustness_section(curves).body
    assert f"{value:.3f}" in page
    assert "pedestrian" not in page
    print_curves(curves)
    assert f"{value:.3f}" in capsys.readouterr().out
    assert draw_curves(curves, tmp_path / "x.png").exists()


def test_what_evaluate_keeps_is_of_one_model_data_set_split_rule_and_seed(model_folder, dataset, tmp_path, monkeypatch):
    model = MotionPredictor.load(model_folder)
    model.config = replace(model.config, nms_distance_m=(1.0, 2.0, 3.0))
    other_model = model.save(tmp_path / "model")
    other_data = write_dataset(tmp_path / "data", {"validation": [tiny_scene(7, with_lidar=False)]})
    kept = []
    monkeypatch.setattr(evaluate, "measure", lambda plan, *_, **__: kept.append(_key(plan, "missing-map")) or {})

    def ask(**options):
        paths = {"checkpoint": model_folder, "data": dataset, "out": tmp_path}
        config = EvaluateConfig(**(paths | {"corrupt": ("missing-map",)} | options))
        source, loaded = SceneSource(config.data, config.split), MotionPredictor.load(config.checkpoint)
        evaluate._corrupt(config, source, loaded, None, MotionMetricsConfig(bucketing=config.bucketing))

    ask()
    ask(batch_size=2, report=False)
    for options in (
        {"checkpoint": other_model}, {"data": other_data}, {"split": "train"}, {"bucketing": "2021"}, {"seed": 3},
    ):  # fmt: skip
        ask(**options)
    assert kept[0] == kept[1], "how it is computed does not matter"
    assert all(first != second for first, second in combinations(kept[1:], 2))


def test_a_kept_result_of_other_amounts_corruption_or_seed_is_not_read(tmp_path, monkeypatch):
    scenes = [tiny_scene(number) for number in range(2)]
    base = clean(scenes)
    first = measure(plan(tmp_path, "track-noise"), velocity, scenes, base)["track-noise"]
    other_seed = measure(replace(plan(tmp_path, "track-noise"), seed=1), velocity, scenes, base)["track-noise"]
    assert other_seed[3].values != first[3].values
    # A file that was kept under another name is not taken for this one's.
    (tmp_path / "track-noise.json").replace(tmp_path / "missing-map.json")
    curve = measure(replace(plan(tmp_path, "missing-map"), seed=1), velocity, scenes, base)["missing-map"]
    assert curve[3].values == base.values
    measure(plan(tmp_path, "track-noise"), velocity, scenes, base)
    amounts = (0.05, 0.1, 2.0, 4.0, 8.0)
    monkeypatch.setitem(CORRUPTIONS, "track-noise", replace(CORRUPTIONS["track-noise"], amounts=amounts))
    changed = measure(plan(tmp_path, "track-noise"), velocity, scenes, base)["track-noise"]
    assert changed[1].values == first[1].values
    assert changed[3].values["mean"]["mean"]["minADE"] > 2 * first[3].values["mean"]["mean"]["minADE"]


def test_options_that_cannot_be_are_told(tmp_path):
    with pytest.raises(ValueError, match="--corrupt needs --checkpoint"):
        EvaluateConfig(predictions=tmp_path, data=tmp_path, corrupt=("all",))
    for severities in ((0,), (6,), (), (1, 1)):
        with pytest.raises(ValueError, match="--severities must be some of"):
            EvaluateConfig(checkpoint=tmp_path, data=tmp_path, severities=severities)
