"""Files to rows: csv, tsv, json, jsonl, parquet, labelled lines and label folders become columns with line numbers.

Every row of a file ends up in the table or among the dropped ones, with the line where it begins. What a file leaves
open (delimiter, header, quotes, encoding) is decided by evidence, and the decision is said.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import json
import lzma
import re
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from gptailor.errors import UserError, did_you_mean, listing

FORMATS = ("csv", "tsv", "json", "jsonl", "parquet", "label-first")
LINE_LIMIT = 10_000_000  # bytes in one line, or characters in one quoted row: more is an accident, not a text
COLUMN_LIMIT = 1_000

_CHUNK = 1 << 20
_SAMPLE = 500  # records from which delimiter, header and number of columns are told
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_OPENERS: dict[bytes, tuple[str, Callable[..., Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
}
_BINARY = {
    b"PK\x03\x04": "a zip archive (or an office document)",
    b"\x89PNG": "a PNG picture",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
    b"BZh91AY": "a bzip2 archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"SQLite format 3\x00": "an SQLite database",
}
_CONTROL = bytes(set(range(9)) | set(range(14, 32)) | {127})
_NOT_UTF8 = "not valid UTF-8"
_TOO_LONG = f"longer than {LINE_LIMIT // 1_000_000} MB"
_NUL = "holds a NUL character"


@dataclass(frozen=True)
class Dropped:
    """A row that could not be read.

    Args:
        line: 1-based line where the row begins (record number for json arrays, parquet and folders).
        reason: a short phrase by which such rows can be grouped, such as ``"3 fields where the header has 2"``.
    """

    line: int
    reason: str


@dataclass
class Table:
    """The rows of one file.

    Args:
        path: the file, or the folder of label folders.
        sha256: of the file as it is stored (compressed, where it is).
        bytes: size of the file as it is stored.
        format: one of ``FORMATS``, or ``"folders"``.
        columns: name to values, all of the same length N; str for csv, tsv, label-first and folders.
        lines: (N,) 1-based line where each row begins; the record number for json arrays, parquet and folders.
        dropped: the rows that could not be read.
        said: what was found and decided, in plain sentences.
    """

    path: Path
    sha256: str
    bytes: int
    format: str
    columns: dict[str, list[Any]]
    lines: list[int]
    dropped: list[Dropped] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Parts:
    """Which files make up which part of the data.

    Args:
        files: ``{"data": [file]}``, or some of ``"train"``, ``"validation"`` and ``"test"`` with their files by name.
        ignored: what else lies in the folder.
    """

    files: dict[str, list[Path]]
    ignored: list[Path]


def read_table(path: Path, *, format: str = "auto", header: bool | None = None, quoting: bool | None = None) -> Table:
    """Read one file (plain, gzip or xz), or one folder of label folders with a text in each ``.txt`` file.

    Args:
        path: the file or folder.
        format: one of ``FORMATS``; ``"auto"`` tells by the name's ending, and by the content where that says nothing.
        header: csv and tsv only: whether the first row names the columns; None tells by its look.
        quoting: csv and tsv only: whether ``"`` encloses fields; None tells by which way more rows fit.

    Returns:
        A table with at least one row.

    Raises:
        UserError: when nothing can be read: missing, unreadable, empty, binary, damaged, or without one good row.
    """
    path = Path(path)
    if format not in ("auto", *FORMATS):
        raise UserError(f"unknown format {format!r}", expected=listing(FORMATS), hint=did_you_mean(format, FORMATS))
    _check_there(path)
    if path.is_dir():
        return _checked(_read_folders(path))
    source = _Source(path)
    chosen = _tell_format(source) if format == "auto" else format
    if chosen == "parquet":
        return _checked(_read_parquet(source))
    source.check_text()
    if chosen in ("json", "jsonl"):
        return _checked(_read_json(source) if chosen == "json" else _read_jsonl(source))
    if chosen == "label-first":
        return _checked(_read_label_first(source))
    return _checked(_read_delimited(source, chosen, told=format != "auto", header=header, quoting=quoting))


def find_parts(data: str | Path) -> Parts:
    """Tell which files hold the training, validation and test part.

    A file is ``{"data": [file]}``. In a folder, a name (or its last word) that begins with train, val, dev or test
    tells the part, and a part may have several files; sub-folders train and test may hold label folders. A folder that
    itself consists of label folders is ``{"data": [folder]}``.

    Raises:
        UserError: when nothing is there, or nothing in the folder tells its part.
    """
    path = Path(data)
    _check_there(path)
    if path.is_file():
        return Parts({"data": [path]}, [])
    with _readable(path):
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    files: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
    for part in files:
        files[part] = [entry for entry in entries if _part_of(entry) == part]
    ignored = [entry for entry in entries if not _part_of(entry)]
    files = {part: paths for part, paths in files.items() if paths}
    if not files and _label_folders(path):
        return Parts({"data": [path]}, [])
    if not files:
        raise UserError(
            f"no file in {path} tells which part of the data it is; there is: "
            + (listing(entry.name + "/" * entry.is_dir() for entry in entries) or "nothing"),
            expected=f"files named train, validation (or val, dev) and test, ending in {listing(_SUFFIXES)} (.gz, .xz)",
            hint="name one file itself",
        )
    return Parts(files, ignored)


def _check_there(path: Path) -> None:
    with _readable(path):
        if path.is_file() or path.is_dir():
            return
        if path.exists():
            raise UserError(f"{path} is neither a file nor a folder", expected="a data file")
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UserError(f"no such file: {path}", expected="a data file or folder", hint=did_you_mean(path.name, near))


def _stem_and_suffix(path: Path) -> tuple[str, str]:
    """``train.csv.gz`` -> ``("train", ".csv")``."""
    name = Path(path.stem) if path.suffix.lower() in (".gz", ".xz") else Path(path.name)
    return name.stem, name.suffix.lower()


def _part_of(entry: Path) -> str:
    stem, suffix = _stem_and_suffix(entry)
    if (suffix not in _SUFFIXES and suffix) or (entry.is_dir() and not _label_folders(entry)):
        return ""
    words = re.split(r"[\W_]+", stem.lower())
    for word in (words[0], words[-1]):
        for start, part in (("train", "train"), ("val", "validation"), ("dev", "validation"), ("test", "test")):
            if word.startswith(start):
                return part
    return ""


# --- bytes and lines --------------------------------------------------------------------------------------------------


@contextmanager
def _readable(path: Path) -> Generator[None]:
    """Turn what the operating system and the decompressors raise into errors that name the file."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is cut short or damaged: {error}", hint="fetch or compress it again") from error
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}", expected="a file that you may read"
        ) from error


