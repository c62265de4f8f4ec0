"""How figures and texts are written on the page and in the model cards, as functions and as filters of templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

SMALL = "\u202f"  # narrow no-break space, between a number and its unit
LONGEST_TEXT = 700  # characters of a text that the page shows


def environment(*, autoescape: bool) -> Environment:
    """Jinja2 with the filters of this module; autoescape for HTML, ``md`` for the cards."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "percent": percent,
        "interval": interval,
        "number": number,
        "signed": signed,
        "p_value": p_value,
        "amount": amount,
        "plural": plural,
        "breakable": breakable,
        "compact": compact_places,
        "duration": duration,
        "shorten": shorten,
        "beginning": beginning,
        "basename": basename,
        "md": markdown_cell,
    }
    return made


def percent(share: float | None, digits: int = 1) -> str:
    """``"97.0 %"``, or a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}{SMALL}%"


def interval(ends: Sequence[float] | None, digits: int = 1) -> str:
    """``"94.1 to 98.5 %"``."""
    return f"{100 * ends[0]:.{digits}f} to {100 * ends[1]:.{digits}f}{SMALL}%" if ends else "–"


def number(value: Any, digits: int = 3) -> str:
    """Counts with separators, other numbers with ``digits`` decimals, a dash for None, anything else as it is."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 1) -> str:
    """``"+1.2"`` or ``"−0.4"``, or a dash for None."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def amount(count: int) -> str:
    """``"437 thousand"``, ``"124.4 million"``; exact below ten thousand."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:.0f} thousand" if count < 999_500 else f"{count / 1e6:,.1f} million"


def plural(count: int, noun: str) -> str:
    """``"1 text"``, ``"1,045 texts"``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def p_value(p: float) -> str:
    """``"p = 0.03"``, or ``"p < 0.001"``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def duration(seconds: float | None) -> str:
    """``"2 min 5 s"``, ``"1 h 4 min"``, or ``"0.5 s"`` below ten seconds."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f}{SMALL}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{SMALL}s"
    if whole < 3600:
        return f"{whole // 60}{SMALL}min\u00a0{whole % 60}{SMALL}s"
    return f"{whole // 3600}{SMALL}h\u00a0{whole % 3600 // 60}{SMALL}min"


def breakable(label: Any) -> Markup:
    """``label``, escaped, with permission to break the line after underscores."""
    return Markup(str(escape(label)).replace("_", "_<wbr>"))


def compact_places(places: Sequence[str]) -> list[str]:
    """``["a.tsv:3", "9", "b.tsv:2"]`` for ``["a.tsv:3", "a.tsv:9", "b.tsv:2"]``: each file is named once in a row."""
    shown, before = [], ""
    for place in places:
        file, _, line = place.rpartition(":")
        shown.append(line if file and file == before else place)
        before = file
    return shown


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """``text``, or its beginning and how many characters were left out."""
    rest = len(text) - longest
    return text if rest <= 0 else f"{text[:longest]} … ({rest:,} more characters)"


def basename(path: str) -> str:
    """The last part of a path."""
    return path.rstrip("/").split("/")[-1]


def beginning(text: str, longest: int) -> str:
    """The first words of ``text``, at most ``longest`` characters; a text without spaces is cut where it must be."""
    if len(text) <= longest:
        return text
    cut = text.rfind(" ", longest // 2, longest)
    return text[: longest if cut < 0 else cut]


def markdown_cell(text: Any) -> str:
    """``text`` on one line, with nothing in it that Markdown or HTML would act on."""
    flat = re.sub(r"\s+", " ", str(text)).strip()
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|~#])", r"\\\1", flat)
