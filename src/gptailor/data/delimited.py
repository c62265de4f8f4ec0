"""Csv and tsv: which delimiter, whether quotes enclose fields, and whether the first row is a header, by evidence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain, islice

from gptailor.data.lines import CHUNK, NOT_UTF8, NUL, TOO_LONG, Line, Source
from gptailor.data.quotes import Evidence, QuotedRecords, Record, plain_records
from gptailor.data.table import COLUMN_LIMIT, Dropped, Table
from gptailor.errors import UserError, listing

_SAMPLE = 500  # records from which delimiter, header and number of columns are told
_DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon"}
_ONE_COLUMN = "\n"  # as delimiter, the one character that no line holds


def read_delimited(source: Source, format: str, *, told: bool, header: bool | None, quoting: bool | None) -> Table:
    """Read csv, tsv, or text with some other delimiter.

    Args:
        source: the file.
        format: ``"csv"``, ``"tsv"``, or ``""`` where nothing is known.
        told: whether the user said so; a format taken from the file's name is only a hint.
        header, quoting: None tells by the content.

    Raises:
        UserError: when there are too many columns.
    """
    delimiter = "\t" if told and format == "tsv" else _tell_delimiter(source, format, quoting)
    if delimiter == _ONE_COLUMN:
        source.said.append("one column: no tab, comma or semicolon separates the lines evenly")
    else:
        source.said.append(f"{_DELIMITERS[delimiter]} separated")
    if quoting is None:
        grid = _weigh_quotes(source, delimiter, header)
    else:
        grid = _Grid(_records(source, delimiter, quoting), header)
        source.said.append("quotes enclose fields, as asked" if quoting else "quotes are ordinary characters, as asked")
    return source.table("tsv" if delimiter == "\t" else "csv", grid.columns(source.said), grid.lines, grid.dropped)


def _records(source: Source, delimiter: str, quoting: bool) -> Iterable[Record]:
    return _quoted(source, delimiter) if quoting else plain_records(source.lines(), delimiter)


def _quoted(source: Source, delimiter: str, *, mend: bool = False) -> QuotedRecords:
    return QuotedRecords(source.lines(), delimiter, source.line_end.decode(), mend=mend)


class _Grid:
    """Records of equal width as columns; a record of another width, or with a problem, is dropped."""

    def __init__(self, records: Iterable[Record], header: bool | None) -> None:
        stream = iter(records)
        sample = list(islice(stream, _SAMPLE))
        good = [record.fields for record in sample if not record.problem]
        self.asked = header is not None
        self.header = bool(good) and (_looks_like_header(good) if header is None else header)
        self.width = len(good[0]) if self.header else _usual_width(good)[0]
        if self.width > COLUMN_LIMIT:
            raise UserError(f"found {self.width:,} columns", expected=f"at most {COLUMN_LIMIT:,}")
        self.names: list[str] = []
        self.values: list[list[str]] = [[] for _ in range(self.width)]
        self.lines: list[int] = []
        self.dropped: list[Dropped] = []
        self.misfits = 0  # rows dropped for a reason that may lie in how quotes are read
        for record in chain(sample, stream):
            self._add(record)

    def _add(self, record: Record) -> None:
        if record.problem or len(record.fields) != self.width:
            self._drop(record)
        elif self.header and not self.names:
            self.names = record.fields
        else:
            self.lines.append(record.line)
            for column, value in zip(self.values, record.fields, strict=True):
                column.append(value)

    def _drop(self, record: Record) -> None:
        whole = "the header has" if self.header else "most rows have"
        count = f"{len(record.fields)} field{'s' * (len(record.fields) != 1)} where {whole} {self.width}"
        self.dropped.append(Dropped(record.line, record.problem or count))
        self.misfits += record.problem not in (NUL, NOT_UTF8, TOO_LONG)

    def columns(self, said: list[str]) -> dict[str, list[str]]:
        """The named columns; how they got their names is added to ``said``."""
        names = _column_names(self.names, said) if self.header else [f"column_{n + 1}" for n in range(self.width)]
        how = "as asked" if self.asked else f"--header {'no' if self.header else 'yes'} to change"
        found = "the first row is the header:" if self.header else "no header, so the columns are"
        said.append(f"{found} {listing(names)} ({how})")
        return dict(zip(names, self.values, strict=True))


# --- quotes -----------------------------------------------------------------------------------------------------------


def _weigh_quotes(source: Source, delimiter: str, header: bool | None) -> _Grid:
    """Read with quoting, count how the plain reading would do on the same lines, and keep the one that fits more rows.

    Where both fit equally, quotes enclose fields in comma separated text, as that format has it; in tab separated text,
    where quoting is the exception, they do so only if a writer's doubled quotes or an evenly quoted column show it.
    """
    records = _quoted(source, delimiter)
    grid, seen = _Grid(records, header), records.evidence
    lost, plain_lost = grid.misfits + seen.lost, seen.plain_lost
    if not seen.quoted and not lost:
        return grid
    usual = delimiter != "\t" or seen.needed > 0 or seen.quoted >= len(grid.lines)
    if lost < plain_lost or (lost == plain_lost and usual):
        source.said += [_why_quotes(seen)] if seen.quoted else []
        return _Grid(_quoted(source, delimiter, mend=True), header) if seen.strays else grid
    plain = _Grid(plain_records(source.lines(), delimiter), header)
    source.said.append(_why_no_quotes(len(plain.lines), len(grid.lines)))
    return plain


def _why_quotes(seen: Evidence) -> str:
    otherwise = "as many rows would fit"
    if seen.plain_lost:
        otherwise = f"{seen.plain_lost:,} of {seen.plain.total():,} lines would not fit"
    elif seen.swallowed:
        otherwise = f"{seen.swallowed:,} lines inside texts would be rows of their own"
    return f"quotes enclose fields: without quoting, {otherwise} (--quoting no to change)"


def _why_no_quotes(plain_rows: int, quoted_rows: int) -> str:
    lost = plain_rows - quoted_rows
    otherwise = f"{lost:,} of {plain_rows:,} rows would be lost" if lost > 0 else "as many rows would fit"
    return f"quotes are ordinary characters: with quoting, {otherwise} (--quoting yes to change)"


# --- delimiter --------------------------------------------------------------------------------------------------------


def _tell_delimiter(source: Source, format: str, quoting: bool | None) -> str:
    """The delimiter that splits the lines most evenly; the one that the file's name calls for needs less proof."""
    sample: list[Line] = []
    for line in islice(source.lines(), _SAMPLE):
        if line.problem:
            continue
        sample.append(line)
        if len(line.text) > CHUNK:
            break
    scores = {delimiter: _evenness(sample, delimiter, quoting) for delimiter in _DELIMITERS}
    named = {"csv": ",", "tsv": "\t"}.get(format)
    best = max(scores, key=lambda delimiter: (scores[delimiter], delimiter == named))
    if named and scores[named] >= min(0.5, scores[best]) and scores[named] > 0:
        return named
    return best if scores[best] >= (0.8 if named else 0.95) else _ONE_COLUMN


