"""Line charts as inline SVG: axes, series that differ in colour, marker and dash, and a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.report.markup import Html, tag

WIDTH, WIDE, HEIGHT = 360, 540, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 46
Marker = str
"""`circle`, `square`, `triangle`, `diamond` or empty."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line. Points whose y is None or NaN interrupt it."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: str
    marker: Marker = ""
    dash: str = ""
    """SVG dash pattern, such as `6 3`."""
    connected: bool = True
    """Whether the points are joined: not where neighbours have no order."""
    half_width: Sequence[float | None] | None = None
    """Half of the interval around each point, drawn as a whisker."""


@dataclass(frozen=True)
class Axis:
    """One axis: its label, its range and where it has ticks."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]


def number_axis(label: str, values: Sequence[float | None], *, from_zero: bool = True, most_ticks: int = 6) -> Axis:
    """An axis that holds all values, with ticks at round numbers."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    low = min(low, 0.0) if from_zero else low
    high = high if high > low else low + 1.0
    step = round_step((high - low) / most_ticks)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    ticks = tuple((index * step, f"{index * step:.6g}") for index in range(first, last + 1))
    return Axis(label, first * step, last * step, ticks)


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `least` (which is positive)."""
    power = 10.0 ** math.floor(math.log10(least))
    return next((factor * power for factor in (1.0, 2.0, 5.0) if factor * power >= least * (1 - 1e-9)), 10.0 * power)


def category_axis(label: str, names: Sequence[str]) -> Axis:
    """An axis of bins at 0, 1, 2, ..."""
    return Axis(label, -0.5, max(len(names), 1) - 0.5, tuple((float(index), name) for index, name in enumerate(names)))


def line_chart(title: str, x: Axis, y: Axis, series: Sequence[Series], *, width: int = WIDTH, diagonal: bool = False) -> Html:
    """A chart with its title, for a grid of charts; a legend comes beside them (`legend`).

    Args:
        title: shown above, and what screen readers say.
        x: horizontal axis.
        y: vertical axis.
        series: lines, drawn in order.
        width: `WIDTH` for three charts beside each other, `WIDE` for two.
        diagonal: draw the line y = x.
    """
    slanted = sum(len(name) + 2 for _, name in x.ticks) * 6.2 > width - _LEFT - _RIGHT
    bottom = _BOTTOM + (34 if slanted else 0)
    plot = _Plot(x, y, width, bottom)
    parts = [plot.grid(slanted)]
    if diagonal:
        ends = [plot.at(value, value) for value in (max(x.low, y.low), min(x.high, y.high))]
        parts.append(tag("path", d=_path([ends]), class_="diagonal"))
    parts += [plot.line(item) for item in series]
    spoken = f"{title}. Lines: {', '.join(item.name for item in series) or 'none'}."
    picture = tag(
        "svg", *parts, viewBox=f"0 0 {width} {HEIGHT + bottom - _BOTTOM}", role="img", aria_label=spoken, class_="chart"
    )
    return tag("figure", tag("figcaption", title), picture)


def legend(series: Sequence[Series]) -> Html:
    """What the lines of the charts above or below are."""
    items = []
    for item in series:
        sample = [
            tag("path", d="M1 7L33 7", stroke=item.color, stroke_width=2, stroke_dasharray=item.dash or None, fill="none")
        ]
        if item.marker:
            sample.append(tag("path", d=_marker(item.marker, 17, 7), fill=item.color))
        items.append(
            tag("li", tag("svg", *sample, viewBox="0 0 34 14", width=34, height=14, aria_hidden="true"), " ", item.name)
        )
    return tag("ul", *items, class_="legend")


@dataclass(frozen=True)
class _Plot:
    x: Axis
    y: Axis
    width: int
    bottom: int

    def at(self, x: float, y: float) -> tuple[float, float]:
        wide, high = self.width - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        return (
            _LEFT + wide * (x - self.x.low) / (self.x.high - self.x.low),
            _TOP + high * (1 - (y - self.y.low) / (self.y.high - self.y.low)),
        )

    def grid(self, slanted: bool) -> Html:
        left, base = self.at(self.x.low, self.y.low)
        right, top = self.at(self.x.high, self.y.high)
        parts = []
        for value, name in self.y.ticks:
            _, height = self.at(self.x.low, value)
            parts.append(tag("path", d=f"M{left:.1f} {height:.1f}H{right:.1f}", class_="grid"))
            parts.append(tag("text", name, x=left - 5, y=f"{height + 4:.1f}", text_anchor="end"))
        for value, name in self.x.ticks:
            across, _ = self.at(value, self.y.low)
            parts.append(tag("path", d=f"M{across:.1f} {base:.1f}v4", class_="axis"))
            turn = f"rotate(-38 {across:.1f} {base + 14:.1f})" if slanted else None
            parts.append(
                tag(
                    "text",
                    name,
                    x=f"{across:.1f}",
                    y=f"{base + 16:.1f}",
                    text_anchor="end" if slanted else "middle",
                    transform=turn,
                )
            )
        parts.append(tag("path", d=f"M{left:.1f} {top:.1f}V{base:.1f}H{right:.1f}", class_="axis"))
        middle = (top + base) / 2
        parts.append(
            tag("text", self.x.label, x=f"{(left + right) / 2:.1f}", y=HEIGHT + self.bottom - _BOTTOM - 6, text_anchor="middle",
                class_="label")
        )  # fmt: skip
        parts.append(
            tag("text", self.y.label, x=13, y=f"{middle:.1f}", text_anchor="middle", transform=f"rotate(-90 13 {middle:.1f})",
                class_="label")
        )  # fmt: skip
        return tag("g", *parts)

    def line(self, item: Series) -> Html:
        runs: list[list[tuple[float, float]]] = [[]]
        whiskers, markers = [], []
        halves = item.half_width or [None] * len(item.x)
        for x, y, half in zip(item.x, item.y, halves, strict=True):
            if y is None or not math.isfinite(y):
                runs.append([])
                continue
            across, height = self.at(x, min(max(y, self.y.low), self.y.high))
            runs[-1].append((across, height))
            if half is not None and math.isfinite(half):
                ends = [self.at(x, min(max(y + side * half, self.y.low), self.y.high)) for side in (-1, 1)]
                whiskers.append(ends)
            if item.marker:
                markers.append(_marker(item.marker, across, height))
        parts = []
        if item.connected:
            parts.append(tag("path", d=_path(runs), stroke=item.color, stroke_dasharray=item.dash or None, class_="line"))
        if whiskers:
            parts.append(tag("path", d=_path(whiskers), stroke=item.color, class_="whisker"))
        if markers:
            parts.append(tag("path", d="".join(markers), fill=item.color, class_="marker"))
        return tag("g", tag("title", item.name), *parts)


def _path(runs: Sequence[Sequence[tuple[float, float]]]) -> str:
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run) for run in runs if run)


def _marker(kind: Marker, x: float, y: float) -> str:
    start = f"M{x:.1f} {y:.1f}"
    shapes = {
        "circle": "m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0z",
        "square": "m-3 -3h6v6h-6z",
        "triangle": "m0 -4l4 7h-8z",
        "diamond": "m0 -4.4l3.6 4.4l-3.6 4.4l-3.6 -4.4z",
    }
    return start + shapes[kind]
