"""A written page, taken apart."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from gptailor.evaluate.report import write_report

APART = {"td", "th", "dt", "dd", "div", "li", "p", "small", "span", "summary", "b", "strong", "h1", "h2", "h3", "h4"}


class Page(HTMLParser):
    """The elements, attributes and text of a page; ``words`` is the text with one space between what is apart."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = self.spaced = ""
        self.feed(html)
        self.words = " ".join(self.spaced.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.spaced += " " * (tag in APART)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data
        self.spaced += data


def report(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))
