"""Csv and tsv: which delimiter, whether quotes enclose fields, and whether the first row is a header, by evidence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice

from gptailor.data.lines import CHUNK, NUL, TOO_LONG, UNDECODABLE, Line, Source
from gptailor.data.quotes import Evidence, QuotedRecords, Record, plain_records
from gptailor.data.table import COLUMN_LIMIT, Dropped, Table
from gptailor.errors import UserError, listing

_SAMPLE = 500  # records from which delimiter, header and number of columns are told
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
_CALLED = {sign: name for name, sign in DELIMITERS.items()}
_ONE_COLUMN = "\n"  # as delimiter, the one character that no line holds


def read_delimited(
    source: Source, format: str, *, told: bool, delimiter: str, header: bool | None, quoting: bool | None
) -> Table:
    """Read csv, tsv, or text with some other delimiter.

    Args:
        source: the file.
        format: ``"csv"``, ``"tsv"``, or ``""`` where nothing is known.
        told: whether the user said so; a format taken from the file's name is only a hint.
        delimiter: one of ``DELIMITERS``; ``"auto"`` tells by the content.
        header, quoting: None tells by the content.

    Raises:
        UserError: when there are too many columns.
    """
    if delimiter != "auto" or (told and format == "tsv"):
        sign = DELIMITERS.get(delimiter, "\t")
        source.said.append(f"{_CALLED[sign]} separated, as asked")
    else:
        sign = _tell_delimiter(source, format, header, quoting)
    if quoting is None:
        grid = _weigh_quotes(source, sign, header)
    else:
        grid = _Grid(_records(source, sign, quoting), header)
        source.said.append("quotes enclose fields, as asked" if quoting else "quotes are ordinary characters, as asked")
    return source.table("tsv" if sign == "\t" else "csv", grid.columns(source.said), grid.lines, grid.dropped)


def _records(source: Source, delimiter: str, quoting: bool) -> Iterable[Record]:
    return _quoted(source, delimiter) if quoting else plain_records(source.lines(), delimiter)


def _quoted(source: Source, delimiter: str, *, mend: bool = False) -> QuotedRecords:
    return QuotedRecords(source.lines(), delimiter, source.line_end.decode(), mend=mend)


class _Grid:
    """Records of equal width as columns; a record of another width, or with a problem, is dropped."""

    def __init__(self, records: Iterable[Record], header: bool | None) -> None:
        stream = iter(records)
        sample = list(islice(stream, _SAMPLE))
        whole = [record for record in sample if not record.problem]
        good = [record.fields for record in whole]
        self.asked = header is not None
        above = 0 if self.asked else _rows_above_header(good)
        self.header_line = whole[above].line if above else 0  # 0: the first row, if any; there is no title above it
        self.header = bool(good) and (_looks_like_header(good[above:]) if header is None else header)
        self.width = len(good[above]) if self.header else _usual_width(good)[0]
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
        if not record.problem and record.line < self.header_line:
            self.misfits += len(record.fields) != self.width  # a title speaks neither for quotes nor against them
            self.dropped.append(Dropped(record.line, "stands above the header"))
        elif record.problem or len(record.fields) != self.width:
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
        self.misfits += record.problem not in (NUL, TOO_LONG, *UNDECODABLE)

    def columns(self, said: list[str]) -> dict[str, list[str]]:
        """The named columns; how they got their names is added to ``said``."""
        names = _column_names(self.names, said) if self.header else [f"column_{n + 1}" for n in range(self.width)]
        how = "as asked" if self.asked else f"--header {'no' if self.header else 'yes'} to change"
        header = f"line {self.header_line}" if self.header_line else "the first row"
        found = f"{header} is the header:" if self.header else "no header, so the columns are"
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

# The rarer a sign is in ordinary text, the more its evenness says: the first of these wins where all else is equal.
_BY_RARITY = ("\t", "|", ";", ",")
_FEW = 10  # records; on fewer, that they are even may be chance
_SPOKEN_FOR = re.compile(r"[^\W\d][^,;|\t\n]{0,39}")  # a name that holds no other delimiter


@dataclass(frozen=True)
class _Reading:
    """How a sample of lines falls apart at one delimiter."""

    delimiter: str
    width: int  # the commonest number of fields
    fitting: int  # records with that many
    torn: int  # records in which a quote opens or closes inside a field: such a field was no field
    records: int
    header: bool  # whether the first record speaks for it: names, as many as (nearly) all others have fields

    @property
    def share(self) -> float:
        """Of the records that have the commonest number of fields, in 0..1; 0 when that is one."""
        return self.fitting / self.records if self.width > 1 else 0.0

    @property
    def rank(self) -> tuple[bool, float, int, int]:
        """What the first line says comes before evenness, and that before the number of columns."""
        whole = max(0.0, self.share - self.torn / self.records) if self.records else 0.0
        return self.header, whole, self.width, -_BY_RARITY.index(self.delimiter)


def _tell_delimiter(source: Source, format: str, header: bool | None, quoting: bool | None) -> str:
    """The delimiter that the first line speaks for, else the one that splits the lines most evenly.

    The one that the file's name calls for needs less proof. What it was weighed against is said.
    """
    sample = _sample(source)
    modes = (True, False) if quoting is None else (quoting,)
    readings = [max((_reading(sample, sign, on, header) for on in modes), key=_rank) for sign in _BY_RARITY]
    best = max(readings, key=_rank)
    if not best.header and header is not False and _is_one_column(sample, best):
        return _one_column(source, sample, quoting)
    chosen = best if best.header else _evenest(readings, best, format)
    if chosen is None:
        listed = "no tab, comma, semicolon or pipe separates the lines evenly"
        source.said.append(f"one column: {listed} (--delimiter to change)")
        return _ONE_COLUMN
    source.said.append(_why_delimiter(chosen, readings))
    return chosen.delimiter


def _rank(reading: _Reading) -> tuple[bool, float, int, int]:
    return reading.rank


def _sample(source: Source) -> list[Line]:
    sample: list[Line] = []
    for line in islice(source.lines(), _SAMPLE):
        if line.problem:
            continue
        sample.append(line)
        if len(line.text) > CHUNK:
            break
    return sample


def _reading(sample: list[Line], delimiter: str, quoting: bool, header: bool | None) -> _Reading:
    quoted = QuotedRecords(sample, delimiter, "\n")
    rows = [record.fields for record in (quoted if quoting else plain_records(sample, delimiter))]
    torn = quoted.evidence.loose if quoting else sum(any(map(_is_torn, row)) for row in rows)
    width, share = _usual_width(rows)
    names = [name.strip() for name in rows[0]] if rows and header is not False else []
    named = len(names) > 1 and any(names) and all(_SPOKEN_FOR.fullmatch(name) for name in names if name)
    alike = sum(len(row) == len(names) for row in rows[1:])
    spoken = named and len(rows) > 1 and alike >= 0.9 * (len(rows) - 1)
    return _Reading(delimiter, width, round(share * len(rows)), torn, len(rows), spoken)


def _is_torn(field: str) -> bool:
    return len(field) > 1 and field.startswith('"') != field.endswith('"')


def _evenest(readings: list[_Reading], best: _Reading, format: str) -> _Reading | None:
    """Without a word from the first line: the reading that the name calls for if it will do, else the best, or none."""
    sign = {"csv": ",", "tsv": "\t"}.get(format)
    for named in readings:
        if named.delimiter == sign and named.share >= min(0.5, best.share) and named.share > 0:
            # Texts are full of commas, so another sign that splits better is believed, unless on so few lines that it
            # may be chance; hardly any text holds a tab.
            return best if sign == "," and best.share >= 0.95 and best.records >= _FEW else named
    return best if best.share >= (0.8 if sign else 0.95) else None


def _is_one_column(sample: list[Line], best: _Reading) -> bool:
    """Whether the first line is the name of a single column, and what follows are texts with delimiters in them."""
    first = next((line.text.strip().strip('"') for line in sample if not line.blank), "")
    # A table under a title looks the same, but its lines are even, and at a rarer sign than a comma.
    uneven = best.share < 0.95 or best.delimiter == ","
    return best.share > 0 and uneven and bool(_USUAL_NAME.fullmatch(first))


def _one_column(source: Source, sample: list[Line], quoting: bool | None) -> str:
    source.said.append("one column, as the first line has it (--delimiter to change)")
    if quoting is not False:
        # With a delimiter inside the quotes it is plain that they enclose fields.
        width, share = _usual_width([record.fields for record in QuotedRecords(sample, ",", "\n")])
        if width == 1 and share >= 0.95:
            return ","
    return _ONE_COLUMN


def _why_delimiter(chosen: _Reading, readings: list[_Reading]) -> str:
    rivals = [reading for reading in readings if reading is not chosen and reading.share >= 0.5]
    told = f"{_CALLED[chosen.delimiter]} separated"
    if rivals:
        told += f": {_fields_at(chosen)}{', and the first names them' * chosen.header}"
        told += "".join(f"; {_CALLED[rival.delimiter]}: {_fields_at(rival)}" for rival in rivals)
    return f"{told} (--delimiter to change)"


def _fields_at(reading: _Reading) -> str:
    return f"{reading.fitting:,} of {reading.records:,} rows have {reading.width}"


def _usual_width(rows: list[list[str]]) -> tuple[int, float]:
    """The commonest number of fields, and the share of rows, in 0..1, that have it."""
    if not rows:
        return 1, 0.0
    width, count = Counter(map(len, rows)).most_common(1)[0]
    return width, count / len(rows)


# --- header -----------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[^\W\d][\w .:#/()-]{0,39}")
_HEADER_WITHIN = 10  # rows
LONGEST_NAME = 60  # characters of a column beside one with a usual name
_USUAL_NAME = re.compile(
    "(id|index|text|label|category|categorie|class|classe|tweet|comment|sentence|title|description|review|"
    "message|sms|body|content|target|sentiment|intent|question|answer|topic|language|rating|score|star|"
    "tag|type|summary|document|headline|subject|email|post|emotion|text_label|label_text|"
    "kommentar|kategorie|bewertung|nachricht|klasse|texte|commentaire|catégorie|avis|texto|comentario|categoría|testo|"
    "commento|categoria)s?",
    re.IGNORECASE,
)


def _looks_like_header(rows: list[list[str]]) -> bool:
    """Whether the first row names the others: short names that do not recur below, usual or unlike their column."""
    names = [name.strip() for name in rows[0]]
    body = [row for row in rows[1:] if len(row) == len(names)]
    filled = [name for name in names if name]
    usual = any(map(_USUAL_NAME.fullmatch, filled))
    short = all(len(name) <= LONGEST_NAME if usual else _NAME.fullmatch(name) for name in filled)
    if not filled or not short or (rows[1:] and not body):
        return False
    columns = [[row[at].strip() for row in body] for at in range(len(names))]
    if any(name and name in column for name, column in zip(names, columns, strict=True)):
        return False
    if usual:
        return True
    return len(set(filled)) == len(filled) and any(map(_unlike, names, columns))


def _rows_above_header(rows: list[list[str]]) -> int:
    """How many rows hold a title, ``sep=;`` or nothing above a row of names; 0 where the first row may be one itself.

    The row of names must have two or more, one of them a usual one, and each row above it at most one cell: in a list
    of texts, or a table with odd rows, a usual name may be a text.
    """
    width = _usual_width(rows)[0]
    for number, row in enumerate(rows[:_HEADER_WITHIN]):
        filled = [name for name in map(str.strip, row) if name]
        if len(filled) > 1:
            usual = len(row) == width and any(map(_USUAL_NAME.fullmatch, filled))
            return number if usual and _looks_like_header(rows[number:]) else 0
    return 0


def _unlike(name: str, column: list[str]) -> bool:
    """Whether a name stands over numbers, or over texts much longer than itself."""
    if not name or not column:
        return False
    if all(re.fullmatch(r"[-+]?\d+([.,]\d+)?", value) for value in column):
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
