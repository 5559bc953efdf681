"""One scene as SVG, around a predicted agent that looks up: map, signals, boxes, histories, the truth and the modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.plots import track_color
from evaluation.report.labels import label_spots
from evaluation.report.markup import Html, tag
from evaluation.report.simplify import Box, clip_runs, simplify
from evaluation.signals import SignalMeaning, signals_at
from limtr.scene import Scene

Float = npt.NDArray[np.float64]

MARGIN_M = 8.0
SMALLEST_VIEW_M = 40.0
LARGEST_VIEW_M = 220.0
UNITS_PER_M = 10
"""The picture counts in decimetres, so that whole numbers are fine enough."""
TOLERANCE_M = 0.12
MAP_KINDS: dict[str, frozenset[int]] = {
    "driveway": frozenset({20}),
    "crosswalk": frozenset({18, 19}),
    "lane": frozenset({1, 2, 3}),
    "roadline": frozenset(range(6, 14)),
    "edge": frozenset({15, 16}),
}
"""Class in the style sheet and MTR's polyline types that it draws, from below to above."""
_CLOSED = ("driveway", "crosswalk")
_STOP_SIGN = 17
_SIGNAL_SHAPES = {
    SignalMeaning.STOP: "m-8 -8h16v16h-16z",
    SignalMeaning.CAUTION: "m0 -11l10 17h-20z",
    SignalMeaning.GO: "m-9 0a9 9 0 1 0 18 0a9 9 0 1 0 -18 0z",
    SignalMeaning.UNKNOWN: "m0 -8l8 8l-8 8l-8 -8z",
}


@dataclass(frozen=True)
class View:
    """From the scene frame to the picture: the agent's heading points up."""

    center_m: Float
    """(2,) the agent in the scene frame."""
    heading_rad: float

    def units(self, xy_m: npt.NDArray[np.floating]) -> Float:
        """Scene positions (..., 2) as picture positions (right, down)."""
        offset = np.asarray(xy_m, dtype=np.float64) - self.center_m
        cos, sin = np.cos(self.heading_rad), np.sin(self.heading_rad)
        ahead, left = cos * offset[..., 0] + sin * offset[..., 1], cos * offset[..., 1] - sin * offset[..., 0]
        return np.stack([-left, -ahead], axis=-1) * UNITS_PER_M


def scene_svg(scene: Scene, row: int, modes_m: Float, probability: Float, label: str) -> Html:
    """The picture of one predicted agent in its scene.

    Args:
        scene: with or without a future.
        row: track of the agent, valid at the current step.
        modes_m: (K, H, 2) predicted paths in the scene frame, the current position not among them.
        probability: (K,) of the modes.
        label: what screen readers say.
    """
    now = scene.current_step
    state = scene.track_states[row, now].astype(np.float64)
    view = View(state[:2], float(state[6]))
    own = scene.track_states[row, :, :2][scene.track_valid[row]]
    box = _view_box(np.concatenate([view.units(own), view.units(modes_m).reshape(-1, 2)]))
    size = box[2]
    parts = [
        *_map(scene, view, box),
        *_others(scene, row, view, box),
        *_signals(scene, view, box),
        *_agent(scene, row, view),
        *_modes(scene, row, view, modes_m, probability, size),
        *_truth(scene, row, view, size),
        _labels(view, modes_m, probability, box),
        _scale_bar(box),
    ]
    shown = " ".join(str(round(value)) for value in box)
    return tag("svg", *parts, viewBox=shown, role="img", aria_label=label, class_="scene")


def _view_box(points: Float) -> Box:
    """Left, top, width and height of a square around points (n, 2)."""
    low, high = points.min(axis=0), points.max(axis=0)
    side = max(float((high - low).max()) + 2 * MARGIN_M * UNITS_PER_M, SMALLEST_VIEW_M * UNITS_PER_M)
    side = min(side, LARGEST_VIEW_M * UNITS_PER_M)
    middle = (low + high) / 2
    return float(middle[0] - side / 2), float(middle[1] - side / 2), side, side


def path_data(runs: Sequence[Float], *, closed: bool = False) -> str:
    """Polylines (n, 2) in whole units as SVG path data; steps are relative, which is shorter."""
    parts = []
    for run in runs:
        points = np.round(run).astype(np.int64)
        steps = np.diff(points, axis=0)
        steps = steps[(steps != 0).any(axis=1)]
        if len(steps) == 0:
            continue
        words = " ".join(f"{x} {y}" for x, y in steps.tolist())
        parts.append(f"M{points[0, 0]} {points[0, 1]}l{words}{'z' if closed else ''}")
    return "".join(parts)


def _map(scene: Scene, view: View, box: Box) -> list[Html]:
    stops = np.cumsum(scene.feature_length)
    starts = stops - scene.feature_length
    units = view.units(scene.map_points_m[:, :2])
    found: dict[str, list[Float]] = {name: [] for name in MAP_KINDS}
    parts = []
    for kind, start, stop in zip(scene.feature_type.tolist(), starts.tolist(), stops.tolist(), strict=True):
        name = next((name for name, kinds in MAP_KINDS.items() if kind in kinds), None)
        if name is not None:
            closed = name in _CLOSED
            runs = clip_runs(units[start:stop], box, whole=closed)
            found[name] += [simplify(run, TOLERANCE_M * UNITS_PER_M) for run in runs]
        elif kind == _STOP_SIGN and stop > start and clip_runs(units[start : start + 1], box, whole=True):
            parts.append(
                tag(
                    "path",
                    d="M-5 -12h10l7 7v10l-7 7h-10l-7 -7v-10z",
                    transform=_placed(units[start], box[2]),
                    class_="stopsign",
                )
            )
    drawn = [(name, path_data(runs, closed=name in _CLOSED)) for name, runs in found.items()]
    return [tag("path", d=data, class_=name) for name, data in drawn if data] + parts


