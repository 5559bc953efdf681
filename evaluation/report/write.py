"""report.html of an evaluation: what is collected while scoring becomes one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.metric_config import MotionMetricsConfig
from evaluation.report.chart_sections import (
    breakdown_section,
    calibration_section,
    precision_recall_section,
    time_section,
    training_section,
)
from evaluation.report.gallery import MOST_BYTES, MOST_CARDS, Card, gallery_section, make_card
from evaluation.report.gallery_choice import choose
from evaluation.report.markup import Html, tag
from evaluation.report.object_table import ObjectCollector, ObjectTable
from evaluation.report.page import Section, render_page
from evaluation.report.results_section import results_section
from evaluation.report.robustness_section import robustness_section
from evaluation.report.time_errors import TimeErrors
from evaluation.report.training_curves import TrainingCurves
from evaluation.robustness import Curves
from evaluation.scenario_predictions import ScenarioPredictions
from evaluation.scoring import EvaluationResult
from limtr.files import write_bytes
from limtr.prediction import ScenePrediction
from limtr.progress import progress
from limtr.scene import Scene

Lookup = Callable[[Sequence[str]], Mapping[str, tuple[Scene, ScenePrediction]]]
"""Scenes and predictions of some scenarios, by id."""


class ReportCollector:
    """Watches the scoring of a predictor and of its baselines, and keeps what the report needs."""

    def __init__(self, main: str, others: Sequence[str], config: MotionMetricsConfig) -> None:
        self.main = main
        self.config = config
        self.errors = {name: TimeErrors() for name in (main, *others)}
        self._objects = ObjectCollector(config)

    def watch(self, name: str, scene: Scene, paired: ScenarioPredictions) -> None:
        """Take what is scored of one scene; predictors that the report does not show are ignored."""
        if name in self.errors:
            self.errors[name].add(paired, self.config)
        if name == self.main:
            self._objects.add(scene, paired)

    def objects(self) -> ObjectTable:
        """Everything that `main` predicted."""
        return self._objects.table()


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What the report tells beside what was collected."""

    title: str
    facts: Mapping[str, str]
    """Name and value of what stands under the title."""
    notes: Sequence[str] = ()
    """Sentences that a reader must not miss."""
    results: Mapping[str, EvaluationResult]
    """By predictor, the judged one first."""
    training: TrainingCurves | None
    why_no_training: str = ""
    robustness: Curves = field(default_factory=dict)
    """Results on degraded inputs, if there are any."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """Plain values, shown as JSON."""


def write_html_report(path: Path, content: ReportContent, collector: ReportCollector, lookup: Lookup) -> int:
    """Write the report; returns its size in bytes.

    Args:
        path: of the file.
        content: what it tells.
        collector: that watched the scoring.
        lookup: asked once for the scenes of the gallery.

    Raises:
        ValueError: nothing was predicted.
    """
    objects = collector.objects()
    cards, left_out = make_cards(objects, collector.config, lookup)
    page = render(content, collector, objects, cards, left_out).encode()
    write_bytes(path, page)
    return len(page)


def make_cards(objects: ObjectTable, config: MotionMetricsConfig, lookup: Lookup) -> tuple[list[Card], int]:
    """The cards of the gallery, and how many had to be left out for the size of the file."""
    last = len(config.horizons) - 1
    choices = choose(objects, last, MOST_CARDS)
    found = lookup(sorted({str(objects.scenario_id[choice.row]) for choice in choices}))
    cards: list[Card] = []
    size = 0
    with progress("drawing the gallery", len(choices), "objects") as advance:
        for choice in choices:
            scene, prediction = found[str(objects.scenario_id[choice.row])]
            card = make_card(scene, prediction, objects, choice, (last, config.horizons[last]))
            size += len(card.markup.encode())
            if size <= MOST_BYTES:
                cards.append(card)
            advance()
    return cards, len(choices) - len(cards)


def render(
    content: ReportContent, collector: ReportCollector, objects: ObjectTable, cards: Sequence[Card], left_out: int
) -> str:
    """The page as text."""
    main, config = collector.main, collector.config
    sections = [
        results_section(content.results),
        gallery_section(cards, len(objects), left_out, main),
        time_section(objects, collector.errors, main),
        breakdown_section(objects, config, main),
        *([robustness_section(content.robustness)] if content.robustness else []),
        precision_recall_section(objects, config, main),
        calibration_section(objects, config),
        training_section(content.training, content.why_no_training),
        configuration_section(content.configuration),
    ]
    return render_page(content.title, _head(content), sections)


def _head(content: ReportContent) -> Html:
    facts = [part for name, value in content.facts.items() for part in (tag("dt", name), tag("dd", value))]
    return tag("div", tag("dl", *facts, class_="facts"), *(tag("p", note, class_="note") for note in content.notes))


def configuration_section(configuration: Mapping[str, Any]) -> Section:
    """Everything that is needed to get these numbers again."""
    shown = json.dumps(configuration, indent=2, sort_keys=True, ensure_ascii=False)
    note = tag("p", "Options, model, training recipe, versions and fingerprints, as resolved for this evaluation.")
    pre = tag("pre", shown, tabindex="0", aria_label="Configuration as JSON")
    return Section("configuration", "Configuration", tag("div", note, pre))
