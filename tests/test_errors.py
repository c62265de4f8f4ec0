"""What a user is told: found, expected, try; several problems together; the closest known word; long lists cut."""

from __future__ import annotations

import pytest

from gptailor.errors import UserError, did_you_mean, listing


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({}, "no file"),
        ({"expected": "a file"}, "no file\n  expected: a file"),
        ({"hint": "look again"}, "no file\n  try:      look again"),
        ({"expected": "a file", "hint": "look again"}, "no file\n  expected: a file\n  try:      look again"),
    ],
)
def test_an_error_says_what_is_there_what_should_be_and_what_to_try(parts: dict[str, str], told: str) -> None:
    assert str(UserError("no file", **parts)) == told


def test_several_errors_become_one_that_numbers_them() -> None:
    joined = UserError.joined([UserError("first", hint="a"), UserError("second")])
    assert str(joined) == "2 problems:\n1. first\n  try:      a\n2. second"
    assert [problem.found for problem in joined.problems] == ["first", "second"]


def test_a_single_error_stays_itself() -> None:
    alone = UserError("only")
    assert UserError.joined([alone]) is alone and alone.problems == [alone]


@pytest.mark.parametrize(
    ("word", "said"), [("epoch", "did you mean 'epochs'?"), ("epochs", "did you mean 'epochs'?"), ("zzz", "")]
)
def test_the_closest_known_word_is_proposed(word: str, said: str) -> None:
    assert did_you_mean(word, ["lr", "epochs", "patience"]) == said


@pytest.mark.parametrize(
    ("items", "limit", "said"),
    [
        ([], 2, ""),
        ([3, 7], 2, "3, 7"),
        ([3, 7, 12], 2, "3, 7 and 1 more"),
        (range(14), 10, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 4 more"),
    ],
)
def test_a_long_list_is_cut_and_says_so(items: list[int], limit: int, said: str) -> None:
    assert listing(items, limit) == said
