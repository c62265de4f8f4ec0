"""Rows of a table to conversations, and those to parts: what an assistant learns from, before it becomes tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import numpy as np

from gptailor.data.receipt import InstructionReceipt
from gptailor.data.shapes import SHAPES, Columns, Shape, UnusableError, recognise
from gptailor.data.splits import grouped, in_order
from gptailor.data.table import Table
from gptailor.data.templates import Message
from gptailor.errors import UserError, listing

EMPTY_OUTPUT = "has an empty output"
C = TypeVar("C", bound=Columns)
R = TypeVar("R")


class Item(Protocol):
    """What one row of a table is: a conversation, or two that differ in their last answer."""

    @property
    def where(self) -> str:
        """File and line."""
        ...

    @property
    def sides(self) -> tuple[Record, ...]:
        """The conversations, which are kept or left out together."""
        ...

    def opening(self) -> Hashable:
        """What stands before the first answer: items that share it must not be in two parts."""
        ...

    def content(self) -> Hashable:
        """All that is said: an item that has nothing else to say repeats an earlier one."""
        ...


Row = TypeVar("Row", bound=Item)


@dataclass(slots=True)
class Record:
    """One conversation that ends with an answer.

    Attributes:
        messages: an optional system message, then question and answer in turn.
        where: file and line.
        ids: (t,) int32 tokens, the end of text last; empty until it is encoded.
        learned: (t,) bool, which of them are learned; the first one never is, as nothing foretells it.
    """

    messages: list[Message]
    where: str
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    learned: np.ndarray = field(default_factory=lambda: np.empty(0, bool))

    @property
    def n_inputs(self) -> int:
        """How many tokens the model reads: the last one is only foretold."""
        return len(self.ids) - 1

    @property
    def question(self) -> list[Message]:
        """What the last answer follows."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.messages[-1].content

    @property
    def sides(self) -> tuple[Record, ...]:
        """The record itself; see ``Item``."""
        return (self,)

    def opening(self) -> Hashable:
        """What stands before the first answer."""
        return tuple(self.messages[: [message.role for message in self.messages].index("assistant")])

    def content(self) -> Hashable:
        """All messages."""
        return tuple(self.messages)

    def as_row(self) -> dict[str, object]:
        """The record as instruction, input and output, with what was said earlier under ``history``."""
        *history, asked = self.question
        row = {"instruction": asked.content, "input": asked.input, "output": self.answer}
        earlier = [{"role": message.role, "content": message.content} for message in history]
        return {**row, "history": earlier} if earlier else row


def collect(
    tables: Sequence[Table], receipt: InstructionReceipt, *, keep_empty: bool = False, tolerance: float = 0.1
) -> list[Record]:
    """The conversations of some tables, with an entry in the receipt for every row that is none.

    Args:
        keep_empty: take records whose output is empty, as the book does; they are counted either way.
        tolerance: the share of rows that may be unusable.

    Raises:
        UserError: a table without known columns, no usable row, or too many unusable ones: all reasons, with lines.
    """

    def read(shape: Shape, values: Sequence[object], where: str) -> Record:
        return _record(shape, values, where, receipt, keep_empty=keep_empty)

    return read_rows(tables, SHAPES, read, receipt, tolerance)


def read_rows(
    tables: Sequence[Table],
    shapes: Sequence[C],
    read: Callable[[C, Sequence[object], str], R],
    receipt: InstructionReceipt,
    tolerance: float,
) -> list[R]:
    """What ``read`` makes of each row, from its shape, the values of its columns, and its place; see ``collect``."""
    records: list[R] = []
    unusable: dict[str, list[str]] = defaultdict(list)
    for table in tables:
        for dropped in table.dropped:
            unusable[dropped.reason].append(f"{table.path.name}:{dropped.line}")
        shape, columns = recognise(table, shapes)
        receipt.add_shape(table, shape.name, columns)
        for line, values in zip(table.lines, zip(*(table.columns[name] for name in columns), strict=True), strict=True):
            where = f"{table.path.name}:{line}"
            try:
                records.append(read(shape, values, where))
            except UnusableError as error:
                unusable[str(error)].append(where)
    for reason, places in unusable.items():
        for place in places:
            receipt.drop(reason, place)
    if not records:
        raise UserError(f"no record can be used{reasons(unusable)}")
    total = len(records) + sum(map(len, unusable.values()))
    check_share("cannot be used", unusable, total, tolerance, "mend them, or a larger --tolerance")
    return records