def _evenness(sample: list[Line], delimiter: str, quoting: bool | None) -> float:
    """Share of records, in 0..1, that have the commonest number of fields, 0 when that is one."""
    scores = []
    for on in (True, False) if quoting is None else (quoting,):
        records = QuotedRecords(sample, delimiter, "\n") if on else plain_records(sample, delimiter)
        width, share = _usual_width([record.fields for record in records])
        scores.append(share if width > 1 else 0.0)
    return max(scores)


def _usual_width(rows: list[list[str]]) -> tuple[int, float]:
    """The commonest number of fields, and the share of rows, in 0..1, that have it."""
    if not rows:
        return 1, 0.0
    width, count = Counter(map(len, rows)).most_common(1)[0]
    return width, count / len(rows)


# --- header -----------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[^\W\d][\w .:#/()-]{0,39}")
_USUAL_NAME = re.compile(
    "(id|index|text|label|category|categorie|class|classe|tweet|comment|sentence|title|description|review|"
    "message|sms|body|content|target|sentiment|intent|question|answer|topic|language|rating|score|star|"
    "tag|type|summary|document|headline|subject|email|post|emotion|text_label|label_text)s?",
    re.IGNORECASE,
)


def _looks_like_header(rows: list[list[str]]) -> bool:
    """Whether the first row names the others: short names that do not recur below, usual or unlike their column."""
    names = [name.strip() for name in rows[0]]
    body = [row for row in rows[1:] if len(row) == len(names)]
    filled = [name for name in names if name]
    if not filled or not all(_NAME.fullmatch(name) for name in filled):
        return False
    columns = [[row[at].strip() for row in body] for at in range(len(names))]
    if any(name and name in column for name, column in zip(names, columns, strict=True)):
        return False
    if any(map(_USUAL_NAME.fullmatch, filled)):
        return True
    return len(set(filled)) == len(filled) and any(map(_unlike, names, columns))


def _unlike(name: str, column: list[str]) -> bool:
    """Whether a name stands over numbers, or over texts much longer than itself."""
    if not name or not column:
        return False
    if all(re.fullmatch(r"[-+]?\d+(\.\d+)?", value) for value in column):
        return True
    return sum(map(len, column)) / len(column) > max(20, 3 * len(name))


def _column_names(header: list[str], said: list[str]) -> list[str]:
    """The header's names made whole and distinct; each change is added to ``said``."""
    names: list[str] = []
    for number, given in enumerate(header, 1):
        wanted = given.strip() or f"column_{number}"
        name, copy = wanted, 2
        while name in names:
            name, copy = f"{wanted}_{copy}", copy + 1
        if name != given.strip():
            said.append(f"column {number} is called {given.strip()!r} in the header and {name!r} here")
        names.append(name)
    return names