class _Line(NamedTuple):
    number: int
    text: str  # without its line end; invalid bytes stand as lone surrogates
    problem: str


class _Source:
    """One stored file as decompressed UTF-8, to be read as often as needed."""

    def __init__(self, path: Path) -> None:
        self.path, self.said = path, cast("list[str]", [])
        self.sha256, self.bytes = _digest(path)
        with _readable(path), path.open("rb") as file:
            magic = file.read(8)
        found = [pair for start, pair in _OPENERS.items() if magic.startswith(start)]
        self.open: Callable[..., Any] = found[0][1] if found else open
        self.said += [f"{found[0][0]} compressed"] if found else []
        self.stored_head = next(self.stored(), b"")
        self.bom, self.encoding = _tell_encoding(self.stored_head)
        if self.bom:
            self.said.append(f"{self.encoding.upper()} with a byte order mark")
        self.head = next(self.chunks(), b"")
        # A lone CR ends a line only where nothing else does: elsewhere it is a character of the text.
        self.line_end = b"\r" if b"\r" in self.head and b"\n" not in self.head else b"\n"

    def stored(self) -> Iterator[bytes]:
        """The decompressed bytes, a megabyte at a time."""
        with _readable(self.path), cast("BinaryIO", self.open(self.path, "rb")) as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def chunks(self) -> Iterator[bytes]:
        """The same as UTF-8 without a byte order mark; invalid UTF-8 passes as it is."""
        chunks = self.stored()
        first = next(chunks, b"")[len(self.bom) :]
        if self.encoding == "utf-8":
            yield from chain([first] if first else [], chunks)
            return
        decoder = codecs.getincrementaldecoder(self.encoding)()
        try:
            for chunk in chain([first], chunks):
                yield decoder.decode(chunk).encode()
            decoder.decode(b"", final=True)
        except UnicodeError as error:
            raise UserError(f"{self.path} begins as {self.encoding.upper()} but goes on as something else") from error

    def lines(self) -> Iterator[_Line]:
        """Numbered lines with what is wrong with them, the empty ones too; one over the limit is never held whole."""
        number, held, size = 1, cast("list[bytes]", []), 0
        for chunk in self.chunks():
            *whole, rest = chunk.split(self.line_end)
            for piece in whole:
                if size:
                    size += len(piece)
                    piece = b"".join([*held, piece]) if size <= LINE_LIMIT else None
                    held, size = [], 0
                yield _decoded(number, piece)
                number += 1
            size += len(rest)
            held = [*held, rest] if size <= LINE_LIMIT else []
        if size:
            yield _decoded(number, b"".join(held) if size <= LINE_LIMIT else None)

    def check_text(self) -> None:
        """Raise unless the beginning can be text."""
        for start, what in _BINARY.items():
            if self.stored_head.startswith(start):
                raise UserError(f"found binary data: {self.path} is {what}", expected=f"text: {listing(FORMATS)}")
        if not self.head.strip(b"\r\n"):
            raise UserError(f"{self.path} is empty", expected="rows of text and label")
        nul = self.head.count(0) / len(self.head)
        if len(self.head) - len(self.head.translate(None, _CONTROL)) > 0.1 * len(self.head):
            wide = "if this is UTF-16 without a mark: iconv -f UTF-16LE -t UTF-8 FILE > NEW" if 0.3 < nul < 0.6 else ""
            raise UserError(f"found binary data in {self.path}", expected=f"text: {listing(FORMATS)}", hint=wide)

    def table(self, format: str, columns: dict[str, list[Any]], lines: list[int], dropped: list[Dropped]) -> Table:
        """A table of this file."""
        return Table(self.path, self.sha256, self.bytes, format, columns, lines, dropped, self.said)


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with _readable(path), path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _tell_encoding(head: bytes) -> tuple[bytes, str]:
    for bom, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if head.startswith(bom):
            return bom, name
    return b"", "utf-8"


