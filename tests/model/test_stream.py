"""Pieces of text while it is generated: worked by hand, and their sum against the whole."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptailor.model.stream import TextStream, before_stop


def pieces_of(tokens: Sequence[bytes], stop: Sequence[str] = ()) -> tuple[list[str], str, bool]:
    """What each token gives, what is left at the end, and whether a stop string was met."""
    stream = TextStream(lambda ids: b"".join(tokens[one] for one in ids).decode(errors="replace"), stop)
    given: list[str] = []
    for token in range(len(tokens)):
        given.append(stream.add(token))
        if stream.stopped:
            break
    return given, stream.rest(), stream.stopped


@pytest.mark.parametrize(
    ("tokens", "stop", "given", "rest", "stopped"),
    [
        ([b"an", b" E", b"gg", b" EN", b"D."], ["END"], ["an", " ", "Egg", " ", ""], "", True),
        ([b"an", b" E", b"gg", b" EN"], ["END"], ["an", " ", "Egg", " "], "EN", False),
        ([b"one.EN", b"Done"], ["x", "ENDo"], ["one.", ""], "", True),
        ([b"a", b"ab"], ["aab", "b"], ["", ""], "", True),  # both are complete: the first to begin counts
        ([b"aa", b"a", b"b"], ["aab"], ["", "a", ""], "", True),
        ([b"END"], ["END"], [""], "", True),
        ([b"caf\xc3", b"\xa9!"], [], ["caf", "é!"], "", False),
        ([b"\xf0\x9f", b"\x98", b"\x80", b"\xff"], [], ["", "", "\N{GRINNING FACE}", ""], "\ufffd", False),
        ([b"\xff", b"a"], [], ["", "\ufffda"], "", False),
    ],
)
def test_pieces(tokens: list[bytes], stop: list[str], given: list[str], rest: str, stopped: bool):
    assert pieces_of(tokens, stop) == (given, rest, stopped)


@given(
    tokens=st.lists(st.text("abé€", max_size=4).map(str.encode) | st.binary(max_size=3), max_size=12),
    stop=st.lists(st.text("ab€", min_size=1, max_size=3), max_size=2),
)
def test_the_pieces_add_up_to_the_text_before_the_stop_string(tokens: list[bytes], stop: list[str]):
    given, rest, stopped = pieces_of(tokens, stop)
    heard, whole = (b"".join(part).decode(errors="replace") for part in (tokens[: len(given)], tokens))
    assert "".join(given) + rest == before_stop(heard, stop)
    assert stopped == any(one in whole for one in stop)


def test_the_text_ends_before_the_first_stop_string():
    assert before_stop("one two three", ["three", "two"]) == "one "
    assert before_stop("one two three", []) == "one two three"
    assert before_stop("one", ["two", "one"]) == ""
