"""Rows of a table to pairs: two conversations that share all but their last answer, of which one is preferred.

Both sides become tokens as the record of an assistant does (``encoding``). The prompt is the same tokens in both;
learned is the last answer of each, with the end of text behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gptailor.data.encoding import encode
from gptailor.data.instruction import Record, read_rows
from gptailor.data.receipt import PreferenceReceipt
from gptailor.data.shapes import Columns, UnusableError, check_turns, messages_of, text_if_any, text_of
from gptailor.data.table import Table
from gptailor.data.templates import Message, Template
from gptailor.tokenizer import Tokenizer


@dataclass(slots=True)
class Pair:
    """Two answers to one prompt; ``chosen`` is the better one."""

    chosen: Record
    rejected: Record

    @property
    def where(self) -> str:
        """File and line."""
        return self.chosen.where

    @property
    def sides(self) -> tuple[Record, Record]:
        """Chosen and rejected."""
        return self.chosen, self.rejected

    @property
    def n_inputs(self) -> int:
        """How many tokens the model reads of the longer side."""
        return max(side.n_inputs for side in self.sides)

    def opening(self) -> Hashable:
        """What stands before the first answer: pairs that share it must not be in two parts."""
        return self.chosen.opening()

    def content(self) -> Hashable:
        """The prompt and both answers."""
        return (*self.chosen.messages, self.rejected.answer)

    def as_row(self) -> dict[str, object]:
        """The pair as instruction, input and output, which is the chosen answer, with both answers by their names."""
        return {**self.chosen.as_row(), "chosen": self.chosen.answer, "rejected": self.rejected.answer}


@dataclass(frozen=True)
class PairShape(Columns):
    """Columns that hold a pair.

    Attributes:
        read: from the values of the needed columns and the optional one to the messages of both sides; raises
            ``UnusableError``.
    """

    read: Callable[..., tuple[list[Message], list[Message]]]


def collect_pairs(tables: Sequence[Table], receipt: PreferenceReceipt, *, tolerance: float = 0.1) -> list[Pair]:
    """The pairs of some tables, with an entry in the receipt for every row that is none.

    Args:
        tolerance: the share of rows that may be unusable: an empty side, two sides that are the same, no text.

    Raises:
        UserError: a table without known columns, no usable row, or too many unusable ones: all reasons, with lines.
    """

    def read(shape: PairShape, values: Sequence[object], where: str) -> Pair:
        return _pair(*shape.read(*values), where, receipt)

    return read_rows(tables, SHAPES, read, receipt, tolerance)


def encode_pairs(
    parts: Mapping[str, Sequence[Pair]],
    template: Template,
    tokenizer: Tokenizer,
    max_length: int,
    receipt: PreferenceReceipt,
    *,
    overlong: Literal["cut", "drop"] = "cut",
    tolerance: float = 0.1,
) -> dict[str, list[Pair]]:
    """Gives both sides of every pair their ids; see ``encoding.encode``.

    A side that is too long loses the end of its last answer. A pair whose prompt alone leaves no room, or whose sides
    do not differ in what is left, is left out.
    """
    how: dict[str, Any] = {"keep_turns": True, "overlong": overlong, "tolerance": tolerance}
    return encode(parts, template, tokenizer, max_length, receipt, **how)


def _pair(chosen: list[Message], rejected: list[Message], where: str, receipt: PreferenceReceipt) -> Pair:
    """Raises ``UnusableError`` unless the sides answer the same prompt, and in different ways."""
    sides = {"chosen": chosen, "rejected": rejected}
    for name, messages in sides.items():
        check_turns(messages, "assistant")
        if messages[-1].role != "assistant":
            raise UnusableError(f"has a {name} side that ends without an answer")
    if chosen[:-1] != rejected[:-1]:
        raise UnusableError("has sides that differ before their last answer")
    for name, messages in sides.items():
        if not messages[-1].content.strip():
            receipt.empty_sides[name].append(where)
            raise UnusableError(f"has an empty {name} side")
    if chosen == rejected:
        receipt.identical.append(where)
        raise UnusableError("has sides that are the same")
    return Pair(Record(chosen, where), Record(rejected, where))


def _from_instruction(instruction: Any, chosen: Any, rejected: Any, more: Any = None) -> tuple[Any, Any]:
    prompt = [Message("user", text_of(instruction, "instruction"), text_if_any(more, "input"))]
    return _side(prompt, chosen, "chosen"), _side(prompt, rejected, "rejected")


def _from_prompt(prompt: Any, chosen: Any, rejected: Any) -> tuple[Any, Any]:
    asked = messages_of(prompt) if isinstance(prompt, list) else [Message("user", text_of(prompt, "prompt"))]
    return _side(asked, chosen, "chosen"), _side(asked, rejected, "rejected")


def _from_messages(chosen: Any, rejected: Any) -> tuple[Any, Any]:
    return messages_of(chosen), messages_of(rejected)


def _side(prompt: list[Message], value: Any, name: str) -> list[Message]:
    """The prompt with its answer: a text, or messages, which may tell the prompt once more."""
    if not isinstance(value, list):
        return [*prompt, Message("assistant", text_if_any(value, name))]
    said = messages_of(value)
    if said and said[0].role == "assistant":
        return [*prompt, *said]
    for n_repeated in range(len(prompt), 0, -1):  # all of the prompt, or its last messages
        if said[:n_repeated] == prompt[-n_repeated:]:
            return [*prompt, *said[n_repeated:]]
    if said[1 : 1 + len(prompt)] == prompt and said[0].role == "system":
        return said
    raise UnusableError(f"has a {name} side that does not begin with the prompt")


SHAPES = (
    PairShape("instructions with two answers", ("instruction", "chosen", "rejected"), "input", _from_instruction),
    PairShape("prompts with two answers", ("prompt", "chosen", "rejected"), "", _from_prompt),
    PairShape("two lists of messages", ("chosen", "rejected"), "", _from_messages),
)