def _decoded(number: int, raw: bytes | None) -> _Line:
    if raw is None:
        return _Line(number, "", _TOO_LONG)
    try:
        return _Line(number, raw.decode(), _NUL if b"\0" in raw else "")
    except UnicodeDecodeError:
        return _Line(number, raw.decode(errors="surrogateescape"), _NOT_UTF8)


def _without_cr(text: str) -> str:
    return text[:-1] if text.endswith("\r") else text


def _blank(line: _Line) -> bool:
    return not line.problem and line.text in ("", "\r")


# --- which format -----------------------------------------------------------------------------------------------------

_FINE_LABEL = re.compile(r"[^\W\d][\w-]*:[\w-]+[ \t]+\S")


def _tell_format(source: _Source) -> str:
    """The format by content where that is certain, then by the name's ending, then by a look at the first lines.

    ``""`` stands for delimited text of which nothing more is known.
    """
    if source.stored_head.startswith(b"PAR1"):
        return "parquet"
    named = _SUFFIXES.get(_stem_and_suffix(source.path)[1], "")
    if named:
        return named
    start = source.head[:4096].decode(errors="replace").lstrip()
    if re.match(r"\[\s*\{", start):
        return "json"
    sample = [line.text for line in islice(source.lines(), 100) if not _blank(line)]
    if sample and sample[0].startswith("{"):
        return "jsonl" if isinstance(_parsed(sample[0]), dict) else "json"
    if sample and all(_FINE_LABEL.match(text) for text in sample):
        return "label-first"
    return ""


# --- delimited text ---------------------------------------------------------------------------------------------------

_DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon"}
_ONE_COLUMN = "\n"  # as delimiter, the one character that no line holds
_INSIDE_QUOTES = re.compile(r'[^"]*(?:""[^"]*)*')
_NAME = re.compile(r"[^\W\d][\w .:#/()-]{0,39}")
_USUAL_NAME = re.compile(
    "(id|index|text|label|category|categorie|class|classe|tweet|comment|sentence|title|description|review|message|sms|body|"
    "content|target|sentiment|intent|question|answer|topic|language|rating|score|star|tag|type|summary|document|headline|"
    "subject|email|post|emotion|text_label|label_text)s?",
    re.IGNORECASE,
)


class _Record(NamedTuple):
    line: int
    fields: list[str]
    problem: str


@dataclass
class _Evidence:
    """What a reading with quoting on saw, to be weighed against the plain reading."""

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


class _BadQuotes(Exception):
    pass


