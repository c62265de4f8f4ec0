"""Figures and places as people read them."""

from __future__ import annotations

from gptailor.evaluate.format import (
    amount,
    compact_places,
    duration,
    interval,
    number,
    p_value,
    percent,
    plural,
    shorten,
)


def test_numbers_as_people_read_them() -> None:
    assert (percent(0.97), percent(None), interval([0.941, 0.985])) == ("97.0\u202f%", "–", "94.1 to 98.5\u202f%")
    assert (number(1045), number(0.12345), number(None), number("x")) == ("1,045", "0.123", "–", "x")
    assert (duration(0.5), duration(59.6), duration(3900)) == (
        "0.5\u202fs",
        "1\u202fmin\u00a00\u202fs",
        "1\u202fh\u00a05\u202fmin",
    )
    assert (amount(9_999), amount(437_120), amount(124_439_808)) == ("9,999", "437 thousand", "124.4 million")
    assert (plural(1, "text"), plural(1045, "text")) == ("1 text", "1,045 texts")
    assert (p_value(0.0301), p_value(0.0001)) == ("p = 0.03", "p < 0.001")
    assert shorten("abcdef", 4) == "abcd … (2 more characters)" and shorten("abc", 4) == "abc"


def test_places_name_a_file_once_in_a_row() -> None:
    assert compact_places(["a.tsv:3", "a.tsv:9", "b.tsv:2", "12", "13"]) == ["a.tsv:3", "9", "b.tsv:2", "12", "13"]
