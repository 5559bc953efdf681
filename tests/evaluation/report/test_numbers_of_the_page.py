"""Numbers and lines of report.html against metrics.json, and against each other where one must follow from another."""

import json
import re
import xml.etree.ElementTree as ET
from collections import defaultdict

import numpy as np
import pytest

from evaluation.baselines import turn_rate_fan
from evaluation.evaluate import EvaluateConfig, run
from evaluation.predictions import write_predictions
from evaluation.report.robustness_section import robustness_section
from evaluation.robustness import measure
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset
from tests.evaluation.test_robustness import clean, plan, velocity

METRICS = (("minADE", "miss_rate", "mAP"), ("minFDE", "overlap_rate", "soft_mAP"))
HORIZONS = ("3s", "5s", "8s", "mean")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page, and the results in metrics.json, of predictions by the turn-rate fan."""
    folder = tmp_path_factory.mktemp("numbers")
    scenes = [tiny_scene(seed) for seed in range(10)]
    data = write_dataset(folder / "data", {"validation": scenes})
    write_predictions(folder / "p.parquet", [turn_rate_fan(scene) for scene in scenes])
    assert run(EvaluateConfig(predictions=folder / "p.parquet", data=data, out=folder / "out", report=True)) == 0
    content = (folder / "out/report.html").read_text(encoding="utf-8")
    return ET.fromstring(content.partition("\n")[2]), json.loads((folder / "out/metrics.json").read_text())["results"]


def words(element):
    return "".join(element.itertext())


def tables(element):
    """Rows of cells by caption."""
    return {
        words(item.find("caption")): [[words(cell) for cell in row] for row in item.iter("tr")]
        for item in element.iter("table")
    }


def heights(figure):
    """Points (x, height above the axis) of every line of a chart, by name."""
    grid = [path.get("d") for path in figure.iter("path") if path.get("class") == "grid"]
    base = max(float(re.search(r" ([\d.]+)H", data).group(1)) for data in grid)
    lines = {}
    for group in figure.iter("g"):
        path = group.find("path[@class='line']")
        if path is not None:
            points = [tuple(map(float, point)) for point in re.findall(r"([\d.]+) ([\d.]+)", path.get("d"))]
            lines[group.find("title").text] = np.array([(x, base - y) for x, y in points])
    return lines


def assert_shows(line, values):
    """A line of a chart whose axis begins at zero rises as values do, from left to right."""
    assert len(line) == len(values)
    assert (np.diff(line[:, 0]) > 0).all()
    scale = max(values) / line[:, 1].max()
    np.testing.assert_allclose(line[:, 1] * scale, values, atol=0.01 * max(values))


def test_every_cell_of_the_results_is_that_of_metrics_json(report):
    page, results = report
    found = tables(page.find(".//section[@id='results']"))
    for metrics, rows in zip(METRICS, found.values(), strict=True):
        seen = []
        for row in rows[2:]:
            if len(row) == 14:
                kind = row[0].partition(" (")[0].upper().replace("MEAN OF CLASSES", "mean")
            values = results[row[-13]]["values"][kind]
            seen.append((kind, row[-13]))
            expected = [values[horizon][metric] for metric in metrics for horizon in HORIZONS]
            shown = [np.nan if cell == "–" else float(cell) for cell in row[-12:]]
            np.testing.assert_allclose(shown, [np.nan if value is None else value for value in expected], atol=5.01e-4)
        assert sorted(seen) == sorted((kind, name) for name in results for kind in results[name]["values"])


def test_areas_under_the_curves_are_the_map_of_metrics_json(report):
    page, results = report
    section = page.find(".//section[@id='precision-recall']")
    for kind, *areas in tables(section)["Areas under the curves"][1:]:
        values = results["predictions"]["values"][kind.upper()]
        assert areas == [f"{values[horizon]['mAP']:.4f}" for horizon in HORIZONS[:3]]


def test_bins_of_every_breakdown_add_up_to_the_metric_of_the_class(report):
    page, results = report
    found = tables(page.find(".//section[@id='breakdowns']"))
    assert len(found) == 8
    for caption, rows in found.items():
        metric = "minADE" if caption.startswith("minADE") else "miss_rate"
        for column in range(1, len(rows[0]), 2):
            bins = [(float(row[column].split(" ")[0]), int(row[column + 1])) for row in rows[1:] if row[column + 1] != "0"]
            total = sum(count for _, count in bins)
            expected = results["predictions"]["values"][rows[0][column].upper()]["8s"][metric]
            assert sum(value * count for value, count in bins) / total == pytest.approx(expected, abs=1e-3), caption


def test_calibration_counts_every_mode_of_objects_with_a_known_truth(report):
    page, results = report
    breakdowns = tables(page.find(".//section[@id='breakdowns']"))
    missed = next(rows for caption, rows in breakdowns.items() if caption.startswith("miss rate at 8 s by speed"))
    found = defaultdict(list)
    for right, kind, probability, frequency, modes, _ in tables(page.find(".//section[@id='calibration']"))["Calibration"][1:]:
        if probability != "all":
            found["hit" if "hit" in right else "nearest", kind].append((float(probability), float(frequency), int(modes)))
    for column in range(1, len(missed[0]), 2):
        kind = missed[0][column]
        known = sum(int(row[column + 1]) for row in missed[1:])
        probability, frequency, modes = np.array(found["hit", kind]).T
        assert modes.sum() == 6 * known
        assert (probability * modes).sum() == pytest.approx(known, abs=0.02 * known), "shares of an object sum to one"
        miss_rate = results["predictions"]["values"][kind.upper()]["8s"]["miss_rate"]
        assert (frequency * modes).sum() >= (1 - miss_rate) * known - 0.1
        probability, frequency, modes = np.array(found["nearest", kind]).T
        objects = modes.sum() / 6
        assert known <= objects <= results["predictions"]["objects"][kind.upper()]
        assert (frequency * modes).sum() == pytest.approx(objects, abs=0.02 * objects), "one mode of each is the nearest"


def test_lines_over_time_are_the_numbers_below_them(report):
    page, _ = report
    section = page.find(".//section[@id='time']")
    rows = {(row[0], row[1]): [float(cell) for cell in row[2:]] for row in tables(section)["Error over time [m]"][1:]}
    for figure in section.iter("figure"):
        kind = words(figure.find("figcaption"))
        lines = heights(figure)
        assert len(lines) == 4
        for name, line in lines.items():
            assert_shows(line, rows[kind, name])
        nearest, likeliest = (
            np.array(rows[kind, "predictions, nearest mode"]),
            np.array(rows[kind, "predictions, likeliest mode"]),
        )
        np.testing.assert_array_equal(nearest, rows[kind, "turn-rate fan"])
        assert (nearest <= likeliest).all()
        assert nearest[-1] < likeliest[-1]


def test_cards_are_in_the_order_of_their_errors_and_say_who_was_hit(report):
    page, _ = report
    errors = defaultdict(list)
    for card in page.iter("li"):
        if card.get("class") == "card":
            numbers = words(card.findall("p")[0])
            error = float(re.match(r"minADE ([\d.]+) m over 8 s", numbers).group(1))
            errors[card.get("data-kind"), card.get("data-bucket"), card.get("data-rank")].append(error)
            if error < 0.3:
                assert "missed" not in numbers
            if error > 30.0:
                assert ", hit" not in numbers
    for (kind, bucket, rank), found in errors.items():
        if rank != "worst":
            assert max(found) <= min(errors.get((kind, bucket, "worst"), [np.inf]))
        if rank == "best":
            assert max(found) <= min(errors.get((kind, bucket, "median"), [np.inf]))


def test_modes_and_truth_of_a_card_begin_at_its_object(report):
    page, _ = report
    for card in page.iter("li"):
        if card.get("class") == "card":
            picture = card.find("svg")
            starts = [
                path.get("d").partition("l")[0] for path in picture.iter("path") if path.get("class") in ("mode", "truth")
            ]
            assert set(starts) <= {"M0 0", ""}
            steps = [
                [abs(int(value)) for value in re.findall(r"-?\d+", path.get("d").partition("l")[2])]
                for path in picture.iter("path")
                if path.get("class") == "mode"
            ]
            assert max((max(step) for step in steps if step), default=0) < 60, "6 m in 0.1 s"


def test_lines_over_severity_are_the_measured_values(tmp_path):
    scenes = [tiny_scene(number) for number in range(4)]
    curves = measure(plan(tmp_path, "track-noise", severities=(1, 3, 5)), velocity, scenes, clean(scenes))
    section = ET.fromstring(f"<div>{robustness_section(curves).body}</div>")
    for figure, metric in zip(section.iter("figure"), ("minADE", "mAP"), strict=True):
        values = [curves["track-noise"][severity].values["mean"]["mean"][metric] for severity in (0, 1, 3, 5)]
        (line,) = heights(figure).values()
        assert_shows(line, values)
    assert tables(section)["What the severities are"][1][2:] == ["0.05", "0.2", "0.8"]