class _QuotedReader:
    """Records of text whose fields may be enclosed in double quotes, a doubled one standing for itself.

    A quote inside an unquoted field is an ordinary character, and so is what follows a closing quote up to the
    delimiter: the rules of Python's csv and of pandas. When ``mend`` is set, a field of several lines must end at a
    delimiter: if it does not, a stray quote opened it, so only the line where it began is given up and reading goes on
    with the next.
    """

    def __init__(self, lines: Iterable[_Line], delimiter: str, line_end: str, *, mend: bool = False) -> None:
        self.lines, self.delimiter, self.line_end, self.mend = iter(lines), delimiter, line_end, mend
        self.evidence = _Evidence()
        self.again: deque[_Line] = deque()
        self.taken: list[_Line] = []
        self.stray = False

    def __iter__(self) -> Iterator[_Record]:
        while (first := self._next_line()) is not None:
            if _blank(first):
                continue
            self.taken, self.stray = [first], False
            if '"' not in first.text:
                yield _Record(first.number, _without_cr(first.text).split(self.delimiter), first.problem)
                continue
            try:
                fields = self._fields(first.text)
            except _BadQuotes as bad:
                self.again.extendleft(reversed(self.taken[1:]))
                yield _Record(first.number, [], first.problem or str(bad))
                continue
            yield _Record(first.number, fields, next((line.problem for line in self.taken if line.problem), ""))

    def _next_line(self) -> _Line | None:
        if self.again:
            return self.again.popleft()
        line = next(self.lines, None)
        if line is not None and not _blank(line):
            self.evidence.plain[line.text.count(self.delimiter) + 1] += 1
        return line

    def _fields(self, text: str) -> list[str]:
        fields: list[str] = []
        at = 0
        while True:
            content, quoted = "", text.startswith('"', at)
            if quoted:
                content, text, at = self._quoted_field(text, at + 1)
            end = text.find(self.delimiter, at)
            rest = text[at:end] if end >= 0 else _without_cr(text[at:])
            if quoted and rest:
                self._weigh_rest()
            fields.append(content + rest)
            if end < 0:
                break
            at = end + 1
        self._weigh_joined(len(fields))
        return fields

    def _quoted_field(self, text: str, start: int) -> tuple[str, str, int]:
        """Returns the content, the line on which it ends, and the place after the closing quote there."""
        parts, size = [], 0
        while (end := cast("re.Match[str]", _INSIDE_QUOTES.match(text, start)).end()) == len(text):
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
        self.evidence.joined += len(self.taken) > 1 and not self.stray
        if len(self.taken) > 1 and all(line.text.count(self.delimiter) + 1 == width for line in self.taken):
            self.evidence.swallowed += len(self.taken) - 1


def _plain_records(lines: Iterable[_Line], delimiter: str) -> Iterator[_Record]:
    for line in lines:
        if not _blank(line):
            yield _Record(line.number, _without_cr(line.text).split(delimiter), line.problem)


def _read_delimited(source: _Source, format: str, *, told: bool, header: bool | None, quoting: bool | None) -> Table:
    delimiter = "\t" if told and format == "tsv" else _tell_delimiter(source, format, quoting)
    if delimiter == _ONE_COLUMN:
        source.said.append("one column: no tab, comma or semicolon separates the lines evenly")
    else:
        source.said.append(f"{_DELIMITERS[delimiter]} separated")
    if quoting is not None:
        grid = _Grid(_records(source, delimiter, quoting), header)
        source.said.append("quotes enclose fields, as asked" if quoting else "quotes are ordinary characters, as asked")
    else:
        grid = _weigh_quotes(source, delimiter, header)
    return source.table("tsv" if delimiter == "\t" else "csv", grid.columns(source.said), grid.lines, grid.dropped)


def _records(source: _Source, delimiter: str, quoting: bool) -> Iterable[_Record]:
    if quoting:
        return _QuotedReader(source.lines(), delimiter, source.line_end.decode())
    return _plain_records(source.lines(), delimiter)


