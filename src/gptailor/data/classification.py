"""Rows of a table to labelled examples: which columns, which rows, which token ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from gptailor.data.example import Example
from gptailor.data.receipt import Receipt
from gptailor.data.table import Table
from gptailor.errors import UserError, did_you_mean, listing
from gptailor.tokenizer import Tokenizer

TEXT_NAMES = ("text", "sentence", "message", "comment", "review", "tweet", "content", "question", "body", "sms")
LABEL_NAMES = ("label", "labels", "category", "class", "intent", "sentiment", "target", "topic")


def choose_columns(table: Table, text: str | None, label: str | None) -> tuple[list[str], str]:
    """The text columns (several are joined) and the label column.

    Args:
        text: a column, or several separated by commas; None recognises one by its name.
        label: a column; None recognises one by its name.

    Raises:
        UserError: listing the columns, when one does not exist or none is recognised.
    """
    columns = list(table.columns)
    chosen = _listed(table, text)
    label = _existing(table, [label])[0] if label else _named(columns, LABEL_NAMES, avoid=chosen)
    chosen = chosen or [name for name in [_named(columns, TEXT_NAMES, avoid=[label])] if name]
    if len(columns) == 2 and (not label or not chosen):
        label, chosen = _of_two(table, label, chosen)
    if not label or not chosen:
        lacking = " and ".join(word for word, found in (("text", chosen), ("label", label)) if not found)
        raise UserError(
            f"{table.path.name}: no column is recognised as {lacking}",
            expected=f"--text and --label, each one of {', '.join(columns)}",
        )
    if label in chosen:
        raise UserError(f"{table.path.name}: column {label} is both text and label", expected="different columns")
    return chosen, label


def choose_text(table: Table, text: str | None, trained: Sequence[str] | None = None) -> list[str]:
    """The text columns of a table that needs no labels.

    Args:
        text: as for ``choose_columns``.
        trained: the columns that the model learned from; taken where they are all there.

    Raises:
        UserError: listing the columns.
    """
    columns = list(table.columns)
    if text is None and trained and set(trained) <= set(columns):
        return list(trained)
    chosen = _listed(table, text) or [name for name in [_named(columns, TEXT_NAMES, avoid=[])] if name]
    chosen = chosen or columns * (len(columns) == 1)
    if not chosen:
        raise UserError(
            f"{table.path.name}: no column is recognised as text", expected=f"--text, one of {', '.join(columns)}"
        )
    return chosen


def _listed(table: Table, names: str | None) -> list[str]:
    """The columns that the user named, separated by commas unless one has that very name."""
    if not names:
        return []
    split = [name.strip() for name in names.split(",") if name.strip()]
    return _existing(table, [names] if names in table.columns or not split else split)


def _existing(table: Table, chosen: list[str]) -> list[str]:
    """The columns, all of which must exist."""
    missing = [name for name in chosen if name not in table.columns]
    if missing:
        raise UserError(
            f"{table.path.name} has no column {listing(missing)}"
            + (f" ({'; '.join(table.said)})" if table.said else ""),
            expected=f"one of {', '.join(table.columns)}",
            hint=did_you_mean(missing[0], table.columns),
        )
    return chosen


def _named(columns: Sequence[str], names: Sequence[str], avoid: Sequence[str | None]) -> str | None:
    lowered = {name.lower(): name for name in columns if name not in avoid}
    return next((lowered[name] for name in names if name in lowered), None)


def _of_two(table: Table, label: str | None, text: list[str]) -> tuple[str | None, list[str]]:
    """Of two columns, the label is the one with few different and shorter values; unclear cases stay open."""
    columns = list(table.columns)
    if label or text:
        known = label or text[0]
        other = columns[1 - columns.index(known)]
        return (label, [other]) if label else (other, text)
    distinct = {name: len(set(map(str, table.columns[name]))) for name in columns}
    length = {name: sum(len(str(value)) for value in table.columns[name]) for name in columns}
    few, many = sorted(columns, key=lambda name: distinct[name])
    if 2 * distinct[few] <= len(table.lines) and length[few] < length[many]:
        return few, [many]
    return None, []


def collect(tables: Sequence[Table], text: str | None, label: str | None, receipt: Receipt) -> list[Example]:
    """The labelled examples of some tables, with an entry in the receipt for every row that is none."""
    examples: list[Example] = []
    for table in tables:
        before = len(examples)
        text_columns, label_column = choose_columns(table, text, label)
        receipt.add_columns(text_columns, label_column)
        for dropped in table.dropped:
            receipt.drop(dropped.reason, f"{table.path.name}:{dropped.line}")
        pieces = zip(*(table.columns[name] for name in text_columns), strict=True)
        for line, piece, value in zip(table.lines, pieces, table.columns[label_column], strict=True):
            where = f"{table.path.name}:{line}"
            joined, name = joined_text(piece), _string(value).strip()
            odd = "text" if any(map(_holds_values, piece)) else "label" if _holds_values(value) else ""
            if odd:
                receipt.drop(f"has a {odd} that is a list or an object", where)
            elif not joined.strip():
                receipt.drop("has no text", where)
            elif not name:
                receipt.drop("has no label", where)
            else:
                examples.append(Example(joined, name, where))
        if table.format in ("csv", "tsv"):
            _tell_a_lost_header(examples[before:], receipt)
    return examples


def _tell_a_lost_header(examples: Sequence[Example], receipt: Receipt) -> None:
    """Notes when the first line of a file was read as a row and has a label of its own."""
    if len(examples) > 1 and examples[0].where.endswith(":1"):
        label = examples[0].label
        if all(example.label != label for example in examples[1:]):
            receipt.warn(f"only the first row has the label {label!r}: if it names the columns, --header yes")


def joined_text(pieces: Sequence[Any]) -> str:
    """The text of a row, from its text columns; ``""`` where there is none."""
    return " ".join(text for text in map(_string, pieces) if text.strip())


def _string(value: Any) -> str:
    """A value as text; ``""`` for a gap, which json and parquet may write as not a number."""
    gap = value is None or (isinstance(value, float) and value != value)
    return "" if gap or _holds_values(value) else str(value)


def _holds_values(value: Any) -> bool:
    return isinstance(value, list | dict)


def label_names(examples: Sequence[Example], why: str = "") -> list[str]:
    """The labels in the order of their class ids: by number when all are numbers, else by name.

    Args:
        why: what to add to the error about too few labels.

    Raises:
        UserError: when there are fewer than two.
    """
    names = sorted({example.label for example in examples})
    if len(names) < 2:
        found = f"all {len(examples)} texts have the label {names[0]!r}" if names else "no labelled text is left"
        raise UserError(found + why, expected="at least two labels", hint="is --label the right column?")
    if all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in names):
        names.sort(key=int)
    return names


def drop_repeats(examples: Sequence[Example], receipt: Receipt) -> list[Example]:
    """One example of each text; texts with contradicting labels are left out altogether. Both are receipted."""
    labels: dict[str, Counter[str]] = {}
    for example in examples:
        labels.setdefault(example.text, Counter())[example.label] += 1
    kept: list[Example] = []
    seen: set[str] = set()
    for example in examples:
        if len(labels[example.text]) > 1:
            receipt.drop("has the same text as a row with another label", example.where)
        elif example.text in seen:
            receipt.drop("repeats an earlier text", example.where)
        else:
            seen.add(example.text)
            kept.append(example)
    return kept


def encode(examples: Sequence[Example], tokenizer: Tokenizer) -> None:
    """Gives every example its token ids, whole."""
    for example, ids in zip(examples, ids_of([example.text for example in examples], tokenizer), strict=True):
        example.ids = ids


def ids_of(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """The token ids of texts without the blanks at their ends: a head that reads the last token would read a blank."""
    return tokenizer.encode_many([text.strip() for text in texts])


def cut(examples: Sequence[Example], max_length: int, receipt: Receipt) -> None:
    """Leaves the first ``max_length`` ids of every example; lengths and cuts go to the receipt."""
    for example in examples:
        receipt.encoded(len(example.ids), max_length, example.where)
        example.ids = example.ids[:max_length]
