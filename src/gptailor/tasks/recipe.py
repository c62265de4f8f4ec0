"""The file of a sweep: one task, and rows of options that differ from what they have in common."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gptailor.config import TASKS, RunConfig, TableConfig, load_config
from gptailor.data.inputs import read_parts
from gptailor.data.receipt import Receipt
from gptailor.errors import UserError, did_you_mean, listing
from gptailor.tasks.corpus import parse_sources
from gptailor.weights.base import open_base

OWN = {  # options of a run that the sweep decides
    "out": "each run has its own folder below --out of the sweep",
    "seed": "say seed: at the top of the file",
    "seeds": "say seeds: at the top of the file",
}
LONGEST_NAME = 100  # characters of a folder's name before the seed


class SweepFile(BaseModel):
    """What stands in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = Field(description=f"what is trained: {listing(TASKS)}")
    seeds: int = Field(1, description="runs of each row", ge=1, le=1000)
    seed: int = Field(123, description="the first seed", ge=0, lt=2**31 - 1000)
    common: dict[str, Any] = Field({}, description="options of every row")
    rows: list[dict[str, Any]] | None = Field(None, description="what each row changes; the first one is compared with")
    grid: dict[str, list[Any]] | None = Field(
        None, description="options with the values of which every choice is a row"
    )

    @field_validator("task")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in TASKS:
            raise ValueError(f"Input should be {listing(TASKS)}. {did_you_mean(value, TASKS)}".rstrip(". "))
        return value

    @model_validator(mode="after")
    def _rows_or_grid(self) -> SweepFile:
        if (self.rows is None) == (self.grid is None) or not self.changes():
            raise ValueError("a sweep has either rows or a grid, and at least one row in it")
        return self

    def changes(self) -> list[dict[str, Any]]:
        """What each row says: those of ``rows``, or all choices from ``grid``, the last option changing fastest."""
        if self.rows is not None:
            return self.rows
        assert self.grid is not None
        return [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]


@dataclass(frozen=True)
class Row:
    """One setting.

    Attributes:
        number: from 1, as the table and the errors count.
        change: what differs from the options in common, in words.
        means: the sentence that the file says of it.
        name: what its folders are called, before the seed.
        config: all options, as they were given; ``out`` and ``seed`` are those of a run.
        given: the names of those that the file sets.
    """

    number: int
    change: str
    means: str
    name: str
    config: RunConfig
    given: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """A sweep whose every setting has been checked."""

    file: Path
    task: str
    seeds: list[int]
    rows: list[Row]


def read_recipe(file: Path, data: Sequence[str] = ()) -> Recipe:
    """Reads the file and checks every row; ``data``, where given, takes the place of the file's.

    Raises:
        UserError: everything that is wrong, in the file and in all its rows, with the row's number.
    """
    read = load_config(SweepFile, file, {})
    kind = TASKS[read.task]
    common = dict(read.common)
    if data:
        several = get_origin(kind.model_fields["data"].annotation) is list
        common["data"] = list(data) if several or len(data) > 1 else data[0]
    rows: list[Row] = []
    problems: list[tuple[int, UserError]] = []
    for number, change in enumerate(read.changes(), 1):
        try:
            rows.append(_row(kind, number, common, change, rows))
        except UserError as error:
            problems += [(number, problem) for problem in error.problems]
    if not problems:
        problems = _missing(rows)
    if problems:
        raise _told(problems, len(read.changes()))
    return Recipe(file, read.task, list(range(read.seed, read.seed + read.seeds)), rows)


def _row(kind: type[RunConfig], number: int, common: dict[str, Any], change: dict[str, Any], before: list[Row]) -> Row:
    change = {str(key): value for key, value in change.items()}
    means = str(change.pop("means", ""))
    options = common | change
    if taken := [name for name in OWN if name in options]:
        raise UserError.joined([UserError(f"{name} is no option of a row", hint=OWN[name]) for name in taken])
    config = load_config(kind, None, options)
    same = [row.number for row in before if row.config == config]
    if same:
        raise UserError(f"the same setting as row {same[0]}")
    words = ", ".join(f"{key.replace('_', ' ')} {_word(value)}" for key, value in change.items())
    name = _folder_name(change, [row.name for row in before])
    return Row(number, words or "the baseline", means, name, config, tuple(options))


def _word(value: Any) -> str:
    """A value as YAML writes it."""
    if isinstance(value, list):
        return " ".join(map(_word, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _folder_name(change: dict[str, Any], taken: Sequence[str]) -> str:
    """``layers-head_lr-0.001``; ``baseline`` for no change. A hash is added only where that is too long or taken."""
    said = "_".join(f"{key}-{_word(value)}" for key, value in change.items()) or "baseline"
    name = re.sub(r"[^\w.+=-]+", "-", said, flags=re.ASCII).strip("-.")
    if len(name) > LONGEST_NAME or name in taken or not name:
        return f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
    return name


def _missing(rows: list[Row]) -> list[tuple[int, UserError]]:
    """What cannot be found of the data and the bases that the rows name; each is looked for once."""
    looked: dict[str, list[UserError]] = {}
    problems = []
    for row in rows:
        config = row.config
        named = {key: getattr(config, key, None) for key in ("data", "validation", "test", "format", "encoding")}
        for key, look in (
            (f"base {config.base} {config.tokenizer}", lambda c=config: open_base(c.base, c.tokenizer)),
            (f"data {named}", lambda c=config: _read_data(c)),
        ):
            if key not in looked:
                looked[key] = _refusals(look)
            problems += [(row.number, problem) for problem in looked[key]]
    return problems


def _read_data(config: Any) -> None:
    if isinstance(config, TableConfig):
        read_parts(config, Receipt())
    else:
        parse_sources(config.data)


def _refusals(look: Callable[[], object]) -> list[UserError]:
    try:
        look()
    except UserError as error:
        return error.problems
    return []


def _told(problems: Sequence[tuple[int, UserError]], n_rows: int) -> UserError:
    """One error of all; a problem that several rows have is told once."""
    rows_of: dict[str, list[int]] = {}
    for number, problem in problems:
        rows_of.setdefault(str(problem), []).append(number)
    joined = []
    for _, problem in problems:
        numbers = rows_of.pop(str(problem), [])
        if numbers:
            every = "every row" if len(numbers) == n_rows > 1 else ""
            where = every or f"row{'s' * (len(numbers) > 1)} {listing(numbers)}"
            joined.append(UserError(f"{where}: {problem.found}", expected=problem.expected, hint=problem.hint))
    return UserError.joined(joined)


def arguments(row: Row) -> list[str]:
    """The row as ``gptailor train TASK`` takes it: the data, and a flag for every option that the file sets."""
    fields, flags, data = type(row.config).model_fields, [], []
    for name in row.given:
        value, default = getattr(row.config, name), fields[name].default
        flag = "--" + name.replace("_", "-")
        if name == "data":
            data = value if isinstance(value, list) else [value]
        elif isinstance(default, bool):
            flags += [] if value == default else [flag if value else f"--no-{flag[2:]}"]
        elif value is not None or default is not None:
            flags += [f"{flag}={_word(value)}"] if _word(value).startswith("-") else [flag, _word(value)]
    return [*data, *flags]
