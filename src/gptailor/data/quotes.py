"""Delimited lines to records of fields, with double quotes that enclose fields or as ordinary characters."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from gptailor.data.lines import LINE_LIMIT, Line, without_cr

_INSIDE = re.compile(r'[^"]*(?:""[^"]*)*')


class Record(NamedTuple):
    """The fields of one row, the 1-based line where it begins, and what is wrong with it (``""``: nothing)."""

    line: int
    fields: list[str]
    problem: str


def plain_records(lines: Iterable[Line], delimiter: str) -> Iterator[Record]:
    """Each line that is not empty, split at every delimiter."""
    for line in lines:
        if not line.blank:
            yield Record(line.number, without_cr(line.text).split(delimiter), line.problem)


@dataclass
class Evidence:
    """What a reading with quotes saw, to be weighed against the plain reading."""

    quoted: int = 0  # fields in quotes
    needed: int = 0  # of those, fields that hold a delimiter or a doubled quote: no plain text happens to look like it
    loose: int = 0  # fields in quotes that go on after the closing one
    strays: int = 0  # of those, fields of several lines: what opened them was no quote
    joined: int = 0  # rows of several lines, each of whose quotes closes where a field ends
    swallowed: int = 0  # lines that would each make a row by themselves, taken into another row by a quote
    plain: Counter[int] = field(default_factory=Counter)  # lines by their number of fields when split plainly

    @property
    def lost(self) -> int:
        """Rows that reading with quotes costs, if they are none."""
        # A stray quote may by chance be closed by another one at the end of a field, but hardly ever time after time.
        proven = self.joined >= 5 and self.joined >= 10 * self.strays
        return self.loose + (0 if proven else self.swallowed)

    @property
    def plain_lost(self) -> int:
        """Lines that do not have the commonest number of fields when split plainly."""
        return self.plain.total() - max(self.plain.values(), default=0)


class _BadQuotes(Exception):
    pass


class QuotedRecords:
    """Records of text whose fields may be enclosed in double quotes, a doubled one standing for itself.

    A quote inside an unquoted field is an ordinary character, and so is what follows a closing quote up to the
    delimiter: the rules of Python's csv and of pandas. A quote that never closes costs its line alone. When ``mend`` is
    set, a field of several lines must end at a delimiter: if it does not, a stray quote opened it, so only the line
    where it began is given up and reading goes on with the next.

    ``evidence`` is complete when the records have been gone through, once.
    """

    def __init__(self, lines: Iterable[Line], delimiter: str, line_end: str, *, mend: bool = False) -> None:
        self.lines, self.delimiter, self.line_end, self.mend = iter(lines), delimiter, line_end, mend
        self.evidence = Evidence()
        self.again: deque[Line] = deque()  # lines to be read once more, after a record that was given up
        self.taken: list[Line] = []  # the lines of the record at hand
        self.stray = False  # whether a field of the record at hand was opened by no quote

    def __iter__(self) -> Iterator[Record]:
        while (first := self._next_line()) is not None:
            if first.blank:
                continue
            self.taken, self.stray = [first], False
            if '"' not in first.text:
                yield Record(first.number, without_cr(first.text).split(self.delimiter), first.problem)
                continue
            try:
                fields = self._fields(first.text)
            except _BadQuotes as bad:
                self.again.extendleft(reversed(self.taken[1:]))
                yield Record(first.number, [], first.problem or str(bad))
                continue
            yield Record(first.number, fields, next((line.problem for line in self.taken if line.problem), ""))

    def _next_line(self) -> Line | None:
        if self.again:
            return self.again.popleft()
        line = next(self.lines, None)
        if line is not None and not line.blank:
            self.evidence.plain[line.text.count(self.delimiter) + 1] += 1
        return line

    def _fields(self, text: str) -> list[str]:
        fields: list[str] = []
        at, end = 0, 0
        while end >= 0:
            content, quoted = "", text.startswith('"', at)
            if quoted:
                content, text, at = self._quoted_field(text, at + 1)
            end = text.find(self.delimiter, at)
            rest = text[at:end] if end >= 0 else without_cr(text[at:])
            if quoted and rest:
                self._weigh_rest()
            fields.append(content + rest)
            at = end + 1
        self._weigh_joined(len(fields))
        return fields

    def _quoted_field(self, text: str, start: int) -> tuple[str, str, int]:
        """Returns the content, the line on which it ends, and the place after the closing quote there."""
        parts, size = [], 0
        while (end := cast("re.Match[str]", _INSIDE.match(text, start)).end()) == len(text):
            parts.append(text[start:])
            size += len(text) - start
            following = self._next_line()
            if following is None:
                raise _BadQuotes("a quote that never closes")
            self.taken.append(following)
            if size > LINE_LIMIT:
                raise _BadQuotes("a quote that does not close within 10 MB")
            text, start = following.text, 0
        content = self.line_end.join([*parts, text[start:end]])
        self.evidence.quoted += 1
        self.evidence.needed += '""' in content or self.delimiter in content
        return content.replace('""', '"'), text, end + 1

    def _weigh_rest(self) -> None:
        self.evidence.loose += 1
        if len(self.taken) > 1:
            self.evidence.strays += 1
            self.stray = True
        if self.stray and self.mend:
            raise _BadQuotes("a quote that does not close where a field ends")

    def _weigh_joined(self, width: int) -> None:
        if len(self.taken) == 1:
            return
        self.evidence.joined += not self.stray
        if all(line.text.count(self.delimiter) + 1 == width for line in self.taken):
            self.evidence.swallowed += len(self.taken) - 1