class _Grid:
    """Records of equal width as columns; a record of another width, or with a problem, is dropped."""

    def __init__(self, records: Iterable[_Record], header: bool | None) -> None:
        stream = iter(records)
        sample = list(islice(stream, _SAMPLE))
        good = [record.fields for record in sample if not record.problem]
        self.asked = header is not None
        self.header = bool(good) and (_looks_like_header(good) if header is None else header)
        self.width = len(good[0]) if self.header else _usual_width(good)
        if self.width > COLUMN_LIMIT:
            raise UserError(f"found {self.width:,} columns", expected=f"at most {COLUMN_LIMIT:,}")
        self.names: list[str] = []
        self.values: list[list[str]] = [[] for _ in range(self.width)]
        self.lines: list[int] = []
        self.dropped: list[Dropped] = []
        self.misfits = 0  # rows dropped for a reason that may lie in how quotes are read
        for record in chain(sample, stream):
            self._add(record)

    def _add(self, record: _Record) -> None:
        if not record.problem and len(record.fields) == self.width:
            if self.header and not self.names:
                self.names = record.fields
                return
            self.lines.append(record.line)
            for column, value in zip(self.values, record.fields, strict=True):
                column.append(value)
            return
        whole = "the header has" if self.header else "most rows have"
        count = f"{len(record.fields)} field{'s' * (len(record.fields) != 1)} where {whole} {self.width}"
        self.dropped.append(Dropped(record.line, record.problem or count))
        self.misfits += record.problem not in (_NUL, _NOT_UTF8, _TOO_LONG)

    def columns(self, said: list[str]) -> dict[str, list[str]]:
        """The named columns; how they got their names is added to ``said``."""
        names = _column_names(self.names, said) if self.header else [f"column_{n + 1}" for n in range(self.width)]
        how = "as asked" if self.asked else f"--header {'no' if self.header else 'yes'} to change"
        if self.header:
            said.append(f"the first row is the header: {listing(names)} ({how})")
        else:
            said.append(f"no header, so the columns are {listing(names)} ({how})")
        return dict(zip(names, self.values, strict=True))


def _weigh_quotes(source: _Source, delimiter: str, header: bool | None) -> _Grid:
    """Read with quoting, count how the plain reading would do on the same lines, and keep the one that fits more rows.

    Where both fit equally, quotes enclose fields in comma separated text, as that format has it; in tab separated text,
    where quoting is the exception, they do so only if a writer's doubled quotes or an evenly quoted column show it.
    """
    reader = _QuotedReader(source.lines(), delimiter, source.line_end.decode())
    grid, seen = _Grid(reader, header), reader.evidence
    plain_rows = max(seen.plain.values(), default=0)
    plain_lost = sum(seen.plain.values()) - plain_rows
    quoted_lost = grid.misfits + seen.lost
    if not seen.quoted and not quoted_lost:
        return grid
    even = delimiter != "\t" or seen.needed > 0 or seen.quoted >= len(grid.lines)
    if quoted_lost < plain_lost or (quoted_lost == plain_lost and even):
        if seen.quoted:
            otherwise = f"{seen.swallowed:,} lines inside texts would be rows of their own" if seen.swallowed else ""
            if plain_lost:
                otherwise = f"{plain_lost:,} of {plain_rows + plain_lost:,} lines would not fit"
            source.said.append(_quotes_said("quotes enclose fields", "without", otherwise, "no"))
        if seen.strays:
            mended = _QuotedReader(source.lines(), delimiter, source.line_end.decode(), mend=True)
            return _Grid(mended, header)
        return grid
    plain = _Grid(_plain_records(source.lines(), delimiter), header)
    if seen.quoted or quoted_lost:
        lost = len(plain.lines) - len(grid.lines)
        otherwise = f"{lost:,} of {len(plain.lines):,} rows would be lost" if lost > 0 else ""
        source.said.append(_quotes_said("quotes are ordinary characters", "with", otherwise, "yes"))
    return plain


def _quotes_said(decision: str, other: str, otherwise: str, change: str) -> str:
    return f"{decision}: {other} quoting, {otherwise or 'as many rows would fit'} (--quoting {change} to change)"


def _tell_delimiter(source: _Source, format: str, quoting: bool | None) -> str:
    """The delimiter that splits the lines most evenly; the one that the file's name calls for needs less proof."""
    sample: list[_Line] = []
    for line in islice(source.lines(), _SAMPLE):
        sample += [] if line.problem else [line]
        if sum(len(kept.text) for kept in sample[-1:]) > _CHUNK:
            break
    scores = {delimiter: _evenness(sample, delimiter, quoting) for delimiter in _DELIMITERS}
    named = {"csv": ",", "tsv": "\t"}.get(format)
    best = max(scores, key=lambda delimiter: (scores[delimiter], delimiter == named))
    if named and scores[named] >= min(0.5, scores[best]) and scores[named] > 0:
        return named
    return best if scores[best] >= (0.8 if named else 0.95) else _ONE_COLUMN


