"""A stored file as numbered lines of text: compression, encoding, line ends, and what makes a line unreadable."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from gptailor.data.table import FORMATS, Dropped, Table
from gptailor.errors import UserError, listing

LINE_LIMIT = 10_000_000  # bytes in one line, or characters in one quoted row: more is an accident, not a text
CHUNK = 1 << 20
NOT_UTF8 = "not valid UTF-8"
TOO_LONG = f"longer than {LINE_LIMIT // 1_000_000} MB"
NUL = "holds a NUL character"

_COMPRESSED: dict[bytes, tuple[str, Callable[..., Any]]] = {
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
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_CONTROL = bytes(set(range(9)) | set(range(14, 32)) | {127})


class Line(NamedTuple):
    """One line: its 1-based number, its text without the LF, and what is wrong with it (``""``: nothing).

    A CR before the LF is still there, and bytes that are not UTF-8 stand as lone surrogates.
    """

    number: int
    text: str
    problem: str

    @property
    def blank(self) -> bool:
        """Whether the line is empty."""
        return not self.problem and self.text in ("", "\r")


def without_cr(text: str) -> str:
    """The text without the CR of a CRLF."""
    return text[:-1] if text.endswith("\r") else text


def decoded(number: int, raw: bytes | None) -> Line:
    """A line of these bytes; None stands for more than ``LINE_LIMIT`` of them."""
    if raw is None:
        return Line(number, "", TOO_LONG)
    try:
        return Line(number, raw.decode(), NUL if b"\0" in raw else "")
    except UnicodeDecodeError:
        return Line(number, raw.decode(errors="surrogateescape"), NOT_UTF8)


def encoding_error(path: Path, line: int) -> UserError:
    """The error for a file in another encoding, of which ``line`` is the first that is not UTF-8."""
    return UserError(
        f"{path} is not UTF-8 text: line {line:,} is the first that is not",
        expected="UTF-8 (or UTF-16 with a byte order mark)",
        hint="iconv -f ISO-8859-1 -t UTF-8 FILE > NEW, with the encoding that the file has",
    )


@contextmanager
def readable(path: Path) -> Generator[None]:
    """Turn what the operating system and the decompressors raise into ``UserError`` that names the file."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is cut short or damaged: {error}", hint="fetch or compress it again") from error
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"cannot read {path}: {why}", expected="a file that you may read") from error


class Source:
    """One stored file as decompressed UTF-8, to be read as often as needed.

    ``stored_head`` and ``head`` are its first megabyte as stored and as UTF-8, ``line_end`` is LF or CR, ``said``
    gathers what is found out for the table, and ``compressed`` tells whether it is. Raises ``UserError`` when the file
    cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self.sha256, self.bytes = _digest(path)
        with readable(path), path.open("rb") as file:
            start = file.read(8)
        known = [how for magic, how in _COMPRESSED.items() if start.startswith(magic)]
        compression, self._open = known[0] if known else ("", open)
        self.compressed = bool(known)
        self.said += [f"{compression} compressed"] * self.compressed
        self.stored_head = next(self.stored(), b"")
        self.mark = next((mark for mark in _MARKS if self.stored_head.startswith(mark)), b"")
        self.encoding = _MARKS.get(self.mark, "utf-8")
        self.said += [f"{self.encoding.upper()} with a byte order mark"] * bool(self.mark)
        self.head = next(self.chunks(), b"")
        # A lone CR ends a line only where nothing else does: elsewhere it is a character of the text.
        self.line_end = b"\r" if b"\r" in self.head and b"\n" not in self.head else b"\n"

    def stored(self) -> Iterator[bytes]:
        """The decompressed bytes, a megabyte at a time."""
        with readable(self.path), cast("BinaryIO", self._open(self.path, "rb")) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def chunks(self) -> Iterator[bytes]:
        """The same as UTF-8 without a byte order mark; invalid UTF-8 passes as it is."""
        chunks = self.stored()
        first = next(chunks, b"")[len(self.mark) :]
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

    def lines(self) -> Iterator[Line]:
        """All lines, the empty ones too; one over the limit is never held whole."""
        held: list[bytes] = []
        number, size = 1, 0
        for chunk in self.chunks():
            *ends, rest = chunk.split(self.line_end)
            for end in ends:
                whole = b"".join([*held, end]) if size + len(end) <= LINE_LIMIT else None
                yield decoded(number, whole)
                held, size, number = [], 0, number + 1
            size += len(rest)
            held = [*held, rest] if size <= LINE_LIMIT else []
        if size:
            yield decoded(number, b"".join(held) if size <= LINE_LIMIT else None)

    def check_text(self) -> None:
        """Raise ``UserError`` unless the beginning can be text."""
        expected = f"text: {listing(FORMATS)}"
        for magic, what in _BINARY.items():
            if self.stored_head.startswith(magic):
                raise UserError(f"found binary data: {self.path} is {what}", expected=expected)
        if not self.head.strip(b"\r\n"):
            raise UserError(f"{self.path} is empty", expected="rows of text and label")
        size = len(self.head)
        if size - len(self.head.translate(None, _CONTROL)) > 0.1 * size:
            wide = 0.3 < self.head.count(0) / size < 0.6
            hint = "if this is UTF-16 without a mark: iconv -f UTF-16LE -t UTF-8 FILE > NEW" if wide else ""
            raise UserError(f"found binary data in {self.path}", expected=expected, hint=hint)

    def table(self, format: str, columns: dict[str, list[Any]], lines: list[int], dropped: list[Dropped]) -> Table:
        """A table of this file."""
        return Table(self.path, self.sha256, self.bytes, format, columns, lines, dropped, self.said)


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with readable(path), path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
