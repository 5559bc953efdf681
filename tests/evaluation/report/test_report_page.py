"""report.html as a file: whole, well-formed, escaped, alone."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from evaluation.baselines import turn_rate_fan
from evaluation.evaluate import EvaluateConfig, run
from evaluation.predictions import write_predictions
from evaluation.report import write as report_writer
from evaluation.report.results_section import _best
from preprocessing.shards import SceneSource
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset

HOSTILE_ID = "<script>alert('x')</script>&\"\u202e"
SECTIONS = ["results", "gallery", "time", "breakdowns", "precision-recall", "calibration", "training", "configuration"]


def page_of(path):
    content = path.read_text(encoding="utf-8")
    doctype, _, rest = content.partition("\n")
    assert doctype == "<!DOCTYPE html>"
    return content, ET.fromstring(rest)


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory):
    """Of a file of predictions of scenes with LiDAR, one of which has a hostile id."""
    folder = tmp_path_factory.mktemp("hostile")
    scenes = [tiny_scene(seed) for seed in range(6)]
    scenes[2] = replace(scenes[2], scenario_id=HOSTILE_ID)
    data = write_dataset(folder / "data", {"validation": scenes})
    write_predictions(folder / "p.parquet", [turn_rate_fan(scene) for scene in scenes], creator="<b>someone</b>")
    assert run(EvaluateConfig(predictions=folder / "p.parquet", data=data, out=folder / "out", report=True)) == 0
    return folder / "out" / "report.html"


def test_every_section_is_there_and_linked(hostile_report):
    _, page = page_of(hostile_report)
    assert [section.get("id") for section in page.iter("section")] == SECTIONS
    links = [link.get("href") for link in page.find(".//nav").iter("a")]
    assert links == [f"#{name}" for name in SECTIONS]
    assert len({item.get("id") for item in page.iter() if item.get("id")}) == len([1 for item in page.iter() if item.get("id")])


def test_the_table_holds_what_metrics_json_says(hostile_report):
    _, page = page_of(hostile_report)
    results = json.loads(hostile_report.with_name("metrics.json").read_text())["results"]
    cells = ["".join(cell.itertext()) for cell in page.find(".//section[@id='results']").iter("td")]
    assert f"{results['predictions']['values']['VEHICLE']['8s']['minADE']:.3f}" in cells
    assert f"{results['constant velocity']['values']['mean']['mean']['mAP']:.4f}" in cells
    assert len(cells) == 2 * 4 * 3 * 3 * 4  # tables, classes, predictors, metrics, horizons with their mean


def test_ids_are_text_and_nothing_else(hostile_report):
    content, page = page_of(hostile_report)
    assert len(list(page.iter("script"))) == 1
    assert len(list(page.iter("b"))) == content.count("<b>")
    assert "<b>someone" not in content
    assert "\u202e" not in content
    shown = ["".join(item.itertext()) for item in page.iter("p")]
    assert any("scenario <script>alert('x')</script>&\"\ufffd, object" in words for words in shown)


def test_nothing_is_asked_of_the_network(hostile_report):
    content, page = page_of(hostile_report)
    assert {item.tag for item in page.iter()}.isdisjoint({"link", "iframe", "img", "image", "object", "embed", "use", "base"})
    for item in page.iter():
        for name in ("src", "href", "xlink:href", "action", "style"):
            assert (item.get(name) or "#").startswith("#")
        assert not [name for name in item.attrib if name.startswith("on")]
    assert not re.search(r"https?:|//[a-z]|@import|url\(", content)
    policy = next(item.get("content") for item in page.iter("meta") if item.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_a_gallery_card_has_what_it_promises(hostile_report):
    _, page = page_of(hostile_report)
    cards = [item for item in page.iter("li") if item.get("class") == "card"]
    assert cards
    assert {card.get("data-rank") for card in cards} == {"best", "median", "worst"}
    assert {card.get("data-kind") for card in cards} == {"vehicle", "pedestrian", "cyclist"}
    for card in cards:
        assert card.find("svg").get("role") == "img"
        assert card.find("svg").get("aria-label").startswith(card.find("h3").text)
        assert [item.text for item in card.find("svg").iter("text")].count("0.40") == 1  # the fan's first mode


def test_controls_are_labelled_and_hidden_until_the_script_runs(hostile_report):
    _, page = page_of(hostile_report)
    form = page.find(".//form")
    assert form.get("hidden")
    labelled = {label.get("for") for label in form.iter("label")}
    assert {select.get("id") for select in form.iter("select")} == labelled
    assert len(labelled) == 3
    assert form.find("button").text == "Show all"
    assert page.get("lang") == "en"


def test_the_same_evaluation_gives_the_same_bytes(hostile_report, tmp_path):
    options = json.loads(hostile_report.with_name("report.json").read_text())["config"]
    again = hostile_report.parent
    before = hostile_report.read_bytes()
    assert run(EvaluateConfig(predictions=again.parent / "p.parquet", data=again.parent / "data", out=again, report=True)) == 0
    assert options["report"] is True
    assert hostile_report.read_bytes() == before


def test_a_model_has_its_configuration_in_the_report(model_folder, dataset, tmp_path, capsys):
    config = EvaluateConfig(checkpoint=model_folder, data=dataset, out=tmp_path, report=True, pictures=0, device="cpu")
    assert run(config) == 0
    assert "report.html" in capsys.readouterr().out
    _, page = page_of(tmp_path / "report.html")
    shown = json.loads(page.find(".//pre").text)
    assert shown["evaluation"]["bucketing"] == "2024"
    assert shown["model"]["model"]["view"]["num_polylines"] == 8
    assert shown["versions"]["torch"]
    assert "No training log" in "".join(page.find(".//section[@id='training']").itertext())


def test_scenes_without_targets_give_no_report_and_no_crash(tmp_path, capsys):
    scenes = [tiny_scene(1, num_targets=0, with_lidar=False)]
    data = write_dataset(tmp_path / "data", {"validation": scenes})
    write_predictions(tmp_path / "p.parquet", [turn_rate_fan(tiny_scene(1, num_targets=1, with_lidar=False))])
    config = EvaluateConfig(
        predictions=tmp_path / "p.parquet", data=data, out=tmp_path / "out", report=True, allow_missing=True
    )
    assert run(config) == 0
    assert not (tmp_path / "out" / "report.html").exists()
    assert "no report.html: no object" in capsys.readouterr().err


def test_a_gallery_too_big_is_cut_and_says_so(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(report_writer, "MOST_BYTES", 20_000)
    write_predictions(tmp_path / "p.parquet", [turn_rate_fan(scene) for scene in SceneSource(dataset, "validation")])
    assert run(EvaluateConfig(predictions=tmp_path / "p.parquet", data=dataset, out=tmp_path / "out", report=True)) == 0
    _, page = page_of(tmp_path / "out" / "report.html")
    assert sum(len(ET.tostring(item)) for item in page.iter("li") if item.get("class") == "card") < 21_000
    assert "left out, so that the file stays small" in "".join(page.find(".//section[@id='gallery']").itertext())


def test_what_is_not_in_the_data_is_absent_and_never_zero(tmp_path):
    """Without LiDAR, without a class and without a run."""
    scenes = [tiny_scene(seed, with_lidar=False) for seed in range(3)]
    scenes = [replace(scene, track_type=np.where(scene.track_type == 3, 1, scene.track_type)) for scene in scenes]
    data = write_dataset(tmp_path / "data", {"validation": scenes})
    write_predictions(tmp_path / "p.parquet", [turn_rate_fan(scene) for scene in scenes])
    assert run(EvaluateConfig(predictions=tmp_path / "p.parquet", data=data, out=tmp_path / "out", report=True)) == 0
    _, page = page_of(tmp_path / "out" / "report.html")
    results = page.find(".//section[@id='results']")
    assert not any("cyclist" in "".join(head.itertext()) for head in results.iter("th"))
    assert any("not in the means: cyclist." in "".join(part.itertext()) for part in results.iter("p"))
    breakdowns = page.find(".//section[@id='breakdowns']")
    assert not any("LiDAR" in title.text for title in breakdowns.iter("figcaption"))
    assert any("LiDAR points in its box now: not known" in "".join(line.itertext()) for line in breakdowns.iter("li"))
    assert all("No LiDAR points in its box." in "".join(card.itertext()) for card in page.iter("li") if card.get("data-rank"))
    assert "not known here" in "".join(page.find(".//section[@id='training']").itertext())


def test_the_best_of_equals_is_not_marked():
    assert _best([0.5, 0.5], "minADE") is None
    assert _best([0.5, None], "minADE") is None
    assert _best([0.5, 0.25, 0.25], "minADE") == 0.25
    assert _best([0.5, 0.25], "mAP") == 0.5
