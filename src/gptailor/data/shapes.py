"""The shapes of instruction data: which columns hold a conversation, and what one row of them says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gptailor.data.table import Table
from gptailor.data.templates import Message
from gptailor.errors import UserError, did_you_mean

TEXTS = ("text", "prompt")  # columns of texts to continue
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


class UnusableError(Exception):
    """Why a row is no conversation, in a short phrase by which such rows can be grouped."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called.

    Attributes:
        name: as the user is told.
        needed: columns by which they are recognised.
        optional: a column that may be there; ``""`` for none.
    """

    name: str
    needed: tuple[str, ...]
    optional: str

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, the optional one last."""
        return tuple(filter(None, (*self.needed, self.optional)))


C = TypeVar("C", bound=Columns)


@dataclass(frozen=True)
class Shape(Columns):
    """Columns that hold a conversation, and how their values are read.

    Attributes:
        read: from the values of the needed columns and the optional one to messages; raises ``UnusableError``.
        ask: from the same values, of which all but the first may be None, to the messages that call for an answer, and
            the answer as it is there; raises ``UnusableError``.
    """

    read: Callable[..., list[Message]]
    ask: Callable[..., tuple[list[Message], Any]]


def recognise(table: Table, shapes: Sequence[C]) -> tuple[C, list[str]]:
    """The shape that a table has, and its columns that hold the values, in that order.

    Of several it is the one with more columns there, and the first of equals.

    Raises:
        UserError: listing the columns, when they have no known shape.
    """
    by_name = _by_name(table)
    fitting = [shape for shape in shapes if all(name in by_name for name in shape.needed)]
    if not fitting:
        raise _unknown(table, shapes, map(_told, shapes))
    shape = max(fitting, key=lambda shape: sum(name in by_name for name in shape.columns))
    return shape, [by_name[name] for name in shape.columns if name in by_name]


def recognise_questions(table: Table) -> tuple[Shape, list[str]]:
    """The shape of a table whose answers need not be there, and its columns for ``Shape.ask``: ``""`` for none.

    Of the shapes that ask in the same column, it is the one with more of its other columns.

    Raises:
        UserError: listing the columns, when none holds questions.
    """
    by_name = _by_name(table)
    asking = [shape for shape in SHAPES if shape.needed[0] in by_name]
    if not asking:
        raise _unknown(table, SHAPES, dict.fromkeys(shape.needed[0] for shape in SHAPES))
    shape = max(asking, key=lambda shape: sum(name in by_name for name in shape.columns))
    return shape, [by_name.get(name, "") for name in shape.columns]


def recognise_texts(table: Table) -> str:
    """The column of texts to continue: the only one, or the one called text or prompt.

    Raises:
        UserError: listing the columns, when there is none.
    """
    by_name = _by_name(table)
    names = [by_name[name] for name in TEXTS if name in by_name] or list(table.columns) * (len(table.columns) == 1)
    if not names:
        raise _unknown(table, (), [f"{' or '.join(TEXTS)}, for a model that only continues texts"])
    return names[0]


def _by_name(table: Table) -> dict[str, str]:
    return {column.strip().lower(): column for column in table.columns}


def _unknown(table: Table, shapes: Sequence[Columns], expected: Iterable[str]) -> UserError:
    by_name = _by_name(table)
    known = [name for shape in shapes for name in shape.columns if name not in by_name]
    hints = (did_you_mean(name, known) for name in by_name)
    found = f"{table.path.name} has the columns {', '.join(table.columns)}"
    return UserError(found, expected="; or ".join(expected), hint=next(filter(None, hints), ""))


def _told(shape: Columns) -> str:
    return " and ".join(shape.needed) + (f" (with or without {shape.optional})" if shape.optional else "")


def text_of(value: Any, name: str) -> str:
    """A text to ask with. Raises ``UnusableError`` where there is none."""
    return _some(_text(value, name), name)


