"""Files of prompts: questions to an assistant, or texts that a base model continues. Answers may be there or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptailor.data.instruction import Record
from gptailor.data.lines import Source, without_cr
from gptailor.data.shapes import UnusableError, recognise_questions, recognise_texts, text_of
from gptailor.data.sources import read_table
from gptailor.data.table import Dropped, Table
from gptailor.data.templates import Message
from gptailor.errors import UserError

Read = Callable[[dict[str, Any]], tuple[dict[str, Any], list[Message]]]


@dataclass(frozen=True)
class Prompt:
    """One row of a file.

    Attributes:
        where: file and line.
        row: the record as it is written beside an answer: a question as instruction, input and output, as the book has
            it, whatever its shape, and behind them the columns that are not used.
        messages: what calls for an answer; empty where ``problem`` says why the row asks nothing.
    """

    where: str
    row: dict[str, Any]
    messages: list[Message] = field(default_factory=list)
    problem: str = ""


def read_prompts(path: Path, *, questions: bool) -> tuple[list[Prompt], Table]:
    """The rows of a file, in order: all that ``train assistant`` takes, with or without answers; or a text each.

    A ``.txt`` file holds a prompt on each line that is not blank.

    Args:
        questions: whether they are asked; or else continued, and a text each.

    Returns:
        The prompts, and the table: it has the rows that could not be read, and what was found out about the file.

    Raises:
        UserError: when the file cannot be read, or has no column of prompts.
    """
    table = _lines(path, "instruction" if questions else "text") if _is_text(path) else read_table(path)
    read = _question_reader(table) if questions else _text_reader(table)
    prompts = []
    for line, *values in zip(table.lines, *table.columns.values(), strict=True):
        where = f"{table.path.name}:{line}"
        row = {name: _without_gap(value) for name, value in zip(table.columns, values, strict=True)}
        try:
            prompts.append(Prompt(where, *read(row)))
        except UnusableError as error:
            prompts.append(Prompt(where, row, problem=str(error)))
    return prompts, table


def _is_text(path: Path) -> bool:
    return path.is_file() and ".txt" in path.suffixes[-2:]


def _lines(path: Path, column: str) -> Table:
    source = Source(path)
    source.check_text()
    lines = [line for line in source.lines() if line.problem or line.text.strip()]
    good = [line for line in lines if not line.problem]
    if not good:
        raise UserError(f"{path} has no line that can be read", expected="a prompt on each line")
    columns = {column: [without_cr(line.text) for line in good]}
    dropped = [Dropped(line.number, line.problem) for line in lines if line.problem]
    return source.table("text", columns, [line.number for line in good], dropped)


def _without_gap(value: Any) -> Any:
    """Only "not a number", a gap in parquet, differs from itself."""
    return None if isinstance(value, float) and value != value else value


def _text_reader(table: Table) -> Read:
    column = recognise_texts(table)
    return lambda row: (row, [Message("user", text_of(row[column], "text"))])


def _question_reader(table: Table) -> Read:
    shape, used = recognise_questions(table)

    def read(row: dict[str, Any]) -> tuple[dict[str, Any], list[Message]]:
        messages, answer = shape.ask(*(row.get(name) for name in used))
        asked = Record([*messages, Message("assistant", answer)], "").as_row()
        if answer is None:
            del asked["output"]
        rest = {name: value for name, value in row.items() if name not in used and name not in asked}
        return {**asked, **rest}, messages

    return read
