"""The gallery: a card per chosen object, with filters that the script brings to life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.group_scores import DISTANCES
from evaluation.metric_config import Horizon
from evaluation.report.breakdowns import BUCKETS_IN_ORDER, bucket_label
from evaluation.report.calibration import probabilities
from evaluation.report.gallery_choice import RANKS, Choice
from evaluation.report.lidar_svg import lidar_svg
from evaluation.report.markup import Html, join, tag
from evaluation.report.object_table import ObjectTable
from evaluation.report.page import Section
from evaluation.report.scene_svg import scene_svg
from limtr.prediction import ScenePrediction
from limtr.scene import PREDICTED_TYPES, Scene

MOST_CARDS = 63
MOST_BYTES = 3_500_000
"""Of all cards together: the report stays below 5 MB, whatever the scenes hold."""


@dataclass(frozen=True)
class Card:
    """A finished card."""

    choice: Choice
    markup: Html


def make_card(
    scene: Scene, prediction: ScenePrediction, table: ObjectTable, choice: Choice, horizon: tuple[int, Horizon]
) -> Card:
    """Draw one object.

    Args:
        scene: that holds it.
        prediction: of the scene, in world coordinates.
        table: that `choice` was made from.
        choice: the object.
        horizon: index and horizon of the errors that are told.
    """
    row = choice.row
    object_id = int(table.object_id[row])
    track = int(np.flatnonzero(scene.track_id == object_id)[0])
    at = int(np.flatnonzero(prediction.object_id == object_id)[0])
    modes = (prediction.xy_m[at] - scene.origin_m[:2])[: table.scores.shape[1]]
    shares = probabilities(table.scores[row : row + 1], table.has_mode[row : row + 1])[0, : len(modes)]
    kind, bucket = choice.kind.name.lower(), bucket_label(choice.bucket)
    title = f"{kind}, {bucket}: {choice.rank} of {choice.num_alike}"
    label = f"{title}. Map, traffic signals, other objects, true future and {len(modes)} predicted modes, heading up."
    return Card(
        choice,
        tag(
            "li",
            tag("h3", title),
            scene_svg(scene, track, modes, shares, label),
            tag("p", _numbers(table, row, horizon)),
            lidar_svg(scene, track) or tag("p", "No LiDAR points in its box."),
            tag("p", f"scenario {table.scenario_id[row]}, object {object_id}"),
            class_="card",
            data_kind=kind,
            data_bucket=bucket,
            data_rank=choice.rank,
        ),
    )


def _numbers(table: ObjectTable, row: int, horizon: tuple[int, Horizon]) -> str:
    index, about = horizon
    values = dict(zip(DISTANCES, table.distances[row, index].tolist(), strict=True))
    hit = {0.0: "hit", 1.0: "missed"}.get(values["miss_rate"], f"truth unknown at {about.seconds:g} s")
    words = [f"minADE {values['minADE']:.2f} m over {about.seconds:g} s, {hit}", f"{table.speed_mps[row]:.1f} m/s now"]
    if not np.isnan(table.distance_m[row]):
        words.append(f"{table.distance_m[row]:.0f} m from the recording vehicle")
    return ", ".join(words)


def gallery_section(cards: Sequence[Card], num_objects: int, num_left_out: int, main: str) -> Section:
    """Cards with a key and filters.

    Args:
        cards: in order.
        num_objects: in the table that they were chosen from.
        num_left_out: chosen, but not shown, because the file would grow too big.
        main: who predicted.
    """
    note = (
        f"The best, the median and the worst object of each class and trajectory bucket by the minADE of {main}: "
        f"{len(cards)} of {num_objects} objects. The object's heading points up. "
        "Numbers are the probabilities of the modes (shares of the first six scores). Below: the LiDAR points in its box, "
        "which is outlined, from above and from the right."
    )
    left = (
        [tag("p", f"{num_left_out} more were left out, so that the file stays small.", class_="note")] if num_left_out else []
    )
    body = [tag("p", note), *left, _key(), _filters(cards), tag("ul", *(card.markup for card in cards), class_="gallery")]
    return Section("gallery", "Gallery", join(body))


def _filters(cards: Sequence[Card]) -> Html:
    kinds = [kind.name.lower() for kind in PREDICTED_TYPES if any(card.choice.kind == kind for card in cards)]
    buckets = [bucket_label(bucket) for bucket in BUCKETS_IN_ORDER if any(card.choice.bucket == bucket for card in cards)]
    return tag(
        "form",
        _select("kind", "Class", kinds),
        _select("bucket", "Trajectory", buckets),
        _select("rank", "Rank", RANKS),
        tag("button", "Show all", type="reset"),
        tag("output", f"{len(cards)} shown", id="shown", role="status", aria_live="polite"),
        id="filters",
        hidden=True,
        aria_label="Filter the gallery",
    )


def _select(name: str, label: str, values: Sequence[str]) -> Html:
    options = [tag("option", "all", value=""), *(tag("option", value, value=value) for value in values)]
    return tag("label", label, tag("select", *options, name=name, id=f"filter-{name}"), for_=f"filter-{name}")


_KEY = (
    ("true future", (("path", {"d": "M2 9h22", "class_": "truth"}), ("path", {"d": "M22 6h6v6h-6z", "class_": "truthend"}))),
    ("predicted mode", (("path", {"d": "M2 9h22", "class_": "mode", "stroke": "#0072B2", "stroke_width": 3}),
                        ("circle", {"cx": 25, "cy": 9, "r": 3, "class_": "modeend", "fill": "#0072B2"}))),
    ("its last second", (("path", {"d": "M2 9h26", "class_": "own past", "stroke": "#0072B2"}),)),
    ("other object", (("path", {"d": "M6 5h18v8h-18z", "class_": "other"}),)),
    ("recording vehicle", (("path", {"d": "M6 5h18v8h-18z", "class_": "other"}),
                           ("path", {"d": "M6 5h18v8h-18z", "class_": "recorder"}))),
    ("signal: stop", (("path", {"d": "M10 4h10v10h-10z", "class_": "signal stop"}),)),
    ("caution", (("path", {"d": "M15 3l6 11h-12z", "class_": "signal caution"}),)),
    ("go", (("path", {"d": "M10 9a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z", "class_": "signal go"}),)),
    ("unknown", (("path", {"d": "M15 4l5 5l-5 5l-5 -5z", "class_": "signal unknown"}),)),
    ("stop sign", (("path", {"d": "M12 4h6l3 3v5l-3 3h-6l-3 -3v-5z", "class_": "stopsign"}),)),
    ("road edge", (("path", {"d": "M2 9h26", "class_": "edge"}),)),
    ("lane", (("path", {"d": "M2 9h26", "class_": "lane"}),)),
    ("crosswalk, speed bump", (("path", {"d": "M4 4h22v10h-22z", "class_": "crosswalk"}),)),
)  # fmt: skip


def _key() -> Html:
    """What the marks of the pictures are."""
    items = []
    for name, shapes in _KEY:
        drawn = [tag(shape, **attributes) for shape, attributes in shapes]
        items.append(tag("li", tag("svg", *drawn, viewBox="0 0 30 18", class_="scene", aria_hidden="true"), name))
    return tag("ul", *items, class_="key")
