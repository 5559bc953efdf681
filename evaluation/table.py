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


def results_table(results: Mapping[str, EvaluationResult], title: str) -> Table:
    """A block per class (and one for their mean), a row per predictor and horizon; the best mean of a block is bold.

    Args:
        results: by predictor; all on the same scenes.
        title: above the table.
    """
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in ("class", "predictor", "horizon"):
        table.add_column(name)
    for name in METRIC_NAMES:
        table.add_column(TITLES[name], justify="right")
    first = next(iter(results.values()))
    for kind in first.values:
        best = {name: _best([result.values[kind]["mean"] for result in results.values()], name) for name in METRIC_NAMES}
        label = "mean of classes" if kind == "mean" else f"{kind.lower()} ({first.counts[kind]})"
        for predictor, result in results.items():
            for column, values in result.values[kind].items():
                is_mean = column == "mean"
                cells = [_cell(values[name], name, bold=is_mean and values[name] == best[name]) for name in METRIC_NAMES]
                table.add_row(label, predictor, column, *cells, style="" if is_mean else "dim", end_section=is_mean)
                label = ""
    return table


def print_results(results: Mapping[str, EvaluationResult], title: str) -> None:
    """Print the table, as wide as it needs to be where the output is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(results_table(results, title))


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
