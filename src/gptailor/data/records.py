"""Json, json lines and parquet: records with named values to columns."""

from __future__ import annotations

import io
import json
import re
from itertools import chain
from typing import Any, cast

from gptailor.data.lines import NUL, Source, readable
from gptailor.data.table import COLUMN_LIMIT, Dropped, Table
from gptailor.errors import UserError, listing

_SUSPECT = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")  # escapes that may make characters that no text has


def parsed(text: str) -> object:
    """The JSON value of ``text``; the exception itself, as a value, when there is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return error


def read_jsonl(source: Source) -> Table:
    """Read one object from each line; what is no object is dropped. Raises ``UserError`` for too many keys."""
    rows = _Rows()
    for line in source.lines():
        if line.problem:
            rows.dropped.append(Dropped(line.number, line.problem))
        elif line.text.strip():
            rows.add(line.number, parsed(line.text), suspect=bool(_SUSPECT.search(line.text)))
    return source.table("jsonl", rows.columns, rows.lines, rows.dropped)


def read_json(source: Source) -> Table:
    """Read a list of objects, or one object that holds one such list; json lines are read as those.

    Raises:
        UserError: when the file cannot be decoded or is not JSON, or holds something else.
    """
    raw = b"".join(source.chunks())
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise source.encoding_error() from error
    del raw
    value = parsed(text)
    if isinstance(value, json.JSONDecodeError) and isinstance(parsed(text.lstrip().split("\n", 1)[0]), dict):
        source.said.append("one JSON object on each line")
        return read_jsonl(source)
    rows, suspect = _Rows(), bool(_SUSPECT.search(text))
    for number, item in enumerate(_list_in(value, source), 1):
        rows.add(number, item, suspect=suspect)
    return source.table("json", rows.columns, rows.lines, rows.dropped)


def _list_in(value: object, source: Source) -> list[Any]:
    expected = "a list of objects, or one object that holds one such list"
    if isinstance(value, list):
        return value
    if isinstance(value, json.JSONDecodeError):
        where = f"line {value.lineno}, column {value.colno}"
        raise UserError(f"{source.path} is not valid JSON: {value.msg} at {where}", expected=expected)
    if isinstance(value, Exception):
        raise UserError(f"{source.path} cannot be read as JSON: {value}", expected=expected) from value
    if not isinstance(value, dict):
        raise UserError(f"{source.path} holds {_kind(value)}", expected=expected)
    lists = [key for key, inner in value.items() if isinstance(inner, list)]
    if len(lists) != 1:
        keys = listing(map(repr, value)) or "none"
        raise UserError(f"{source.path} holds one object with the keys {keys}", expected=expected)
    source.said.append(f"the records are the list under {lists[0]!r}")
    return value[lists[0]]


class _Rows:
    """Objects as columns: the union of their keys, None where an object lacks one."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {}
        self.lines: list[int] = []
        self.dropped: list[Dropped] = []

    def add(self, line: int, value: object, *, suspect: bool) -> None:
        """Append one parsed value, or drop it; only ``suspect`` ones are searched for characters that no text has."""
        problem = _not_an_object(value) or (_character_problem(value) if suspect else "")
        if problem:
            self.dropped.append(Dropped(line, problem))
            return
        row = cast("dict[str, Any]", value)
        for key in row:
            if key not in self.columns:
                self.columns[key] = [None] * len(self.lines)
        if len(self.columns) > COLUMN_LIMIT:
            raise UserError(f"found more than {COLUMN_LIMIT:,} different keys", expected="the same keys in each record")
        self.lines.append(line)
        for key, column in self.columns.items():
            column.append(row.get(key))


def _not_an_object(value: object) -> str:
    if isinstance(value, Exception):
        return "not valid JSON"
    return "" if isinstance(value, dict) else f"{_kind(value)} where an object was expected"


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "true or false"}
    return names.get(type(value), "null")


def _character_problem(value: object) -> str:
    if isinstance(value, str):
        return NUL if "\0" in value else "holds half a character" if re.search("[\ud800-\udfff]", value) else ""
    inner = chain(value.keys(), value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(_character_problem, inner)), "")


def read_parquet(source: Source) -> Table:
    """Read all columns; rows whose text holds a NUL are dropped.

    Raises:
        UserError: when the file is damaged or pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(f"reading {source.path} needs pyarrow", hint='pip install "gptailor[parquet]"') from error
    try:
        with readable(source.path):
            # A compressed parquet file must be unpacked first: its index stands at the end.
            where = io.BytesIO(b"".join(source.stored())) if source.compressed else source.path
            columns = parquet.read_table(where).to_pydict()
    except (arrow.ArrowException, ValueError) as error:
        raise UserError(f"{source.path} is not a readable parquet file: {error}") from error
    count = len(next(iter(columns.values()), []))
    bad = {at for values in columns.values() for at, value in enumerate(values) if _has_nul(value)}
    kept = [at for at in range(count) if at not in bad]
    columns = {str(name): [values[at] for at in kept] for name, values in columns.items()}
    return source.table("parquet", columns, [at + 1 for at in kept], [Dropped(at + 1, NUL) for at in sorted(bad)])


def _has_nul(value: object) -> bool:
    return isinstance(value, str) and "\0" in value