def _placed(at: Float, size: float) -> str:
    """Where a mark stands, and how big it is: the same share of the picture whatever that shows."""
    x, y = np.round(at).astype(int).tolist()
    return f"translate({x} {y}) scale({size / 620:.2f})"


def _box_path(state: Float, view: View) -> str:
    length, width, heading = state[3], state[4], state[6]
    unit = np.array([[0.5, 0.5], [0.5, -0.5], [-0.5, -0.5], [-0.5, 0.5]]) * (length, width)
    turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
    nose = np.array([[0.5 * length, 0.0], [0.0, 0.0]]) @ turn + state[:2]
    return path_data([view.units(unit @ turn + state[:2])], closed=True) + path_data([view.units(nose)])


def _history(scene: Scene, row: int, view: View) -> Float:
    now = scene.current_step
    return view.units(scene.track_states[row, : now + 1, :2][scene.track_valid[row, : now + 1]])


def _others(scene: Scene, row: int, view: View, box: Box) -> list[Html]:
    now = scene.current_step
    boxes, paths, recorder = [], [], ""
    for other in np.flatnonzero(scene.track_valid[:, now]).tolist():
        state = scene.track_states[other, now].astype(np.float64)
        if other == row or not clip_runs(view.units(state[None, :2]), box, whole=True):
            continue
        boxes.append(_box_path(state, view))
        paths.append(simplify(_history(scene, other, view), TOLERANCE_M * UNITS_PER_M))
        recorder = boxes[-1] if other == scene.sdc_track else recorder
    return [
        tag("path", d=path_data(paths), class_="past"),
        tag("path", d="".join(boxes), class_="other"),
        tag("path", d=recorder, class_="recorder") if recorder else Html(""),
    ]


def _signals(scene: Scene, view: View, box: Box) -> list[Html]:
    parts = []
    for stop_m, meaning in signals_at(scene, scene.current_step):
        at = view.units(stop_m[:2])
        if clip_runs(at[None], box, whole=True):
            mark = tag("title", f"signal: {meaning.value}")
            shape, words = f"M0 0{_SIGNAL_SHAPES[meaning]}", f"signal {meaning.value}"
            parts.append(tag("path", mark, d=shape, transform=_placed(at, box[2]), class_=words))
    return parts


def _agent(scene: Scene, row: int, view: View) -> list[Html]:
    state = scene.track_states[row, scene.current_step].astype(np.float64)
    return [
        tag("path", d=path_data([_history(scene, row, view)]), stroke=track_color(scene, row), class_="own past"),
        tag("path", d=_box_path(state, view), fill=track_color(scene, row), class_="agent"),
    ]


def _truth(scene: Scene, row: int, view: View, size: float) -> list[Html]:
    now = scene.current_step
    future = scene.track_states[row, now + 1 :, :2][scene.track_valid[row, now + 1 :]]
    if len(future) == 0:
        return []
    path = view.units(np.concatenate([scene.track_states[row, now, None, :2], future]))
    line = path_data([simplify(path, TOLERANCE_M * UNITS_PER_M)])
    return [tag("path", d=line, class_="truth halo"), tag("path", d=line, class_="truth"),
            tag("path", d="M-7 -7h14v14h-14z", transform=_placed(path[-1], size), class_="truthend")]  # fmt: skip


def _modes(scene: Scene, row: int, view: View, modes_m: Float, probability: Float, size: float) -> list[Html]:
    start = scene.track_states[row, scene.current_step, :2].astype(np.float64)
    best = max(float(probability.max(initial=0.0)), 1e-12)
    color = track_color(scene, row)
    lines = []
    for index in np.argsort(probability, kind="stable").tolist():
        share = float(probability[index]) / best
        path = view.units(np.concatenate([start[None], modes_m[index]]))
        x, y = np.round(path[-1]).astype(int).tolist()
        data = path_data([path])
        lines.append(
            tag("path", tag("title", f"mode {index + 1}: p = {probability[index]:.2f}"), d=data, stroke=color,
                stroke_width=f"{1.2 + 2.4 * share:.1f}", stroke_opacity=f"{0.45 + 0.55 * share:.2f}", class_="mode")
        )  # fmt: skip
        lines.append(tag("circle", cx=x, cy=y, r=round(size / 110), fill=color, class_="modeend"))
    return lines


def _labels(view: View, modes_m: Float, probability: Float, box: Box) -> Html:
    """The probability of each mode at its end."""
    left, _, size, _ = box
    order = np.argsort(-probability, kind="stable")
    ends = view.units(modes_m[order, -1]) if len(modes_m) else np.zeros((0, 2))
    font = round(size / 26)
    words = [f"{value:.2f}" for value in probability[order].tolist()]
    spots = label_spots(ends, 2.5 * font, font, right=left + size)
    labels = [tag("text", word, x=round(x), y=round(y)) for word, (x, y) in zip(words, spots, strict=True)]
    return tag("g", *labels, class_="p", font_size=font, stroke_width=round(size / 120))


def _scale_bar(box: Box) -> Html:
    left, top, size, _ = box
    length_m = 10 if size < 900 else 20
    x, y = round(left + size * 0.04), round(top + size * 0.96)
    bar = tag("path", d=f"M{x} {y}h{length_m * UNITS_PER_M}", class_="bar")
    return tag("g", bar, tag("text", f"{length_m} m", x=x, y=y - round(size / 80), font_size=round(size / 28)))
