"""`limtr verify metrics` on Waymo's golden values, whole and tampered with."""

import json

import numpy as np
import pytest

from evaluation.verify_metrics import VerifyMetricsConfig, run
from tests.evaluation.examples import GOLDEN

INPUTS, EXPECTED = GOLDEN / "waymo_metrics_golden.npz", GOLDEN / "waymo_metrics_golden.json"


def tampered(tmp_path, change):
    """Expected values of two cases, one of them joint, changed."""
    content = json.loads(EXPECTED.read_text())
    content["expected"] = {case: content["expected"][case] for case in ("case0", "case4")}
    change(content["expected"])
    path = tmp_path / "expected.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def two_cases(tmp_path_factory):
    path = tmp_path_factory.mktemp("golden") / "inputs.npz"
    with np.load(INPUTS, allow_pickle=False) as file:
        np.savez(path, **{name: file[name] for name in file.files if name.startswith(("case0", "case4"))})
    return path


def test_all_values_of_the_official_op_agree(capsys):
    assert run(VerifyMetricsConfig(golden=INPUTS, expected=EXPECTED)) == 0
    assert "324 of 324" in capsys.readouterr().out


def test_masks_of_whole_numbers_are_masks_too(two_cases, tmp_path):
    with np.load(two_cases, allow_pickle=False) as file:
        arrays = {name: file[name].astype(np.int64) if file[name].dtype == bool else file[name] for name in file.files}
    np.savez(tmp_path / "inputs.npz", **arrays)
    expected = tampered(tmp_path, lambda expected: None)
    assert run(VerifyMetricsConfig(golden=tmp_path / "inputs.npz", expected=expected)) == 0


def test_a_value_off_by_more_than_the_tolerance_fails(two_cases, tmp_path, capsys):
    def change(expected):
        expected["case4"]["TYPE_CYCLIST_9"]["soft_mean_average_precision_ref"] += 2e-4

    assert run(VerifyMetricsConfig(golden=two_cases, expected=tampered(tmp_path, change))) == 1
    assert "FAIL case4 CYCLIST 5s soft_mAP" in capsys.readouterr().out


def test_a_type_that_is_there_but_expected_absent_fails(two_cases, tmp_path):
    def change(expected):
        expected["case0"]["TYPE_VEHICLE_5"] = dict.fromkeys(expected["case0"]["TYPE_VEHICLE_5"], -1.0)

    assert run(VerifyMetricsConfig(golden=two_cases, expected=tampered(tmp_path, change))) == 1


def test_a_type_that_is_absent_and_expected_absent_agrees(tmp_path):
    with np.load(INPUTS, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name.startswith("case0")}
    arrays["case0_otype"] = np.where(arrays["case0_otype"] == 3, 4, arrays["case0_otype"])
    np.savez(tmp_path / "inputs.npz", **arrays)

    def change(expected):
        for name in [name for name in expected if name != "case0"]:
            del expected[name]
        for step in (5, 9, 15):
            expected["case0"][f"TYPE_CYCLIST_{step}"] = dict.fromkeys(expected["case0"][f"TYPE_CYCLIST_{step}"], -1.0)

    assert run(VerifyMetricsConfig(golden=tmp_path / "inputs.npz", expected=tampered(tmp_path, change))) == 0


def test_objects_without_anything_to_measure_are_zero_to_the_official_op(tmp_path, capsys):
    with np.load(INPUTS, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name.startswith("case0")}
    cyclist = arrays["case0_otype"] == 3
    arrays["case0_gt_valid"][cyclist, 90:] = False
    np.savez(tmp_path / "inputs.npz", **arrays)

    def change(expected):
        del expected["case4"]
        for name in ("min_fde", "miss_rate", "mean_average_precision", "soft_mean_average_precision_ref"):
            expected["case0"]["TYPE_CYCLIST_15"][name] = 0.0

    run(VerifyMetricsConfig(golden=tmp_path / "inputs.npz", expected=tampered(tmp_path, change)))
    lines = [line for line in capsys.readouterr().out.splitlines() if "CYCLIST 8s" in line]
    assert [line.split()[4] for line in lines if "nothing to measure" in line] == ["minFDE", "miss_rate", "mAP", "soft_mAP"]
    assert all(line.startswith("ok") for line in lines if "nothing to measure" in line)

    def change_more(expected):
        change(expected)
        expected["case0"]["TYPE_CYCLIST_15"]["miss_rate"] = 0.5

    assert run(VerifyMetricsConfig(golden=tmp_path / "inputs.npz", expected=tampered(tmp_path, change_more))) == 1
    assert "FAIL case0 CYCLIST 8s miss_rate" in capsys.readouterr().out


def test_a_case_without_expected_values_fails(two_cases, tmp_path):
    assert run(VerifyMetricsConfig(golden=two_cases, expected=tampered(tmp_path, lambda expected: expected.pop("case4")))) == 1


def test_the_older_buckets_give_other_values(two_cases, tmp_path, capsys):
    expected = tampered(tmp_path, lambda expected: None)
    assert run(VerifyMetricsConfig(golden=two_cases, expected=expected, bucketing="2021")) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert failed
    assert all("mAP" in line for line in failed)


def test_files_in_the_wrong_place_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"not a readable \.npz"):
        run(VerifyMetricsConfig(golden=EXPECTED, expected=EXPECTED))
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match=r"other\.json: no entry 'expected'"):
        run(VerifyMetricsConfig(golden=INPUTS, expected=tmp_path / "other.json"))


def test_missing_arrays_are_named(tmp_path):
    with np.load(INPUTS, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name.startswith("case0") and name != "case0_idx_mask"}
    np.savez(tmp_path / "inputs.npz", **arrays)
    with pytest.raises(ValueError, match="case0_idx_mask"):
        run(VerifyMetricsConfig(golden=tmp_path / "inputs.npz", expected=EXPECTED))
