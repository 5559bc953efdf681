"""The table of results on screen."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from evaluation.accumulate import Values
from evaluation.metric_config import METRIC_NAMES
from evaluation.scoring import EvaluationResult

DIGITS = {"minADE": 3, "minFDE": 3, "miss_rate": 3, "overlap_rate": 3, "mAP": 4, "soft_mAP": 4}
HIGHER_IS_BETTER = ("mAP", "soft_mAP")
TITLES = {"minADE": "minADE m", "minFDE": "minFDE m", "miss_rate": "miss rate", "overlap_rate": "overlap rate",
          "mAP": "mAP", "soft_mAP": "soft mAP"}  # fmt: skip


def means_table(results: Mapping[str, EvaluationResult], title: str) -> Table:
    """Means over the three horizons: a block per class and one for the mean of classes, a row per predictor; best in bold.

    Args:
        results: by predictor; all on the same scenes.
        title: above the table.
    """
    table = _table(title, "class", "predictor")
    first = next(iter(results.values()))
    for kind in first.values:
        rows = {predictor: result.values[kind]["mean"] for predictor, result in results.items()}
        best = {name: _best(list(rows.values()), name) for name in METRIC_NAMES}
        label = "mean of classes" if kind == "mean" else f"{kind.lower()} ({first.counts[kind]})"
        for index, (predictor, values) in enumerate(rows.items()):
            cells = [_cell(values[name], name, bold=values[name] == best[name]) for name in METRIC_NAMES]
            table.add_row(label if index == 0 else "", predictor, *cells, end_section=index == len(rows) - 1)
    return table


def horizons_table(result: EvaluationResult, title: str) -> Table:
    """One predictor in detail: a block per class, a row per horizon."""
    table = _table(title, "class", "horizon")
    for kind, columns in result.values.items():
        horizons = [name for name in columns if name != "mean"]
        for name in horizons:
            cells = [_cell(columns[name][metric], metric, bold=False) for metric in METRIC_NAMES]
            label = "mean of classes" if kind == "mean" else kind.lower()
            table.add_row(label if name == horizons[0] else "", name, *cells, end_section=name == horizons[-1])
    return table


def print_results(results: Mapping[str, EvaluationResult], title: str) -> None:
    """Print the means of all predictors and the horizons of the first, as wide as needed where the output is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    name, first = next(iter(results.items()))
    console.print(horizons_table(first, f"{name} by horizon"))
    console.print(means_table(results, title))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for name in columns:
        table.add_column(name)
    for metric in METRIC_NAMES:
        table.add_column(TITLES[metric], justify="right")
    return table


def _best(rows: list[Values], name: str) -> float | None:
    known = [value for row in rows if (value := row[name]) is not None]
    if len(known) < 2:
        return None
    return max(known) if name in HIGHER_IS_BETTER else min(known)


def _cell(value: float | None, name: str, *, bold: bool) -> str:
    if value is None:
        return "-"
    text = f"{value:.{DIGITS[name]}f}"
    return f"[bold]{text}[/bold]" if bold else text
