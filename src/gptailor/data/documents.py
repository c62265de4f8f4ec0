"""Files to documents for pretraining: json lines and plain text as a stream, never held whole in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any

from gptailor.data.lines import NOT_UTF8, NUL, Line, Source, encoding_error, without_cr
from gptailor.data.receipt import SHOWN
from gptailor.data.records import parsed
from gptailor.errors import UserError, listing

PASSAGE = 1 << 15  # characters of plain text after which it is cut at the next line end
EXPECTED = "plain text, or jsonl: one JSON object with a text on each line (.gz, .xz)"
CUT_SHORT = "the file cannot be read from here on"

_JSON_LINES = (".jsonl", ".ndjson")
_REFUSED = {
    ".json": "jq -c '.[]' FILE.json > FILE.jsonl (or only the new name, if each line is one object already)",
    ".parquet": 'pandas.read_parquet("FILE.parquet").to_json("FILE.jsonl", orient="records", lines=True)',
}


@dataclass(frozen=True, slots=True)
class Document:
    """A text that is learned as a whole.

    Attributes:
        text: of a document, or of a passage; the passages of a file, one after the other, are its text.
        where: ``"path:line"`` where it begins; the line is 1-based.
        passage: whether it is cut out of a plain text, where others stand before or behind it.
    """

    text: str
    where: str
    passage: bool = False


@dataclass
class Places:
    """How often something happened, and the lines (1-based) of the first ``SHOWN`` times."""

    count: int = 0
    lines: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        """Once more, on this line."""
        self.count += 1
        if len(self.lines) < SHOWN:
            self.lines.append(line)


@dataclass
class FileCounts:
    """What became of one file.

    Attributes:
        path: as it was named.
        sha256: of the file as it is stored (compressed, where it is).
        bytes: size of the file as it is stored.
        format: ``"jsonl"`` or ``"text"``.
        said: what was found out about the file, in plain sentences.
        lines: how many lines hold something and could be decoded.
        documents: how many documents it gave.
        text_bytes: their text in bytes of UTF-8.
        tokens: their tokens with one end of text each; 0 until they are encoded.
        dropped: by reason, the lines that are not used.
    """

    path: Path
    sha256: str
    bytes: int
    format: str
    said: list[str]
    lines: int = 0
    documents: int = 0
    text_bytes: int = 0
    tokens: int = 0
    dropped: dict[str, Places] = field(default_factory=dict)

    def drop(self, reason: str, line: int) -> None:
        """The line is not used; reasons come from a small fixed set, so that the counts stay small."""
        self.dropped.setdefault(reason, Places()).add(line)

    def given(self, text: str, line: int, *, passage: bool = False) -> Document:
        """The document that begins on ``line``, entered in the counts."""
        self.documents += 1
        self.text_bytes += len(text.encode())
        return Document(text, f"{self.path}:{line}", passage)

    def to_dict(self) -> dict[str, Any]:
        """The counts as they are saved, most frequent reason first."""
        dropped = sorted(self.dropped.items(), key=lambda item: -item[1].count)
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "bytes": self.bytes,
            "format": self.format,
            "documents": self.documents,
            "text_bytes": self.text_bytes,
            "tokens": self.tokens,
            "dropped": [
                {"reason": reason, "count": places.count, "lines": [f"{self.path}:{line}" for line in places.lines]}
                for reason, places in dropped
            ],
            "said": self.said,
        }


class DocumentReceipt:
    """What became of every file of documents; its size does not grow with theirs."""

    def __init__(self) -> None:
        self.files: dict[str, FileCounts] = {}

    def begin(self, source: Source, format: str) -> FileCounts:
        """The counts of a file that is read from its beginning; those of an earlier reading are forgotten."""
        counts = FileCounts(source.path, source.sha256, source.bytes, format, source.said)
        self.files[str(source.path)] = counts
        return counts

    def add_tokens(self, where: str, count: int) -> None:
        """The document at ``where`` (path:line, of a file that was read) has ``count`` tokens."""
        self.files[where.rpartition(":")[0]].tokens += count

    def to_dict(self) -> dict[str, Any]:
        """The receipt as it is saved: ``files``, and over all of them documents, text_bytes, tokens and dropped."""
        files = [counts.to_dict() for counts in self.files.values()]
        sums = {key: sum(file[key] for file in files) for key in ("documents", "text_bytes", "tokens")}
        dropped = sum(places.count for counts in self.files.values() for places in counts.dropped.values())
        return {"files": files, **sums, "dropped": dropped}


def read_documents(path: Path, receipt: DocumentReceipt, *, text: str = "text") -> Iterator[Document]:
    """Stream the documents of one file (plain, gzip or xz); memory does not grow with the file.

    A file named .jsonl or .ndjson, or one with another ending than .txt whose first line is a JSON object, has one
    document on each line. Any other text is given in passages: after every ``PASSAGE`` characters it is cut at the
    next line end, the LF staying with the passage before it. Line ends become LF; blank lines at the very beginning
    and the LF at the very end are no part of the text. Joined, the passages are the text exactly, but next to a cut a
    tokenizer may see other words than in the whole text.

    A line that cannot be used is entered in ``receipt`` with its reason, and the rest goes on; where a compressed
    file is cut short, what is before the damage has been given (up to a megabyte less).

    Args:
        path: the file.
        receipt: where the file is entered.
        text: jsonl only: the key under which the text stands.

    Raises:
        UserError: while reading: the file is missing, unreadable, empty, binary, json or parquet; or, at its end, it
            gave no document, or more than half of its lines are not UTF-8.
    """
    source = Source(Path(path))
    counts = receipt.begin(source, _tell_format(source))
    yield from _json_lines(source, counts, text) if counts.format == "jsonl" else _passages(source, counts)
    _check(source, counts, text)


def identity(paths: Iterable[Path], *, text: str = "text") -> list[str]:
    """What decides which documents the files give: the key of their texts, and the sha256 of each.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    return [text, *(Source(Path(path)).sha256 for path in paths)]


