"""Markup escapes whatever it is not told to trust."""

import xml.etree.ElementTree as ET

import pytest

from evaluation.report.chart import Series, category_axis, legend, line_chart, number_axis, round_step
from evaluation.report.markup import Html, number, table, tag, text

HOSTILE = "</script><img src=x onerror='alert(1)'>\"&"


def test_text_stays_text_everywhere():
    made = tag("p", HOSTILE, [HOSTILE, None, 3], title=HOSTILE)
    element = ET.fromstring(made)
    assert element.text == HOSTILE * 2 + "3"
    assert element.get("title") == HOSTILE
    assert list(element) == []


def test_markup_is_kept():
    assert tag("b", Html("<i>x</i>")) == "<b><i>x</i></b>"


@pytest.mark.parametrize(
    "char", ["\x00", "\x1b", "\u202e", "\u200b", "\ud800"], ids=["nul", "escape", "override", "zero", "surrogate"]
)
def test_characters_that_deceive_or_break_are_shown_as_such(char):
    assert text(f"a{char}b") == "a\ufffdb"


def test_attributes_have_html_names():
    made = tag("label", for_="a", aria_label="b", hidden=True, class_=None, open=False)
    assert made == '<label for="a" aria-label="b" hidden="hidden"></label>'


def test_void_elements_close_themselves():
    assert tag("br") == "<br/>"


def test_a_table_names_its_rows_and_columns():
    element = ET.fromstring(table("what", ["a", "b"], [["r", 1], ["s", 2]]))
    assert [cell.get("scope") for cell in element.iter("th")] == ["col", "col", "row", "row"]
    assert [cell.text for cell in element.iter("td")] == ["1", "2"]


def test_numbers_that_are_not_there_are_dashes():
    assert [number(value, 2) for value in (1.005, None, float("nan"))] == ["1.00", "–", "–"]


@pytest.mark.parametrize(("least", "step"), [(0.13, 0.2), (1.0, 1.0), (2.1, 5.0), (60.0, 100.0), (0.02, 0.02)])
def test_ticks_stand_at_round_numbers(least, step):
    assert round_step(least) == pytest.approx(step)


def test_an_axis_holds_its_values():
    axis = number_axis("m", [0.3, 7.4, None, float("nan")])
    assert (axis.low, axis.high) == (0.0, 8.0)
    assert [name for _, name in axis.ticks] == ["0", "2", "4", "6", "8"]
    assert number_axis("m", []).high > 0


def test_a_gap_in_a_series_interrupts_its_line_and_whiskers_are_drawn():
    series = Series(
        name=HOSTILE, x=[0, 1, 2, 3], y=[1, None, 2, 3], color="#000000", marker="circle", half_width=[0.5, None, None, 1]
    )
    element = ET.fromstring(line_chart("t", category_axis("x", list("abcd")), number_axis("y", [0, 4]), [series]))
    paths = {path.get("class"): path.get("d") for path in element.iter("path")}
    assert paths["line"].count("M") == 2
    assert paths["whisker"].count("M") == 2
    assert paths["marker"].count("M") == 3
    ET.fromstring(legend([series]))


def test_points_without_an_order_are_not_joined():
    series = Series(name="a", x=[0, 1], y=[1, 2], color="#000000", marker="square", connected=False)
    element = ET.fromstring(line_chart("t", category_axis("x", ["a", "b"]), number_axis("y", [0, 4]), [series]))
    assert "line" not in {path.get("class") for path in element.iter("path")}


def test_a_whisker_reaches_as_far_up_as_down():
    unit = number_axis("x", [0.0, 1.0]), number_axis("y", [0.0, 1.0])
    chart = line_chart("t", *unit, [Series(name="a", x=[0.5], y=[0.5], color="#000000", half_width=[0.25])])
    data = next(path.get("d") for path in ET.fromstring(chart).iter("path") if path.get("class") == "whisker")
    low, high = (float(point.split(" ")[1]) for point in data[1:].split("L"))
    assert low - high == pytest.approx(0.5 * (250 - 12 - 46), abs=0.2)
