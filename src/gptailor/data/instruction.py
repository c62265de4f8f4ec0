"""Rows of a table to conversations, and those to token ids of which it is known which are learned.

What is learned follows from how a conversation is put together and is never searched for: the answers, each with the
end of text behind it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gptailor.data.receipt import InstructionReceipt
from gptailor.data.shapes import Shape, UnusableError, recognise
from gptailor.data.splits import grouped, in_order
from gptailor.data.table import Table
from gptailor.data.templates import Message, Segment, Template
from gptailor.errors import UserError, listing
from gptailor.tokenizer import Tokenizer

EMPTY_OUTPUT = "has an empty output"
LONGER = "a larger --max-length, up to the context of the base; or a shorter --template, such as plain"
CHUNK = 1000  # records that are rendered at once: their texts are not kept
Learn = Literal["response", "last", "all"]


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

    def opening(self) -> Hashable:
        """What stands before the first answer: records that share it must not be in two parts."""
        return tuple(self.messages[: [message.role for message in self.messages].index("assistant")])

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
    records: list[Record] = []
    unusable: dict[str, list[str]] = defaultdict(list)
    for table in tables:
        for dropped in table.dropped:
            unusable[dropped.reason].append(f"{table.path.name}:{dropped.line}")
        shape, columns = recognise(table)
        receipt.add_shape(table, shape.name, columns)
        for line, values in zip(table.lines, zip(*(table.columns[name] for name in columns), strict=True), strict=True):
            where = f"{table.path.name}:{line}"
            try:
                records.append(_record(shape, values, where, receipt, keep_empty=keep_empty))
            except UnusableError as error:
                unusable[str(error)].append(where)
    for reason, places in unusable.items():
        for place in places:
            receipt.drop(reason, place)
    if not records:
        raise UserError(f"no record can be used{_reasons(unusable)}")
    total = len(records) + sum(map(len, unusable.values()))
    _check_share("cannot be used", unusable, total, tolerance, "mend them, or a larger --tolerance")
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


def _check_share(found: str, bad: Mapping[str, Sequence[str]], total: int, tolerance: float, hint: str) -> None:
    """Raises ``UserError`` with every reason when more than the tolerated share of ``total`` records is ``bad``."""
    count = sum(map(len, bad.values()))
    if count > tolerance * total:
        share = f"{tolerance:.0%} of them at most, as --tolerance says" if tolerance < 1 else ""
        raise UserError(f"{count:,} of {total:,} records {found}{_reasons(bad)}", expected=share, hint=hint)


def _reasons(bad: Mapping[str, Sequence[str]]) -> str:
    ordered = sorted(bad.items(), key=lambda item: -len(item[1]))
    return "".join(f"\n  {len(places):,} × {reason}: {listing(places, 5)}" for reason, places in ordered)


def arrange(
    given: Mapping[str, Sequence[Record]],
    receipt: InstructionReceipt,
    *,
    split: Literal["shuffle", "book"] = "shuffle",
    validation_share: float = 0.05,
    test_share: float = 0.1,
    seed: int = 123,
) -> dict[str, list[Record]]:
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
        parts = {**given, **grouped(train, Record.opening, missing, seed)}
        parts = {name: list(parts[name]) for name in ("train", "validation", "test")}
    receipt.arranged({name: [record.opening() for record in records] for name, records in parts.items()})
    if not all(parts.values()):
        sizes = ", ".join(f"{name} {len(records)}" for name, records in parts.items())
        expected = "at least three different questions, none of which most of the records repeat"
        raise UserError(f"too few records: {sizes}{receipt.why()}", expected=expected)
    return parts


def _drop_repeats(records: Sequence[Record], receipt: InstructionReceipt) -> list[Record]:
    """One of each record; other answers to the same question stay."""
    kept: dict[Hashable, Record] = {}
    for record in records:
        if kept.setdefault(tuple(record.messages), record) is not record:
            receipt.drop("repeats an earlier record", record.where)
    return list(kept.values())


def encode(
    parts: Mapping[str, Sequence[Record]],
    template: Template,
    tokenizer: Tokenizer,
    max_length: int,
    receipt: InstructionReceipt,
    *,
    learn: Learn = "response",
    overlong: Literal["cut", "drop"] = "cut",
    tolerance: float = 0.1,
) -> dict[str, list[Record]]:
    """Gives every record its ids, and returns the parts without the records that do not fit.

    A record that is too long loses whole turns from its end, or else the end of its only answer; the end of text stays
    behind it. One whose question alone leaves no room for an answer is left out.

    Args:
        max_length: how many tokens the model reads at most; the end of text behind them is only foretold.
        learn: every answer, the last one of each record, or everything.
        overlong: whether a record that is too long is cut, or left out.
        tolerance: the share of records that may be cut or left out.

    Raises:
        UserError: a part is left without records, or too many records do not fit: all reasons, with lines.
    """
    fitting = _Fitting(max_length, tokenizer.end_of_text, overlong, receipt)
    kept: dict[str, list[Record]] = {}
    for name, records in parts.items():
        kept[name] = []
        for start in range(0, len(records), CHUNK):
            chunk, pieces = _rendered(records[start : start + CHUNK], template, fitting.misfits)
            for record, encoded in zip(chunk, _tokens(pieces, tokenizer), strict=True):
                if fitting.fit(record, encoded):
                    _store(record, encoded, learn)
                    receipt.learn(name, record.learned)
                    kept[name].append(record)
    fitting.check({name: len(records) for name, records in kept.items()}, tolerance)
    return kept


def _rendered(
    records: Sequence[Record], template: Template, misfits: dict[str, list[str]]
) -> tuple[list[Record], list[list[Segment]]]:
    """The records that the template has room for, and their segments."""
    fitting, pieces = [], []
    for record in records:
        try:
            pieces.append(template.segments(record.messages))
            fitting.append(record)
        except UserError as error:
            misfits[error.found].append(record.where)
    return fitting, pieces


def _store(record: Record, encoded: _Encoded, learn: Learn) -> None:
    record.ids = np.array(encoded.ids, np.int32)
    record.learned = np.full(len(encoded.ids), learn == "all")
    for begin, end in encoded.answers[-1:] if learn == "last" else encoded.answers:
        record.learned[begin:end] = True
    record.learned[0] = False


def prompt_ids(conversations: Sequence[Sequence[Message]], template: Template, tokenizer: Tokenizer) -> list[list[int]]:
    """The tokens that an answer to each conversation follows: the same ones that stood before it in training.

    Raises:
        UserError: the template has no room for one of them.
    """
    pieces = [template.prompt_segments(messages) for messages in conversations]
    return [encoded.ids for encoded in _tokens(pieces, tokenizer)]


@dataclass(slots=True)
class _Encoded:
    """Tokens, and begin and end of each answer in them, with its end of text."""

    ids: list[int]
    answers: list[tuple[int, int]]


def _tokens(conversations: Sequence[Sequence[Segment]], tokenizer: Tokenizer) -> Iterator[_Encoded]:
    """Each segment is encoded by itself, so that no token reaches over the beginning of an answer."""
    ids = iter(tokenizer.encode_many([segment.text for segments in conversations for segment in segments]))
    for segments in conversations:
        encoded = _Encoded([], [])
        for segment in segments:
            begin = len(encoded.ids)
            encoded.ids += next(ids) + [tokenizer.end_of_text] * segment.ended
            if segment.learned:
                encoded.answers.append((begin, len(encoded.ids)))
        yield encoded


class _Fitting:
    """Makes records fit a length, and keeps account of those that do not."""

    def __init__(self, max_length: int, end_of_text: int, overlong: str, receipt: InstructionReceipt) -> None:
        self.max_length, self.end_of_text, self.overlong, self.receipt = max_length, end_of_text, overlong, receipt
        self.misfits: dict[str, list[str]] = defaultdict(list)
        self.prompts: list[tuple[int, str]] = []  # length and place of those that are too long

    def fit(self, record: Record, encoded: _Encoded) -> bool:
        """Shortens what is too long; False when the record must be left out."""
        length, prompt = len(encoded.ids) - 1, encoded.answers[0][0]
        self.receipt.lengths.append(length)
        if prompt >= self.max_length:
            self.prompts.append((prompt, record.where))
            return False
        if length > self.max_length and self.overlong == "drop":
            self.misfits[f"longer than {self.max_length} tokens"].append(record.where)
            return False
        if length > self.max_length:
            self._shorten(encoded)
            self.receipt.cut.append(record.where)
        return True

    def _shorten(self, encoded: _Encoded) -> None:
        """As many whole turns as fit; the beginning of the first answer where none does."""
        limit = self.max_length + 1
        for count in range(len(encoded.answers), 0, -1):
            begin, end = encoded.answers[count - 1]
            ids = encoded.ids[:end] + [self.end_of_text] * (encoded.ids[end - 1] != self.end_of_text)
            if len(ids) <= limit:
                encoded.ids, encoded.answers = ids, [*encoded.answers[: count - 1], (begin, len(ids))]
                self.receipt.turns_cut += 1
                return
        encoded.ids = [*encoded.ids[: limit - 1], self.end_of_text]
        encoded.answers = [(encoded.answers[0][0], limit)]
        self.receipt.responses_cut += 1

    def check(self, kept: Mapping[str, int], tolerance: float) -> None:
        """Raises ``UserError`` when a part is empty, or more than the tolerated share of records does not fit."""
        if self.prompts:
            reason = f"its prompt alone has {self.max_length} tokens or more"
            self.misfits[reason] = [where for _, where in self.prompts]
        for reason, places in self.misfits.items():
            for place in places:
                self.receipt.drop(reason, place)
        self.receipt.fitted(kept, self.max_length, prompts_over=len(self.prompts))
        total = sum(kept.values()) + sum(map(len, self.misfits.values()))
        too_long = max(self.receipt.lengths, default=0) >= self.max_length
        hint = LONGER if too_long else ""
        if self.prompts and len(self.prompts) == total:
            length, where = min(self.prompts)
            room = f"no prompt leaves room for an answer within {self.max_length} tokens"
            raise UserError(f"{room}: the shortest, {where}, has {length}", hint=hint)
        empty = [name for name, count in kept.items() if not count]
        if empty:
            raise UserError(f"no record for {', '.join(empty)} fits{_reasons(self.misfits)}", hint=hint)
        bad = {**self.misfits, f"longer than {self.max_length} tokens, and so cut": self.receipt.cut}
        bad = {reason: places for reason, places in bad.items() if places}
        _check_share(
            "do not fit as they are", bad, total, tolerance, hint + "; or " * too_long + "a larger --tolerance"
        )