def _record(
    shape: Shape, values: Sequence[object], where: str, receipt: InstructionReceipt, *, keep_empty: bool
) -> Record:
    messages = shape.read(*values)
    if messages[-1].role == "user":
        receipt.unanswered.append(where)
        messages.pop()
    if any(message.role == "assistant" and not message.content.strip() for message in messages):
        receipt.empty_outputs.append(where)
        if not keep_empty:
            raise UnusableError(EMPTY_OUTPUT)
    return Record(messages, where)


def check_share(found: str, bad: Mapping[str, Sequence[str]], total: int, tolerance: float, hint: str) -> None:
    """Raises ``UserError`` with every reason when more than the tolerated share of ``total`` records is ``bad``."""
    count = sum(map(len, bad.values()))
    if count > tolerance * total:
        share = f"{tolerance:.0%} of them at most, as --tolerance says" if tolerance < 1 else ""
        raise UserError(f"{count:,} of {total:,} records {found}{reasons(bad)}", expected=share, hint=hint)


def reasons(bad: Mapping[str, Sequence[str]]) -> str:
    """Reasons with their counts and places, the commonest first, a line each."""
    ordered = sorted(bad.items(), key=lambda item: -len(item[1]))
    return "".join(f"\n  {len(places):,} × {reason}: {listing(places, 5)}" for reason, places in ordered)


def arrange(
    given: Mapping[str, Sequence[Row]],
    receipt: InstructionReceipt,
    *,
    split: Literal["shuffle", "book"] = "shuffle",
    validation_share: float = 0.05,
    test_share: float = 0.1,
    seed: int = 123,
) -> dict[str, list[Row]]:
    """The parts train, validation and test, receipted.

    Args:
        given: ``{"data": [...]}``, or ``train`` with or without the other two. A part that is not given is taken from
            the training part; parts that are given stay as they are.
        split: the book's, in the order of the file, repeats and all; or by ``seed``, a repeated record once, and all
            records that open with the same question in one part.

    Raises:
        UserError: when the options do not fit the data, or a part would be empty.
    """
    if split == "book":
        if given.keys() != {"data"}:
            raise UserError(f"--split book with separate files for {', '.join(given)}", expected="one file")
        parts = in_order(given["data"])
    else:
        given = {name: _drop_repeats(records, receipt) for name, records in given.items()}
        shares = {"validation": validation_share, "test": test_share}
        missing = {name: share for name, share in shares.items() if name not in given}
        train = given.get("data", given.get("train", []))
        parts = {**given, **grouped(train, lambda record: record.opening(), missing, seed)}
        parts = {name: list(parts[name]) for name in ("train", "validation", "test")}
    receipt.arranged({name: [record.opening() for record in records] for name, records in parts.items()})
    if not all(parts.values()):
        sizes = ", ".join(f"{name} {len(records)}" for name, records in parts.items())
        expected = "at least three different questions, none of which most of the records repeat"
        raise UserError(f"too few records: {sizes}{receipt.why()}", expected=expected)
    return parts


def _drop_repeats(records: Sequence[Row], receipt: InstructionReceipt) -> list[Row]:
    """One of each record; other answers to the same question stay."""
    kept: dict[Hashable, Row] = {}
    for record in records:
        if kept.setdefault(record.content(), record) is not record:
            receipt.drop("repeats an earlier record", record.where)
    return list(kept.values())
