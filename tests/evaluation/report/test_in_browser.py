"""report.html in a real browser: it renders, its filters work by keyboard, and nothing complains."""

import base64

import pytest

from evaluation.baselines import turn_rate_fan
from evaluation.evaluate import EvaluateConfig, run
from evaluation.predictions import write_predictions
from tests.browser import CHROMIUM, Browser
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (as root: apt-get install chromium)")

VISIBLE = "Array.from(document.querySelectorAll('.card')).filter(card => card.offsetParent !== null)"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    scenes = [tiny_scene(seed) for seed in range(8)]
    data = write_dataset(folder / "data", {"validation": scenes})
    write_predictions(folder / "p.parquet", [turn_rate_fan(scene) for scene in scenes])
    assert run(EvaluateConfig(predictions=folder / "p.parquet", data=data, out=folder / "out", report=True)) == 0
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@pytest.fixture
def page(browser, report):
    browser.complaints.clear()
    browser.requests.clear()
    browser.resize(1280, 800)
    browser.open(report)
    yield browser
    assert browser.complaints == []
    assert browser.requests == [report.as_uri()]


def test_it_renders_with_everything_in_sight(page):
    assert page.run("document.title").startswith("LiMTR evaluation")
    assert page.run(f"{VISIBLE}.length") == page.run("document.querySelectorAll('.card').length") > 5
    assert page.run("Array.from(document.querySelectorAll('svg.scene, svg.chart')).every(svg => svg.clientWidth > 20)")
    # The style sheet and the script carry hashes in the page's policy: both must have been taken.
    assert page.run("getComputedStyle(document.querySelector('nav')).position") == "sticky"
    assert not page.run("document.getElementById('filters').hidden")


@pytest.mark.parametrize("name", ["kind", "bucket", "rank"])
def test_filters_work_by_keyboard(page, name):
    whole = page.run(f"{VISIBLE}.length")
    page.run(f"document.getElementById('filter-{name}').focus()")
    page.press("ArrowDown")
    chosen = page.run(f"document.getElementById('filter-{name}').value")
    assert chosen
    shown = page.run(f"{VISIBLE}.map(card => card.getAttribute('data-{name}'))")
    assert set(shown) == {chosen}
    assert 0 < len(shown) < whole
    assert page.run("document.getElementById('shown').textContent") == f"{len(shown)} of {whole} shown"
    page.run("document.querySelector('#filters button').focus()")
    page.press("Enter")
    assert page.run(f"new Promise(done => setTimeout(() => done({VISIBLE}.length), 50))") == whole


def test_filters_work_together(page):
    page.run("document.getElementById('filter-kind').value = 'cyclist'")
    page.run("document.getElementById('filter-rank').value = 'worst'")
    page.run("document.getElementById('filters').dispatchEvent(new Event('change'))")
    pairs = page.run(f"{VISIBLE}.map(card => card.getAttribute('data-kind') + ' ' + card.getAttribute('data-rank'))")
    assert set(pairs) == {"cyclist worst"}


def test_the_focus_can_be_seen_and_goes_through_every_control(page):
    seen = []
    for _ in range(16):
        page.press("Tab")
        seen.append(page.run("document.activeElement.textContent.slice(0, 12) + document.activeElement.id"))
        style = page.run("getComputedStyle(document.activeElement).outlineStyle")
        assert style != "none", seen[-1]
    assert seen[0].startswith("Skip to the")
    assert any("filter-kind" in name for name in seen)


def test_details_open_by_keyboard(page):
    page.run("document.querySelector('summary').focus()")
    page.press("Enter")
    assert page.run("document.querySelector('details').open")


@pytest.mark.parametrize("width", [1280, 390], ids=["laptop", "narrow"])
def test_the_page_never_scrolls_sideways(page, width):
    page.resize(width, 800)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_without_javascript_everything_but_the_filters_is_there(page, report):
    page.open(report, scripts=False)
    page.requests.pop()
    assert page.run("document.getElementById('filters').offsetParent === null")
    assert page.run(f"{VISIBLE}.length") > 5


def test_it_prints_with_details_open_and_without_controls(page):
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.run("getComputedStyle(document.getElementById('filters')).display") == "none"
    page.call("Emulation.setEmulatedMedia", media="")
    printed = base64.b64decode(page.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert printed.startswith(b"%PDF")
    assert page.run("Array.from(document.querySelectorAll('details')).every(part => part.open)")
