"""Files of prompts: every shape that is trained on, with and without answers, as the rows that are written again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptailor.data.prompts import Prompt, read_prompts
from gptailor.data.templates import Message
from gptailor.errors import UserError


def prompt_of(tmp_path: Path, row: dict[str, Any], *, questions: bool = True) -> Prompt:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([row]), encoding="utf-8")
    ((prompt,), _) = read_prompts(file, questions=questions)
    return prompt


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(contents)]


ASKED = {"instruction": "q", "input": ""}


@pytest.mark.parametrize(
    ("row", "written"),
    [
        ({"instruction": "q"}, ASKED),
        ({"instruction": "q", "output": None}, ASKED),
        ({"instruction": "q", "input": None, "output": "a"}, {**ASKED, "output": "a"}),
        ({"id": 3, "instruction": "q", "output": ["a", "b"]}, {**ASKED, "output": ["a", "b"], "id": 3}),
        ({"Instruction": "q", "response": "a", "category": "c"}, {**ASKED, "output": "a", "category": "c"}),
        ({"prompt": "q"}, ASKED),
        ({"prompt": "q", "completion": "a"}, {**ASKED, "output": "a"}),
        ({"messages": turns("q")}, ASKED),
        ({"messages": turns("q", "a")}, {**ASKED, "output": "a"}),
        ({"conversations": [{"from": "human", "value": "q"}]}, ASKED),
    ],
)
def test_a_question_in_every_shape_with_and_without_its_answer(
    tmp_path: Path, row: dict[str, Any], written: dict[str, Any]
) -> None:
    prompt = prompt_of(tmp_path, row)
    assert prompt == Prompt("rows.json:1", written, [Message("user", "q")])
    assert [*prompt.row] == [*written], "the book's columns come first"


def test_contexts_are_inputs(tmp_path: Path) -> None:
    prompt = prompt_of(tmp_path, {"instruction": "q", "context": "c"})
    assert prompt.messages == [Message("user", "q", "c")] and prompt.row == {"instruction": "q", "input": "c"}


def test_what_was_said_before_is_history(tmp_path: Path) -> None:
    prompt = prompt_of(tmp_path, {"messages": turns("q", "a", "r")})
    assert prompt.messages == [Message("user", "q"), Message("assistant", "a"), Message("user", "r")]
    assert prompt.row == {"instruction": "r", "input": "", "history": turns("q", "a")}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"instruction": " ", "id": 1}, "has no instruction"),
        ({"prompt": ["q"]}, "prompt is a list where text was expected"),
        ({"messages": []}, "has no question"),
        ({"messages": turns("q")[:1] * 2}, "has messages that are not question and answer in turn"),
    ],
)
def test_a_row_that_asks_nothing_stays_as_it_is(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    assert prompt_of(tmp_path, row) == Prompt("rows.json:1", row, problem=problem)


@pytest.mark.parametrize("row", [{"text": "t", "id": 3}, {"id": 3, "Prompt": "t"}, {"anything": "t"}])
def test_texts_to_continue(tmp_path: Path, row: dict[str, Any]) -> None:
    assert prompt_of(tmp_path, row, questions=False) == Prompt("rows.json:1", row, [Message("user", "t")])


def test_a_text_file_has_a_prompt_on_each_line(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_bytes(b"instruction, output\r\n\n \nto be, or\nbad \xff\n")
    prompts, table = read_prompts(file, questions=True)
    assert [(one.where, one.row) for one in prompts] == [
        ("lines.txt:1", {"instruction": "instruction, output", "input": ""}),
        ("lines.txt:4", {"instruction": "to be, or", "input": ""}),
    ]
    assert [row.line for row in table.dropped] == [5]
    assert [one.row for one in read_prompts(file, questions=False)[0]][1] == {"text": "to be, or"}
    file.write_bytes(b"\xff\n")
    with pytest.raises(UserError, match="no line that can be read"):
        read_prompts(file, questions=True)


@pytest.mark.parametrize(
    ("questions", "expected"),
    [
        (True, r"has the columns promt, id\n  expected: instruction; or prompt; or messages; .*\n.*'prompt'"),
        (False, r"has the columns promt, id\n  expected: text or prompt, for a model that only continues texts$"),
    ],
)
def test_columns_that_hold_no_prompts_are_listed(tmp_path: Path, questions: bool, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        prompt_of(tmp_path, {"promt": "q", "id": 1}, questions=questions)