def _evenness(sample: list[_Line], delimiter: str, quoting: bool | None) -> float:
    """Share of records, in 0..1, that have the commonest number of fields, 0 when that is one."""
    scores = []
    for on in (True, False) if quoting is None else (quoting,):
        records = _QuotedReader(sample, delimiter, "\n") if on else _plain_records(sample, delimiter)
        widths = Counter(len(record.fields) for record in records)
        width, count = widths.most_common(1)[0] if widths else (0, 0)
        scores.append(count / widths.total() if width > 1 else 0.0)
    return max(scores)


def _usual_width(rows: list[list[str]]) -> int:
    return Counter(len(row) for row in rows).most_common(1)[0][0] if rows else 1


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


# --- json -------------------------------------------------------------------------------------------------------------

_ESCAPED = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")


class _Rows:
    """Objects as columns: the union of their keys, None where an object lacks one."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {}
        self.lines: list[int] = []
        self.dropped: list[Dropped] = []

    def add(self, line: int, value: object, *, suspect: bool) -> None:
        """Append one parsed value, or drop it; only ``suspect`` ones are searched for characters that no text has."""
        problem = "" if isinstance(value, dict) else f"{_kind(value)} where an object was expected"
        problem = problem or (_character_problem(value) if suspect else "")
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


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "true or false"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _character_problem(value: object) -> str:
    if isinstance(value, str):
        return _NUL if "\0" in value else "holds half a character" if re.search("[\ud800-\udfff]", value) else ""
    inner = chain(value.keys(), value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(_character_problem, inner)), "")


def _parsed(text: str) -> object:
    """The JSON value of ``text``; the exception itself, as a value, when there is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return error


def _read_jsonl(source: _Source) -> Table:
    rows = _Rows()
    for line in source.lines():
        if line.problem or not line.text.strip():
            rows.dropped += [Dropped(line.number, line.problem)] if line.problem else []
            continue
        value = _parsed(line.text)
        if isinstance(value, Exception):
            rows.dropped.append(Dropped(line.number, "not valid JSON"))
        else:
            rows.add(line.number, value, suspect=bool(_ESCAPED.search(line.text)))
    return source.table("jsonl", rows.columns, rows.lines, rows.dropped)


def _read_json(source: _Source) -> Table:
    raw = b"".join(source.chunks())
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _encoding_error(source.path, raw.count(b"\n", 0, error.start) + 1) from error
    del raw
    value = _parsed(text)
    if isinstance(value, json.JSONDecodeError) and isinstance(_parsed(text.lstrip().split("\n", 1)[0]), dict):
        source.said.append("one JSON object on each line")
        return _read_jsonl(source)
    if isinstance(value, json.JSONDecodeError):
        where = f"line {value.lineno}, column {value.colno}"
        raise UserError(f"{source.path} is not valid JSON: {value.msg} at {where}", expected="a list of objects")
    if isinstance(value, Exception):
        raise UserError(f"{source.path} cannot be read as JSON: {value}", expected="a list of objects") from value
    rows, suspect = _Rows(), bool(_ESCAPED.search(text))
    for number, item in enumerate(_list_in(value, source), 1):
        rows.add(number, item, suspect=suspect)
    return source.table("json", rows.columns, rows.lines, rows.dropped)


def _list_in(value: object, source: _Source) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        lists = {key: inner for key, inner in value.items() if isinstance(inner, list)}
        if len(lists) == 1:
            ((key, inner),) = lists.items()
            source.said.append(f"the records are the list under {key!r}")
            return inner
        raise UserError(
            f"{source.path} holds one object with the keys {listing(map(repr, value)) or 'none'}",
            expected="a list of objects, or one object that holds one such list",
        )
    raise UserError(f"{source.path} holds {_kind(value)}", expected="a list of objects")


# --- parquet, labelled lines, folders ---------------------------------------------------------------------------------


