"""Curves over the severity of degraded inputs."""

from pathlib import Path

from evaluation.comparison.degraded import curves_table, read_curves, untouched
from limtr.files import write_json


def evaluation(folder: Path, vehicle: float, cyclist: float | None) -> Path:
    """metrics.json of one seed: minADE doubles at severity 5."""
    severities = {
        str(severity): {"VEHICLE": {"mean": {"minADE": vehicle * factor, "mAP": 0.5}},
                        "CYCLIST": {"mean": {"minADE": None if cyclist is None else cyclist * factor, "mAP": None}}}
        for severity, factor in ((0, 1.0), (5, 2.0))
    }  # fmt: skip
    write_json(folder / "metrics.json", {"robustness": {"lidar-fog": {"severities": severities}}})
    return folder


def test_curves_are_means_of_the_asked_classes_that_are_known_by_seed(tmp_path: Path) -> None:
    folders = {"one": [evaluation(tmp_path / "a", 1.0, 3.0), evaluation(tmp_path / "b", 2.0, None)]}
    both = read_curves(folders, ["VEHICLE", "PEDESTRIAN", "CYCLIST"])
    assert both == {
        "one": {"lidar-fog": {0: {"minADE": [2.0, 2.0], "mAP": [0.5, 0.5]}, 5: {"minADE": [4.0, 4.0], "mAP": [0.5, 0.5]}}}
    }
    assert read_curves(folders, ["VEHICLE"])["one"]["lidar-fog"][5]["minADE"] == [2.0, 4.0]
    assert read_curves(folders, ["CYCLIST"])["one"]["lidar-fog"][0] == {"minADE": [3.0]}


def test_the_change_is_of_the_undisturbed_value(tmp_path: Path) -> None:
    table = curves_table(read_curves({"one": [evaluation(tmp_path / "a", 1.0, 3.0)]}, ["VEHICLE"]))
    assert table.head[-3:] == ("undisturbed", "severity 5", "change")
    assert table.rows[0] == ("minADE m", "lidar-fog", "one", "1.000", "2.000", "+100.0%")
    assert table.rows[1][-1] == "+0.0%"


def test_variants_that_a_corruption_does_not_touch_are_named(tmp_path: Path) -> None:
    curves = read_curves({"points": [evaluation(tmp_path / "a", 1.0, 3.0)]}, ["VEHICLE"])
    assert untouched(curves, ["points", "none"]) == {"lidar-fog": ["none"]}
    assert untouched(curves, ["points"]) == {}
