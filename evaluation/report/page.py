"""The page around the sections: one file that asks the network for nothing and cannot run anything but its own script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.report.markup import Html, tag
from evaluation.report.script import SCRIPT
from evaluation.report.style import STYLE


@dataclass(frozen=True)
class Section:
    """A part of the report with its place in the navigation."""

    anchor: str
    title: str
    body: Html
    short: str = ""
    """In the navigation, where the title is long."""


def render_page(title: str, head: Html, sections: Sequence[Section]) -> str:
    """The whole document; well-formed XML behind its doctype.

    Args:
        title: of the window and the heading.
        head: what stands under the heading.
        sections: in order.
    """
    own = f"style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'"
    policy = f"default-src 'none'; img-src data:; {own}; base-uri 'none'; form-action 'none'"
    meta = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    ]
    links = [tag("li", tag("a", section.short or section.title, href=f"#{section.anchor}")) for section in sections]
    body = [
        tag("a", "Skip to the results", href=f"#{sections[0].anchor}", class_="skip"),
        tag("header", tag("h1", title), head),
        tag("nav", tag("ul", *links), aria_label="Sections"),
        tag("main", *(_section(section) for section in sections)),
        tag("script", Html(SCRIPT)),
    ]
    return f"<!DOCTYPE html>\n{tag('html', tag('head', *meta), tag('body', *body), lang='en')}\n"


def _section(section: Section) -> Html:
    heading = f"{section.anchor}-heading"
    return tag("section", tag("h2", section.title, id=heading), section.body, id=section.anchor, aria_labelledby=heading)


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
