"""Conversations to token ids of which it is known which are learned.

What is learned follows from how a conversation is put together and is never searched for: the answers, each with the
end of text behind it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gptailor.data.instruction import Record, Row, check_share, reasons
from gptailor.data.receipt import InstructionReceipt
from gptailor.data.templates import Message, Segment, Template
from gptailor.errors import UserError
from gptailor.tokenizer import Tokenizer

LONGER = "a larger --max-length, up to the context of the base; or a shorter --template, such as plain"
CHUNK = 1000  # records that are rendered at once: their texts are not kept
Learn = Literal["response", "last", "all"]


def encode(
    parts: Mapping[str, Sequence[Row]],
    template: Template,
    tokenizer: Tokenizer,
    max_length: int,
    receipt: InstructionReceipt,
    *,
    learn: Learn = "response",
    keep_turns: bool = False,
    overlong: Literal["cut", "drop"] = "cut",
    tolerance: float = 0.1,
) -> dict[str, list[Row]]:
    """Gives every record its ids, and returns the parts without the records that do not fit.

    A record that is too long loses whole turns from its end, or else the end of its only answer; the end of text stays
    behind it. One whose question alone leaves no room for an answer is left out.

    Args:
        max_length: how many tokens the model reads at most; the end of text behind them is only foretold.
        learn: every answer, the last one of each record, or everything.
        keep_turns: only the last answer counts as one: it alone is cut, and all before it is its question.
        overlong: whether a record that is too long is cut, or left out.
        tolerance: the share of records that may be cut or left out.

    Raises:
        UserError: a part is left without records, or too many records do not fit: all reasons, with lines.
    """
    fitting = _Fitting(max_length, tokenizer.end_of_text, overlong, receipt)
    kept: dict[str, list[Row]] = {}
    for name, records in parts.items():
        kept[name] = []
        for start in range(0, len(records), CHUNK):
            chunk, pieces = _rendered(records[start : start + CHUNK], template, fitting.misfits)
            tokens = _tokens(pieces, tokenizer)
            for record in chunk:
                encoded = [next(tokens) for _ in record.sides]
                for side in encoded if keep_turns else []:
                    side.answers = side.answers[-1:]
                if fitting.fit(record.where, encoded):
                    for side, one in zip(record.sides, encoded, strict=True):
                        _store(side, one, learn)
                    receipt.learn(name, *(side.learned for side in record.sides))
                    kept[name].append(record)
    fitting.check({name: len(records) for name, records in kept.items()}, tolerance)
    return kept


def _rendered(
    records: Sequence[Row], template: Template, misfits: dict[str, list[str]]
) -> tuple[list[Row], list[list[Segment]]]:
    """The records that the template has room for, and the segments of all their sides."""
    fitting, pieces = [], []
    for record in records:
        try:
            pieces += [template.segments(side.messages) for side in record.sides]
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

    def fit(self, where: str, sides: Sequence[_Encoded]) -> bool:
        """Shortens what is too long; False when the record must be left out."""
        lengths, prompt = [len(side.ids) - 1 for side in sides], max(side.answers[0][0] for side in sides)
        self.receipt.lengths += lengths
        if prompt >= self.max_length:
            self.prompts.append((prompt, where))
            return False
        too_long = max(lengths) > self.max_length
        if too_long and self.overlong == "drop":
            self.misfits[f"longer than {self.max_length} tokens"].append(where)
            return False
        if len({tuple(side.ids[: self.max_length]) for side in sides}) < len(sides):
            self.misfits[f"has sides that do not differ within {self.max_length} tokens"].append(where)
            return False
        for side, length in zip(sides, lengths, strict=True):
            if length > self.max_length:
                self._shorten(side)
        if too_long:
            self.receipt.cut.append(where)
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
            raise UserError(f"no record for {', '.join(empty)} fits{reasons(self.misfits)}", hint=hint)
        bad = {**self.misfits, f"longer than {self.max_length} tokens, and so cut": self.receipt.cut}
        bad = {reason: places for reason, places in bad.items() if places}
        check_share("do not fit as they are", bad, total, tolerance, hint + "; or " * too_long + "a larger --tolerance")
