"""Markup that escapes by default: text from data cannot become an element, an attribute or a script."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


class Html(str):
    """A piece of finished markup. Only `tag`, `join` and constants of this project make it; everything else is text."""

    __slots__ = ()


Child = str | float | int | None | Iterable["Child"]


def text(value: object) -> Html:
    """Any value as text. Characters that cannot be seen or that turn the direction of writing are shown as U+FFFD."""
    raw = str(value)
    shown = "".join(char if char in "\n\t" or unicodedata.category(char)[0] != "C" else "\ufffd" for char in raw)
    return Html(html.escape(shown, quote=True))


def tag(name: str, /, *children: Child, **attributes: object) -> Html:
    """An element that is also well-formed XML.

    Args:
        name: of the element.
        children: markup as it is, other strings and numbers escaped, None left out, sequences one by one.
        attributes: `class_` becomes `class`, `aria_label` `aria-label`; True a bare name, None and False are left out.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        shown = key.rstrip("_").replace("_", "-")
        parts.append(f'{shown}="{text(shown if value is True else value)}"')
    opening = " ".join(parts)
    return Html(f"<{opening}/>" if name in _VOID else f"<{opening}>{join(children)}</{name}>")


def join(children: Iterable[Child], between: str = "") -> Html:
    """Children after one another."""
    pieces = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            pieces.append(child)
        elif isinstance(child, (str, int, float)):
            pieces.append(text(child))
        else:
            pieces.append(join(child))
    return Html(between.join(pieces))


def table(
    caption: str, header: Sequence[Child], rows: Sequence[Sequence[Child]], *, num_heads: int = 1, class_: str | None = None
) -> Html:
    """A table whose first `num_heads` columns are row headers; wide ones scroll in their own box.

    Args:
        caption: shown above, and read by screen readers.
        header: of the columns.
        rows: cells; markup is kept, text escaped.
        num_heads: leading columns that name the row.
        class_: of the table.
    """
    head = tag("thead", tag("tr", [tag("th", cell, scope="col") for cell in header]))
    body = tag(
        "tbody",
        [
            tag(
                "tr", [tag("th", cell, scope="row") if index < num_heads else tag("td", cell) for index, cell in enumerate(row)]
            )
            for row in rows
        ],
    )
    inner = tag("table", tag("caption", caption), head, body, class_=class_)
    return tag("div", inner, class_="wide", tabindex="0", role="region", aria_label=caption)


def details(summary: str, *children: Child) -> Html:
    """A part that opens on demand."""
    return tag("details", tag("summary", summary), *children)


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"
