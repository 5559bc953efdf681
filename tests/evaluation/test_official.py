"""`limtr evaluate --official`: both columns, and what a difference costs."""

import json

import numpy as np
import pytest

from evaluation import official
from evaluation.baselines import turn_rate_fan
from evaluation.evaluate import EvaluateConfig, run
from evaluation.joint import joint_of_groups
from evaluation.metric_config import CURRENT_STEP, MotionMetricsConfig
from evaluation.official import OfficialJudge, compare_with_op, print_verdict
from evaluation.op_input import rounded
from evaluation.oracle import ORACLE_VARIABLE, OracleError
from evaluation.predictions import write_predictions
from evaluation.scenario_predictions import pair_with_truth
from evaluation.verify_metrics import case_scenarios
from preprocessing.shards import SceneSource
from tests.builders import tiny_scene
from tests.evaluation.examples import GOLDEN, needs_oracle


@pytest.fixture
def predictions(dataset, tmp_path):
    path = tmp_path / "p.parquet"
    write_predictions(path, [turn_rate_fan(scene) for scene in SceneSource(dataset, "validation")])
    return path


def expected_values(monkeypatch, change):
    """Let the op answer what `change` makes of Waymo's golden values for the golden cases."""
    values = json.loads((GOLDEN / "waymo_metrics_golden.json").read_text())["expected"]["case0"]
    change(values)
    monkeypatch.setattr(official, "run_op", lambda cases, config: {"marginal": values})


@pytest.fixture(scope="module")
def golden_case():
    with np.load(GOLDEN / "waymo_metrics_golden.npz", allow_pickle=False) as file:
        return list(case_scenarios({name: file[name] for name in file.files}, "case0"))


def test_equal_columns_agree(golden_case, monkeypatch, capsys):
    expected_values(monkeypatch, lambda values: None)
    verdict = compare_with_op({"marginal": golden_case}, MotionMetricsConfig())
    assert print_verdict(verdict, {"marginal": len(golden_case)}, "2024")
    printed = capsys.readouterr().out
    assert "45 of 45 numbers agree" in printed
    assert "ours / Waymo's op" in printed


def test_a_number_off_by_more_than_the_tolerance_fails_by_name(golden_case, monkeypatch, capsys):
    def change(values):
        values["TYPE_CYCLIST_9"]["mean_average_precision"] += 1.1e-4
        values["TYPE_VEHICLE_5"]["min_ade"] += 0.9e-4

    expected_values(monkeypatch, change)
    verdict = compare_with_op({"marginal": golden_case}, MotionMetricsConfig())
    assert not print_verdict(verdict, {"marginal": len(golden_case)}, "2024")
    printed = capsys.readouterr().out
    assert "44 of 45 numbers agree" in printed
    assert "FAIL marginal CYCLIST 5s mAP: ours" in printed


def test_a_class_that_only_one_side_has_fails(golden_case, monkeypatch):
    expected_values(
        monkeypatch, lambda values: values.update({"TYPE_VEHICLE_5": dict.fromkeys(values["TYPE_VEHICLE_5"], -1.0)})
    )
    rows = compare_with_op({"marginal": golden_case}, MotionMetricsConfig())["marginal"]
    assert {(row.kind, row.horizon) for row in rows if not row.agrees} == {("VEHICLE", "3s")}


def test_no_number_at_all_is_no_agreement():
    assert not print_verdict({}, {}, "2024")
    assert not print_verdict({"marginal": []}, {"marginal": 3}, "2024")


def test_a_missing_environment_is_said_before_the_long_work(dataset, predictions, tmp_path, monkeypatch):
    monkeypatch.setenv(ORACLE_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(OracleError, match="make oracle"):
        run(EvaluateConfig(predictions=predictions, data=dataset, out=tmp_path / "out", official=True))
    assert not (tmp_path / "out").exists()


def test_more_truth_than_the_op_can_hold_is_refused(monkeypatch):
    monkeypatch.setattr(official, "MAX_BYTES", 20_000)
    scene = tiny_scene(0, with_lidar=False)
    judge = OfficialJudge(MotionMetricsConfig())
    judge.add(scene, pair_with_truth(scene, turn_rate_fan(scene)))
    with pytest.raises(ValueError, match="fewer shards"):
        judge.add(scene, pair_with_truth(scene, turn_rate_fan(scene)))


@needs_oracle
def test_waymo_s_op_agrees_on_a_file_of_predictions(dataset, predictions, tmp_path, capsys):
    assert run(EvaluateConfig(predictions=predictions, data=dataset, out=tmp_path, official=True)) == 0
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert set(content["official"]) == {"marginal", "joint"}
    ours = {(row["kind"], row["horizon"], row["metric"]): row["ours"] for row in content["official"]["marginal"]}
    values = content["results"]["predictions"]["values"]
    assert ours["CYCLIST", "8s", "minADE"] == pytest.approx(values["CYCLIST"]["8s"]["minADE"], abs=1e-4)
    assert "numbers agree with Waymo's op" in capsys.readouterr().out


@needs_oracle
@pytest.mark.parametrize("bucketing", ["2024", "2021"])
def test_waymo_s_op_agrees_on_gaps_ties_late_tracks_and_joint_groups(bucketing):
    scenarios = []
    for seed in range(40):
        scene = tiny_scene(seed, num_tracks=9, num_targets=6, with_lidar=False)
        item = pair_with_truth(scene, turn_rate_fan(scene))
        rng = np.random.default_rng(seed)
        item.scores[:] = np.round(rng.random(item.scores.shape), 1)
        item.xy_m[:] += rng.normal(0, 2, (*item.xy_m.shape[:3], 1, 2)) * np.linspace(0, 1, 16)[:, None]
        item.track_valid[rng.integers(6)] &= np.arange(91) <= CURRENT_STEP  # its future is unknown
        item.track_valid[rng.integers(6), CURRENT_STEP] = False  # it has no bucket
        scenarios.append(rounded(item))
    joint = [joint_of_groups(item, [(0, 1), (2, 3), (4, 5)]) for item in scenarios]
    verdict = compare_with_op({"marginal": scenarios, "joint": joint}, MotionMetricsConfig(bucketing=bucketing))
    rows = [row for part in verdict.values() for row in part]
    assert len(rows) >= 75
    assert [row for row in rows if not row.agrees] == []
    assert sum(row.ours not in (None, 0.0) for row in rows if row.metric == "mAP") > 10


@needs_oracle
def test_a_check_that_fails_inside_the_op_becomes_a_sentence(golden_case, monkeypatch):
    arrays = official.op_arrays(golden_case)
    arrays["gt"] = arrays["gt"][:, :, :80]
    arrays["gt_valid"] = arrays["gt_valid"][:, :, :80]
    with pytest.raises(OracleError, match=r"motion_metrics\.py"):
        official.run_op({"short": arrays}, MotionMetricsConfig())
