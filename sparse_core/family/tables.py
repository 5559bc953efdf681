"""Tables of means and intervals: Markdown that is aligned enough for a screen."""

from __future__ import annotations

from collections.abc import Sequence

from sparse_core.family.intervals import Mean

NOTE = "± is half the width of the 95 % interval of the mean: Student's t over the seeds."


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the header; the first column is set to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [_line(row, widths) for row in rows]
    return "\n".join([lines[0], _line(rule, widths), *lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.ljust(width) if not index else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join([first, *others])} |"


def percent(mean: Mean, signed: bool = False) -> str:
    """A share in percent with its interval; with its sign for differences, which are in percentage points."""
    return number(Mean(mean.value * 100, None if mean.half_width is None else mean.half_width * 100, mean.count), signed)


def number(mean: Mean, signed: bool = False, digits: int = 2) -> str:
    """A mean with its interval."""
    value = f"{mean.value:{'+' if signed else ''}.{digits}f}"
    return value if mean.half_width is None else f"{value} ± {mean.half_width:.{digits}f}"
