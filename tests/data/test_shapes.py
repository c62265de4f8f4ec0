"""Every known shape of instruction data is recognised by its columns, and what is none is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptailor.data.shapes import SHAPES, UnusableError, recognise
from gptailor.data.table import Table
from gptailor.data.templates import Message
from gptailor.errors import UserError

HELLO = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
ASKED, SAID = Message("user", "Hi"), Message("assistant", "Hello")


def table(**columns: Any) -> Table:
    return Table(Path("t.json"), "", 0, "json", {name: [value] for name, value in columns.items()}, [1])


def read(**columns: Any) -> list[Message]:
    shape, names = recognise(table(**columns), SHAPES)
    return shape.read(*(columns[name] for name in names))


@pytest.mark.parametrize(
    ("columns", "used"),
    [
        ({"instruction": "Hi", "input": "", "output": "Hello"}, ["instruction", "output", "input"]),
        ({"instruction": "Hi", "output": "Hello"}, ["instruction", "output"]),
        ({"Output": "Hello", "id": 3, "Instruction": "Hi", "Input": None}, ["Instruction", "Output", "Input"]),
        ({"instruction": "Hi", "context": "", "response": "Hello", "category": "open"}, None),
        ({"instruction": "Hi", "input": "", "response": "Hello"}, ["instruction", "response", "input"]),
        ({"instruction": "Hi", "context": "", "output": "Hello"}, ["instruction", "output", "context"]),
        ({"prompt": "Hi", "completion": "Hello"}, ["prompt", "completion"]),
        ({"messages": [{"role": "system", "content": " "}, *HELLO]}, ["messages"]),
        ({"messages": [{"role": "system", "content": None}, *HELLO]}, ["messages"]),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}, ["messages"]),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, ["conversations"]),
        ({"messages": [{"from": "user", "value": "Hi"}, {"from": "assistant", "content": "Hello"}]}, ["messages"]),
    ],
)
def test_one_question_and_its_answer_in_every_shape(columns: dict[str, Any], used: list[str] | None) -> None:
    assert read(**columns) == [ASKED, SAID]
    assert used is None or recognise(table(**columns), SHAPES)[1] == used


def test_texts_are_taken_as_they_are_and_numbers_as_their_digits() -> None:
    assert read(instruction=" a\n", input=" ", output=" b ") == [
        Message("user", " a\n", " "),
        Message("assistant", " b "),
    ]
    assert read(instruction="2 + 2.5?", input=2, output=4.5) == [
        Message("user", "2 + 2.5?", "2"),
        Message("assistant", "4.5"),
    ]
    assert read(instruction="a", context="c", response="b")[0] == Message("user", "a", "c")
    assert read(instruction="a", input=float("nan"), output="")[1] == Message("assistant", "")


def test_several_turns() -> None:
    turns = [("system", "s"), ("human", "q"), ("gpt", "a"), ("human", "r"), ("gpt", "b"), ("human", "t")]
    messages = read(conversations=[{"from": role, "value": text} for role, text in turns])
    assert [(message.role[0], message.content) for message in messages] == [
        ("s", "s"), ("u", "q"), ("a", "a"), ("u", "r"), ("a", "b"), ("u", "t")
    ]  # fmt: skip


def said(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "x"} for role in roles]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"instruction": None, "output": "b"}, "has no instruction"),
        ({"instruction": " \n", "output": "b"}, "has no instruction"),
        ({"instruction": "a", "output": None}, "has no output"),
        ({"instruction": "a", "output": ["b"]}, "output is a list where text was expected"),
        ({"instruction": {"a": 1}, "output": "b"}, "instruction is an object where text was expected"),
        ({"instruction": "a", "input": True, "output": "b"}, "input is true or false where text was expected"),
        ({"prompt": "", "completion": "b"}, "has no prompt"),
        ({"prompt": "a", "completion": None}, "has no completion"),
        ({"messages": None}, "has no messages"),
        ({"messages": "hi"}, "messages are text where a list was expected"),
        ({"messages": {}}, "messages are an object where a list was expected"),
        ({"messages": []}, "has no answer"),
        ({"messages": said("user")}, "has no answer"),
        ({"messages": ["hi"]}, "has text where a message was expected"),
        ({"messages": [{"content": "x"}]}, "has a message without a role"),
        ({"messages": said("user", "tool")}, "has a message of the role 'tool'"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, r"has a message of the role \['user'\]"),
        ({"messages": [{"role": "user"}]}, "has no content in a message"),
        ({"messages": [HELLO[0], {**HELLO[1], "weight": 0}]}, "has an answer of weight 0, .* not to be learned"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "content is a list where text was expected"),
        ({"messages": said("user", "assistant", "system")}, "has a system message that is not the first"),
        ({"messages": said("assistant", "user", "assistant")}, "has messages that are not question and answer in turn"),
        ({"messages": said("user", "user", "assistant")}, "has messages that are not question and answer in turn"),
    ],
)
def test_what_is_no_conversation_is_told(columns: dict[str, Any], why: str) -> None:
    with pytest.raises(UnusableError, match=f"^{why}$"):
        read(**columns)


def test_unknown_columns_are_told_with_those_that_are_known() -> None:
    expected = (
        r"^t\.json has the columns instructoin, output\n"
        r"  expected: instruction and output \(with or without input\); or .*; or messages; or conversations\n"
        r"  try:      did you mean 'instruction'\?$"
    )
    with pytest.raises(UserError, match=expected):
        recognise(table(instructoin="a", output="b"), SHAPES)
