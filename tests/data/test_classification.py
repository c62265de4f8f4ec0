"""Columns are chosen by name, by wish or by a safe guess, and every row becomes an example or an entry."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from gptailor.data.classification import (
    Example,
    choose_columns,
    choose_text,
    collect,
    cut,
    drop_repeats,
    encode,
    ids_of,
    joined_text,
    label_names,
)
from gptailor.data.receipt import Receipt
from gptailor.data.table import Dropped, Table
from gptailor.errors import UserError
from gptailor.tokenizer import Tokenizer


def table(columns: dict[str, list[Any]], dropped: list[Dropped] | None = None) -> Table:
    rows = len(next(iter(columns.values())))
    return Table(Path("t.csv"), "", 0, "csv", columns, list(range(1, rows + 1)), dropped or [])


def named(*names: str) -> Table:
    """Three or more columns whose values say nothing."""
    return table({name: ["x"] for name in names})


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "text", "label", "chosen"),
    [
        (["id", "text", "label"], None, None, (["text"], "label")),
        (["ID", "Message", "Category"], None, None, (["Message"], "Category")),
        (["id", "sentence", "body", "target", "topic"], None, None, (["sentence"], "target")),  # the first name known
        (["id", "text", "label", "kind"], None, "kind", (["text"], "kind")),
        (["id", "text", "label", "title"], "title", None, (["title"], "label")),
        (["id", "text", "label", "title"], "title,text", None, (["title", "text"], "label")),
        (["id", "text", "label", "title"], " title , text ,", None, (["title", "text"], "label")),
        (["a,b", "a", "b", "label"], "a,b", None, (["a,b"], "label")),  # a column may have a comma in its name
        (["text", "label", "topic"], "label", None, (["label"], "topic")),  # what is text is no label
        (["text", "sentence", "topic"], None, "text", (["sentence"], "text")),
        (["first", "second"], "second", None, (["second"], "first")),
        (["first", "second"], None, "second", (["first"], "second")),
        (["message", "spam"], None, None, (["message"], "spam")),
    ],
)
def test_columns_are_chosen(
    columns: list[str], text: str | None, label: str | None, chosen: tuple[list[str], str]
) -> None:
    assert choose_columns(named(*columns), text, label) == chosen


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_of_two_nameless_columns_the_label_has_few_and_short_values(order: tuple[str, str]) -> None:
    values = {"a": ["yes", "no", "yes", "no"], "b": ["the first", "the second", "the third", "the fourth"]}
    assert choose_columns(table({name: values[name] for name in order}), None, None) == (["b"], "a")


@pytest.mark.parametrize(
    "columns",
    [
        {"a": ["x", "y", "z"], "b": ["the first", "the second", "the third"]},  # every label different
        {"a": ["a rather long name"] * 3, "b": ["p", "q", "r"]},  # the few values are the longer ones
    ],
)
def test_an_unclear_guess_is_not_made(columns: dict[str, list[str]]) -> None:
    with pytest.raises(UserError, match=r"no column is recognised as .*\n  expected: --text and --label, .*a, b"):
        choose_columns(table(columns), None, None)


@pytest.mark.parametrize(
    ("columns", "text", "label", "told"),
    [
        (["id", "title", "label"], None, None, "recognised as text\n  expected: .* one of id, title, label"),
        (["id", "text", "kind"], None, None, "recognised as label\n"),
        (["id", "title", "kind"], None, None, "recognised as text and label\n"),
        (["id", "text", "label"], "txet", None, "no column txet\n  expected: one of id, text, label\n.*mean 'text'"),
        (["id", "text", "label"], "text,a,b", None, "no column a, b\n"),
        (["id", "text", "label"], None, "lable", "no column lable\n  expected: .*\n.*did you mean 'label'"),
        (["id", "text", "label"], None, "id,label", "no column id,label\n"),  # there is one label
        (["id", "text", "label"], None, ",", "no column ,\n"),
        (["id", "text", "label"], ",", None, "no column ,\n"),
        (["id", "text", "label"], "text", "text", "column text is both text and label"),
        (["a", "b"], "a,b", None, "column b is both text and label"),
    ],
)
def test_a_wrong_choice_is_told_with_the_columns(
    columns: list[str], text: str | None, label: str | None, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        choose_columns(named(*columns), text, label)


@pytest.mark.parametrize(
    ("columns", "text", "chosen"),
    [
        (["id", "review"], None, ["review"]),
        (["whatever"], None, ["whatever"]),
        (["id", "review"], "id", ["id"]),
        (["id", "review"], "id,review", ["id", "review"]),
    ],
)
def test_a_table_without_labels_needs_a_text_column_only(
    columns: list[str], text: str | None, chosen: list[str]
) -> None:
    assert choose_text(named(*columns), text) == chosen


def test_a_table_without_labels_whose_text_is_unclear_is_told() -> None:
    with pytest.raises(UserError, match="no column is recognised as text\n  expected: --text, one of a, b"):
        choose_text(named("a", "b"), None)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_every_row_becomes_an_example_or_an_entry() -> None:
    receipt = Receipt()
    rows = table(
        {"text": ["hello", "  ", None, "bye", "so", "and so"], "label": ["a", "a", "b", " ", None, " b "]},
        [Dropped(9, "3 fields where the header has 2")],
    )
    examples = collect([rows], None, None, receipt)
    assert [(e.text, e.label, e.where) for e in examples] == [("hello", "a", "t.csv:1"), ("and so", "b", "t.csv:6")]
    assert receipt.dropped == {
        "3 fields where the header has 2": ["t.csv:9"],
        "has no text": ["t.csv:2", "t.csv:3"],
        "has no label": ["t.csv:4", "t.csv:5"],
    }
    assert receipt.columns == {"text": "text", "label": "label"}


def test_several_text_columns_are_joined_and_missing_pieces_skipped() -> None:
    receipt = Receipt()
    rows = table({"title": ["Rain", None, "Sun"], "text": ["It pours.", "Dry.", None], "label": [1, True, 2.5]})
    examples = collect([rows], "title,text", None, receipt)
    assert [(e.text, e.label) for e in examples] == [("Rain It pours.", "1"), ("Dry.", "True"), ("Sun", "2.5")]
    assert receipt.columns["text"] == "title + text"


def test_a_missing_piece_is_skipped_however_it_is_written() -> None:
    for gap in (None, "", "  ", math.nan):
        assert joined_text([gap, "Dry."]) == "Dry."
    assert joined_text([None, "  "]) == ""


def test_blanks_at_the_ends_are_not_read() -> None:
    """Exports leave spaces there, and the last token would be one."""
    tokenizer = Tokenizer.train(["so dry, so it is"] * 3, 280)
    assert ids_of([" so dry \n", "so dry"], tokenizer) == [tokenizer.encode("so dry")] * 2


def test_what_is_no_text_does_not_become_one() -> None:
    receipt = Receipt()
    rows = table({"text": ["one", math.nan, ["a", "b"], "four", "five"], "label": [math.nan, "a", "a", ["a"], 5.0]})
    examples = collect([rows], None, None, receipt)
    assert [(example.text, example.label) for example in examples] == [("five", "5.0")]
    assert receipt.dropped == {
        "has no label": ["t.csv:1"],
        "has no text": ["t.csv:2"],
        "has a text that is a list or an object": ["t.csv:3"],
        "has a label that is a list or an object": ["t.csv:4"],
    }


@pytest.mark.parametrize(("labels", "told"), [(["Verdict", "a", "a"], True), (["a", "a", "b"], False)])
def test_a_first_row_with_a_label_of_its_own_may_be_a_header(labels: list[str], told: bool) -> None:
    receipt = Receipt()
    collect([table({"column_1": ["x", "y", "z"], "column_2": labels})], "column_1", "column_2", receipt)
    expected = ["only the first row has the label 'Verdict': if it names the columns, --header yes"]
    assert receipt.warnings == expected * told


def test_several_files_are_collected_in_their_order() -> None:
    tables = [table({"text": ["one"], "label": ["a"]}), table({"kind": ["b"], "text": ["two"], "label": ["b"]})]
    assert [example.text for example in collect(tables, None, None, Receipt())] == ["one", "two"]


def labelled(*pairs: tuple[str, str]) -> list[Example]:
    return [Example(text, label, f"t:{number}") for number, (text, label) in enumerate(pairs, 1)]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["spam", "ham", "spam"], ["ham", "spam"]),
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["10", "9", "x"], ["10", "9", "x"]),
    ],
)
def test_labels_are_ordered_by_number_or_by_name(labels: list[str], names: list[str]) -> None:
    assert label_names([Example("t", label, "") for label in labels]) == names


@pytest.mark.parametrize(
    ("labels", "told"), [(["a", "a"], "all 2 texts have the label 'a'"), ([], "no labelled text is left")]
)
def test_fewer_than_two_labels_are_refused(labels: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        label_names([Example("t", label, "") for label in labels])


def test_repeats_are_dropped_and_contradictions_altogether() -> None:
    receipt = Receipt()
    rows = labelled(("one", "a"), ("two", "a"), ("one", "a"), ("three", "b"), ("two", "b"), ("two", "a"), ("One", "a"))
    kept = drop_repeats(rows, receipt)
    assert [example.where for example in kept] == ["t:1", "t:4", "t:7"]
    assert receipt.dropped == {
        "has the same text as a row with another label": ["t:2", "t:5", "t:6"],
        "repeats an earlier text": ["t:3"],
    }


def test_encoded_texts_are_cut_and_the_cut_is_receipted() -> None:
    receipt, tokenizer = Receipt(), Tokenizer.train(["abc"] * 3, 257)
    rows = labelled(("short", "a"), ("much longer", "b"))
    encode(rows, tokenizer)
    whole = [list(example.ids) for example in rows]
    assert [tokenizer.decode(ids) for ids in whole] == ["short", "much longer"]
    cut(rows, 5, receipt)
    assert [example.ids for example in rows] == [whole[0][:5], whole[1][:5]]
    assert receipt.lengths == [5, 11]  # in bytes, as 257 tokens have no merges; before the cut
    assert receipt.to_dict()["cut"] == {"count": 1, "limit": 5, "lines": ["t:2"]}
