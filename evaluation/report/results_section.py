"""The tables of the report: every class, horizon and metric, the model beside its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.report.markup import Html, join, number, tag
from evaluation.report.page import Section
from evaluation.scoring import EvaluationResult
from evaluation.table import DIGITS, HIGHER_IS_BETTER, TITLES

_TABLES = (("minADE", "miss_rate", "mAP"), ("minFDE", "overlap_rate", "soft_mAP"))

METRIC_LABELS = {name: title.replace("DE m", "DE [m]") for name, title in TITLES.items()}


def results_section(results: Mapping[str, EvaluationResult]) -> Section:
    """Two tables of three metrics: a block per class, a row per predictor, a column per horizon."""
    note = tag(
        "p",
        "Waymo's motion metrics. A star marks the best predictors of a block, unless all are equal. “Mean” is over the three "
        "horizons; “mean of classes” is unweighted, as on the leaderboard. A dash: nothing could be measured. Lower is "
        "better, except for mAP and soft mAP.",
    )
    first = next(iter(results.values()))
    missing = [kind.lower() for kind in first.counts if kind not in first.values]
    absent = tag("p", f"Not in the data, so not in the tables and not in the means: {', '.join(missing)}.") if missing else None
    return Section(
        "results",
        "Results",
        join([note, absent, tag("div", *(_table(results, metrics) for metrics in _TABLES), class_="tables")]),
    )


def _table(results: Mapping[str, EvaluationResult], metrics: Sequence[str]) -> Html:
    first = next(iter(results.values()))
    horizons = list(next(iter(first.values.values()), {}))
    caption = ", ".join(METRIC_LABELS[name] for name in metrics)
    groups = [tag("th", METRIC_LABELS[name], colspan=len(horizons), scope="colgroup", class_="group") for name in metrics]
    names = [tag("th", horizon, scope="col") for _ in metrics for horizon in horizons]
    head = tag(
        "thead",
        tag(
            "tr",
            tag("th", "class", rowspan=2, scope="col"),
            tag("th", "predictor", rowspan=2, scope="col", class_="left"),
            *groups,
        ),
        tag("tr", *names),
    )
    blocks = [_block(results, kind, metrics, horizons, first.counts.get(kind)) for kind in first.values]
    inner = tag("table", tag("caption", caption), head, *blocks, class_="results")
    return tag("div", inner, class_="wide", tabindex="0", role="region", aria_label=f"Table: {caption}")


def _block(
    results: Mapping[str, EvaluationResult], kind: str, metrics: Sequence[str], horizons: Sequence[str], count: int | None
) -> Html:
    label = "mean of classes" if kind == "mean" else f"{kind.lower()} ({count})"
    best = {
        (metric, horizon): _best(
            [result.values.get(kind, {}).get(horizon, {}).get(metric) for result in results.values()], metric
        )
        for metric in metrics
        for horizon in horizons
    }
    rows = []
    for index, (predictor, result) in enumerate(results.items()):
        cells: list[Html] = []
        for metric in metrics:
            for horizon in horizons:
                value = result.values.get(kind, {}).get(horizon, {}).get(metric)
                shown = number(value, DIGITS[metric])
                marked = value is not None and value == best[metric, horizon]
                cells.append(tag("td", tag("b", shown) if marked else shown, class_="mean" if horizon == "mean" else None))
        lead = [tag("th", label, rowspan=len(results), scope="rowgroup", class_="kind")] if index == 0 else []
        rows.append(tag("tr", *lead, tag("th", predictor, scope="row"), *cells, class_="first" if index == 0 else None))
    return tag("tbody", *rows)


def _best(values: Sequence[float | None], metric: str) -> float | None:
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return None
    return max(known) if metric in HIGHER_IS_BETTER else min(known)