def text_if_any(value: Any, name: str) -> str:
    """A text that may be absent. Raises ``UnusableError`` for what is none."""
    return _text(value, name) or ""


def _ask_instruction(instruction: Any, output: Any, more: Any = None) -> tuple[list[Message], Any]:
    return [Message("user", text_of(instruction, "instruction"), _text(more, "input") or "")], output


def _ask_prompt(prompt: Any, completion: Any) -> tuple[list[Message], Any]:
    return [Message("user", text_of(prompt, "prompt"))], completion


def _ask_conversation(value: Any) -> tuple[list[Message], Any]:
    messages = turns(value, "user")
    return (messages[:-1], messages[-1].content) if messages[-1].role == "assistant" else (messages, None)


def _instruction(instruction: Any, output: Any, more: Any = None) -> list[Message]:
    asked, answered, given = _text(instruction, "instruction"), _text(output, "output"), _text(more, "input")
    return [Message("user", _some(asked, "instruction"), given or ""), Message("assistant", _there(answered, "output"))]


def _completion(prompt: Any, completion: Any) -> list[Message]:
    asked, answered = _text(prompt, "prompt"), _text(completion, "completion")
    return [Message("user", _some(asked, "prompt")), Message("assistant", _there(answered, "completion"))]


def _conversation(value: Any) -> list[Message]:
    return turns(value, "assistant")


def turns(value: Any, needed: str) -> list[Message]:
    """Messages as ``role`` and ``content``, or as ``from`` and ``value``; questions and answers must take turns.

    Args:
        needed: a role that must occur.
    """
    messages = messages_of(value)
    check_turns(messages, needed)
    return messages


def messages_of(value: Any) -> list[Message]:
    """The messages of a list. Raises ``UnusableError`` when it is none."""
    if value is None:
        raise UnusableError("has no messages")
    if not isinstance(value, list):
        raise UnusableError(f"messages are {_kind(value)} where a list was expected")
    return [_message(item) for item in value if not _says_nothing(item)]


def check_turns(messages: Sequence[Message], needed: str) -> None:
    """Raises ``UnusableError`` unless questions and answers take turns, and the role ``needed`` occurs."""
    roles = [message.role for message in messages if message.role != "system"]
    if needed not in roles:
        raise UnusableError(f"has no {'answer' if needed == 'assistant' else 'question'}")
    if any(message.role == "system" for message in messages[1:]):
        raise UnusableError("has a system message that is not the first")
    if roles != [("user", "assistant")[place % 2] for place in range(len(roles))]:
        raise UnusableError("has messages that are not question and answer in turn")


def _says_nothing(item: Any) -> bool:
    """Whether it is a system message without content, as many exports write one."""
    if not isinstance(item, dict) or _first(item, ("role", "from")) != "system":
        return False
    content = _first(item, ("content", "value"))
    return content is None or (isinstance(content, str) and not content.strip())


def _message(item: Any) -> Message:
    if not isinstance(item, dict):
        raise UnusableError(f"has {_kind(item)} where a message was expected")
    role = _first(item, ("role", "from"))
    if not isinstance(role, str) or role not in ROLES:
        raise UnusableError(
            "has a message without a role" if role is None else f"has a message of the role {role!r:.40}"
        )
    if ROLES[role] == "assistant" and item.get("weight") == 0:
        raise UnusableError("has an answer of weight 0, that is, one not to be learned")
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
    *(
        Shape(f"instructions with {more}s and {answer}s", ("instruction", answer), more, _instruction, _ask_instruction)
        for answer, more in (
            ("output", "input"),
            ("response", "context"),
            ("output", "context"),
            ("response", "input"),
        )
    ),
    Shape("prompts and completions", ("prompt", "completion"), "", _completion, _ask_prompt),
    Shape("lists of messages", ("messages",), "", _conversation, _ask_conversation),
    Shape("lists of messages (ShareGPT)", ("conversations",), "", _conversation, _ask_conversation),
)