def _read_parquet(source: _Source) -> Table:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(f"reading {source.path} needs pyarrow", hint='pip install "gptailor[parquet]"') from error
    try:
        with _readable(source.path):
            # A compressed parquet file must be unpacked first: its index stands at the end.
            where = source.path if source.open is open else io.BytesIO(b"".join(source.stored()))
            columns = parquet.read_table(where).to_pydict()
    except (arrow.ArrowException, ValueError) as error:
        raise UserError(f"{source.path} is not a readable parquet file: {error}") from error
    count = len(next(iter(columns.values()), []))
    bad = {
        at for values in columns.values() for at, value in enumerate(values) if isinstance(value, str) and "\0" in value
    }
    kept = [at for at in range(count) if at not in bad]
    columns = {str(name): [values[at] for at in kept] for name, values in columns.items()} if bad else columns
    dropped = [Dropped(at + 1, _NUL) for at in sorted(bad)]
    return source.table("parquet", columns, [at + 1 for at in kept], dropped)


_LABEL_FIRST = re.compile(r"([^ \t]+)[ \t]+(\S.*)", re.DOTALL)


def _read_label_first(source: _Source) -> Table:
    columns: dict[str, list[str]] = {"label": [], "fine": [], "text": []}
    lines, dropped = cast("list[int]", []), cast("list[Dropped]", [])
    for line in source.lines():
        if _blank(line):
            continue
        match = _LABEL_FIRST.fullmatch(_without_cr(line.text))
        label = match[1].partition(":")[0] if match else ""
        if line.problem or not match or not label:
            why = line.problem or ("no text after the label" if not match else "no label before the colon")
            dropped.append(Dropped(line.number, why))
            continue
        for name, value in (("label", label), ("fine", match[1].rstrip(":")), ("text", match[2])):
            columns[name].append(value)
        lines.append(line.number)
    source.said.append(
        "each line is its label and then the text; label is what stands before the colon, fine the whole"
    )
    return source.table("label-first", columns, lines, dropped)


def _label_folders(path: Path) -> list[Path]:
    with _readable(path):
        folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
        return [folder for folder in folders if any(folder.glob("*.txt"))]


def _read_folders(path: Path) -> Table:
    folders = _label_folders(path)
    if not folders:
        raise UserError(f"{path} is a folder", expected="a file, or a folder of label folders that hold .txt files")
    said = [
        f"one text in each .txt file, its label is the folder: {listing(f.name for f in folders if f.name != 'unsup')}"
    ]
    if any(folder.name == "unsup" for folder in folders):
        said.append("the folder 'unsup' was passed over: its texts have no label")
    table = Table(path, "", 0, "folders", {"text": [], "label": []}, [], [], said)
    digest = hashlib.sha256()
    files = [file for folder in folders if folder.name != "unsup" for file in sorted(folder.glob("*.txt"))]
    for number, file in enumerate(files, 1):
        with _readable(file):
            raw = file.read_bytes() if file.stat().st_size <= LINE_LIMIT else None
        digest.update(f"{file.relative_to(path).as_posix()}\0{hashlib.sha256(raw or b'').hexdigest()}\n".encode())
        table.bytes += len(raw or b"")
        line = _decoded(number, raw)
        if line.problem:
            table.dropped.append(Dropped(number, line.problem))
            continue
        table.columns["text"].append(line.text)
        table.columns["label"].append(file.parent.name)
        table.lines.append(number)
    table.sha256 = digest.hexdigest()
    return table


# --- the last look ----------------------------------------------------------------------------------------------------


def _encoding_error(path: Path, line: int) -> UserError:
    return UserError(
        f"{path} is not UTF-8 text: line {line:,} is the first that is not",
        expected="UTF-8 (or UTF-16 with a byte order mark)",
        hint="iconv -f ISO-8859-1 -t UTF-8 FILE > NEW, with the encoding that the file has",
    )


def _checked(table: Table) -> Table:
    """The table if it has rows and most of the file could be decoded."""
    broken = [row.line for row in table.dropped if row.reason == _NOT_UTF8]
    if 2 * len(broken) > len(table.lines) + len(table.dropped):
        raise _encoding_error(table.path, broken[0])
    if not table.lines:
        reasons = Counter(row.reason for row in table.dropped).most_common(3)
        listed = "; ".join(f"{reason} ({count:,})" for reason, count in reasons)
        raise UserError(f"{table.path} has no row that can be read" + (f": {listed}" if listed else ""))
    if broken:
        table.said.append(
            f"{len(broken):,} rows are not valid UTF-8, the first on line {broken[0]:,}; if the file has another "
            "encoding, convert it: iconv -f ISO-8859-1 -t UTF-8 FILE > NEW"
        )
    return table