def _tell_format(source: Source) -> str:
    compressed = source.path.suffix.lower() in (".gz", ".xz")
    ending = Path(source.path.stem if compressed else source.path.name).suffix.lower()
    ending = ".parquet" if source.stored_head.startswith(b"PAR1") else ending
    if ending in _REFUSED:
        raise UserError(f"{source.path} is {ending[1:]}, which has no lines", expected=EXPECTED, hint=_REFUSED[ending])
    _check_text(source)
    if ending in _JSON_LINES:
        return "jsonl"
    first = next((line.text for line in source.lines() if not line.blank), "")
    return "jsonl" if ending != ".txt" and isinstance(parsed(first), dict) else "text"


def _check_text(source: Source) -> None:
    try:
        source.check_text()
    except UserError as error:
        raise UserError(error.found, expected=EXPECTED, hint=error.hint) from error


def _good_lines(source: Source, counts: FileCounts) -> Iterator[Line]:
    """The lines that can be decoded, up to where the file is damaged; the others are dropped."""
    number = 0
    try:
        for line in source.lines():
            number = line.number
            if line.problem:
                counts.drop(line.problem, number)
            else:
                counts.lines += not line.blank
                yield line
    except UserError as error:
        counts.drop(CUT_SHORT, number + 1)
        counts.said.append(error.found)


def _json_lines(source: Source, counts: FileCounts, key: str) -> Iterator[Document]:
    for line in _good_lines(source, counts):
        if not line.text.strip():
            continue
        value = parsed(line.text)
        problem = _problem(value, key)
        if problem:
            counts.drop(problem, line.number)
        elif isinstance(value, dict):
            yield counts.given(value[key], line.number)


def _problem(value: object, key: str) -> str:
    """Why a parsed line gives no document, or ``""``."""
    if isinstance(value, Exception):
        return "not valid JSON"
    if not isinstance(value, dict):
        return "not a JSON object"
    if key not in value:
        return _no_key(key)
    text = value[key]
    if not isinstance(text, str):
        return f"{key!r} is not a string"
    if "\0" in text:
        return NUL
    return _half_a_character(text) if text.strip() else "empty"


def _half_a_character(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON's escapes can write half of a surrogate pair
        return "holds half a character"
    return ""


def _passages(source: Source, counts: FileCounts) -> Iterator[Document]:
    """The whole file in passages; one is given when more follows, so that the last one is known."""
    held: list[str] = []
    begin, size = 1, 0
    for line in dropwhile(lambda line: not line.text.strip(), _good_lines(source, counts)):
        if size >= PASSAGE:
            yield counts.given("\n".join([*held, ""]), begin, passage=True)
            held, size = [], 0
        if not held:
            begin = line.number
        held.append(without_cr(line.text))
        size += len(line.text) + 1
    if held:
        yield counts.given("\n".join(held), begin, passage=True)


def _check(source: Source, counts: FileCounts, key: str) -> None:
    """Raise ``UserError`` if nothing was read, or if another encoding was read as UTF-8."""
    dropped = sum(places.count for places in counts.dropped.values())
    broken = counts.dropped.get(NOT_UTF8, Places())
    if 2 * broken.count > counts.lines + dropped:
        raise encoding_error(source.path, broken.lines[0])
    if counts.documents:
        return
    reasons = "; ".join(f"{reason} ({places.count:,})" for reason, places in counts.dropped.items())
    found = f"{source.path} has no document that can be read" + f": {reasons}" * bool(reasons)
    if counts.format == "text":
        raise UserError(found, expected=EXPECTED)
    expected = f"a JSON object with a string under {key!r} on each line"
    raise UserError(found, expected=expected, hint=_keys_hint(source) if _no_key(key) in counts.dropped else "")


def _no_key(key: str) -> str:
    return f"no key {key!r}"


def _keys_hint(source: Source) -> str:
    """The keys of the first object among the first lines; the file was readable until there."""
    values = (parsed(line.text) for line in islice(source.lines(), 100))
    keys = next((list(value) for value in values if isinstance(value, dict)), [])
    return f"name the key of the text; there is: {listing(map(repr, keys))}" if keys else ""
