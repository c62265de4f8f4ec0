"""The shapes of instruction data: which columns hold a conversation, and what one row of them says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gptailor.data.table import Table
from gptailor.data.templates import Message
from gptailor.errors import UserError, did_you_mean

ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


class UnusableError(Exception):
    """Why a row is no conversation, in a short phrase by which such rows can be grouped."""


@dataclass(frozen=True)
class Shape:
    """Columns that hold a conversation, and how their values are read.

    Attributes:
        name: as the user is told.
        needed: columns by which the shape is recognised.
        optional: a column that may be there; ``""`` for none.
        read: from the values of the needed columns and the optional one to messages; raises ``UnusableError``.
    """

    name: str
    needed: tuple[str, ...]
    optional: str
    read: Callable[..., list[Message]]


def recognise(table: Table) -> tuple[Shape, list[str]]:
    """The shape of a table, and its columns that hold the values for ``Shape.read``, in that order.

    Raises:
        UserError: listing the columns, when they have no known shape.
    """
    by_name = {column.strip().lower(): column for column in table.columns}
    for shape in SHAPES:
        if all(name in by_name for name in shape.needed):
            return shape, [by_name[name] for name in (*shape.needed, shape.optional) if name in by_name]
    known = [name for shape in SHAPES for name in (*shape.needed, shape.optional) if name and name not in by_name]
    hints = (did_you_mean(name, known) for name in by_name)
    raise UserError(
        f"{table.path.name} has the columns {', '.join(table.columns)}",
        expected="; or ".join(_told(shape) for shape in SHAPES),
        hint=next(filter(None, hints), ""),
    )


def _told(shape: Shape) -> str:
    return " and ".join(shape.needed) + (f" (with or without {shape.optional})" if shape.optional else "")


def _instruction(instruction: Any, output: Any, more: Any = None) -> list[Message]:
    asked, answered, given = _text(instruction, "instruction"), _text(output, "output"), _text(more, "input")
    return [Message("user", _some(asked, "instruction"), given or ""), Message("assistant", _there(answered, "output"))]


def _completion(prompt: Any, completion: Any) -> list[Message]:
    asked, answered = _text(prompt, "prompt"), _text(completion, "completion")
    return [Message("user", _some(asked, "prompt")), Message("assistant", _there(answered, "completion"))]


def _conversation(value: Any) -> list[Message]:
    """Messages as ``role`` and ``content``, or as ``from`` and ``value``; questions and answers must take turns."""
    if value is None:
        raise UnusableError("has no messages")
    if not isinstance(value, list):
        raise UnusableError(f"messages are {_kind(value)} where a list was expected")
    messages = [_message(item) for item in value]
    roles = [message.role for message in messages if message.role != "system"]
    if "assistant" not in roles:
        raise UnusableError("has no answer")
    if any(message.role == "system" for message in messages[1:]):
        raise UnusableError("has a system message that is not the first")
    if roles != [("user", "assistant")[place % 2] for place in range(len(roles))]:
        raise UnusableError("has messages that are not question and answer in turn")
    return messages


def _message(item: Any) -> Message:
    if not isinstance(item, dict):
        raise UnusableError(f"has {_kind(item)} where a message was expected")
    role = _first(item, ("role", "from"))
    if not isinstance(role, str) or role not in ROLES:
        raise UnusableError(
            "has a message without a role" if role is None else f"has a message of the role {role!r:.40}"
        )
    content = _there(_text(_first(item, ("content", "value")), "content"), "content in a message")
    return Message(ROLES[role], content if ROLES[role] == "assistant" else _some(content, "content in a message"))


def _first(item: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _text(value: Any, name: str) -> str | None:
    """The value as text; None where there is none. A number counts as its digits."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UnusableError(f"{name} is {_kind(value)} where text was expected")
    return None if value != value else str(value)  # only "not a number", a gap in parquet, differs from itself


def _there(text: str | None, name: str) -> str:
    if text is None:
        raise UnusableError(f"has no {name}")
    return text


def _some(text: str | None, name: str) -> str:
    if text is None or not text.strip():
        raise UnusableError(f"has no {name}")
    return text


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


SHAPES = (
    Shape("instructions with inputs and outputs", ("instruction", "output"), "input", _instruction),
    Shape("instructions with contexts and responses", ("instruction", "response"), "context", _instruction),
    Shape("prompts and completions", ("prompt", "completion"), "", _completion),
    Shape("lists of messages", ("messages",), "", _conversation),
    Shape("lists of messages (ShareGPT)", ("conversations",), "", _conversation),
)
