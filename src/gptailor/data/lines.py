"""A stored file as numbered lines of text: compression, encoding, line ends, and what makes a line unreadable."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from gptailor.data.table import FORMATS, Dropped, Table
from gptailor.errors import UserError, did_you_mean, listing

LINE_LIMIT = 10_000_000  # bytes in one line, or characters in one quoted row: more is an accident, not a text
CHUNK = 1 << 20
NOT_UTF8 = "not valid UTF-8"
NOT_AS_ASKED = "not valid in the given encoding"
UNDECODABLE = (NOT_UTF8, NOT_AS_ASKED)
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
_ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp1250", "cp1251", "cp1252", "cp1256", "cp437", "cp850")
_ENCODINGS += ("latin-1", "iso-8859-2", "iso-8859-15", "koi8-r", "mac-roman", "gb18030", "big5", "shift_jis", "euc-kr")
_SHOWN = 60  # characters of a line that are shown on a guess


class Line(NamedTuple):
    """One line: its 1-based number, its text without the LF, and what is wrong with it (``""``: nothing).

    A CR before the LF is still there, and bytes that cannot be decoded stand as lone surrogates.
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


def decoded(number: int, raw: bytes | None, otherwise: str = NOT_UTF8) -> Line:
    """A line of these bytes, UTF-8 or else with the problem ``otherwise``; None stands for over ``LINE_LIMIT``."""
    if raw is None:
        return Line(number, "", TOO_LONG)
    try:
        return Line(number, raw.decode(), NUL if b"\0" in raw else "")
    except UnicodeDecodeError:
        return Line(number, raw.decode(errors="surrogateescape"), otherwise)


def known_encoding(name: str) -> str:
    """Python's own name for an encoding of text. Raises ``UserError`` when it knows none by this name."""
    try:
        codec = codecs.lookup(name)
        # Some codecs turn bytes into bytes, and only decoding something tells them from encodings of text.
        b"a".decode(name, errors="replace")
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError):
        expected = "auto, or the name of an encoding, such as cp1252, latin-1 or utf-16-le"
        hint = did_you_mean(name.lower(), _ENCODINGS)
        raise UserError(f"there is no encoding {name!r}", expected=expected, hint=hint) from None
    return codec.name


def to_utf8(chunks: Iterable[bytes], encoding: str, *, strict: bool = False) -> Iterator[bytes]:
    """Bytes in an encoding as UTF-8 without a byte order mark; what is invalid comes out as invalid UTF-8.

    Raises:
        UnicodeError: at what is invalid, if ``strict`` or where the codec cannot go on after it.
    """
    decoder = codecs.getincrementaldecoder(encoding)(errors="strict" if strict else "surrogateescape")
    texts = chain((decoder.decode(chunk) for chunk in chunks), (decoder.decode(b"", final=True) for _ in "1"))
    first = next(filter(None, texts), "").removeprefix("\ufeff")
    # The surrogates' own bytes and not the ones they stand for, which by chance could be good UTF-8.
    yield from (text.encode(errors="surrogatepass") for text in chain([first], texts) if text)


def encoding_error(path: Path, line: int, bad: bytes = b"") -> UserError:
    """The error for a file in another encoding, of which ``line`` is the first that is not UTF-8.

    With the bytes of that line, it shows how they would read and proposes ``--encoding``.
    """
    convert = "iconv -f ISO-8859-1 -t UTF-8 FILE > NEW"
    proposal = f"--encoding cp1252, if that line is to read {_guess(bad)}, else another encoding, or {convert}"
    return UserError(
        f"{path} is not UTF-8 text: line {line:,} is the first that is not",
        expected="UTF-8 (or UTF-16 with a byte order mark)",
        hint=proposal if bad else f"{convert}, with the encoding that the file has",
    )


def _guess(bad: bytes) -> str:
    """The part of a line around the first byte that is not UTF-8, as it reads in the commonest other encoding."""
    text = bad.decode("cp1252", errors="replace").strip()  # one character for each byte
    first = next((at for at, sign in enumerate(text) if sign > "\x7f"), 0)
    start = max(0, first - _SHOWN // 2)
    return repr(text[start : start + _SHOWN])


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
    gathers what is found out for the table, and ``compressed`` tells whether it is.

    Args:
        path: the file.
        encoding: the name of an encoding; ``"auto"`` is UTF-8, or UTF-16 where a byte order mark says so.

    Raises:
        UserError: when the file cannot be read, or there is no such encoding.
    """

    def __init__(self, path: Path, encoding: str = "auto") -> None:
        self.path = path
        self.asked = encoding != "auto"
        asked = known_encoding(encoding) if self.asked else ""
        self.said: list[str] = []
        self.sha256, self.bytes = _digest(path)
        with readable(path), path.open("rb") as file:
            start = file.read(8)
        known = [how for magic, how in _COMPRESSED.items() if start.startswith(magic)]
        compression, self._open = known[0] if known else ("", open)
        self.compressed = bool(known)
        self.said += [f"{compression} compressed"] * self.compressed
        if not known and path.suffix.lower() in (".gz", ".xz"):
            self.said.append(f"not compressed, though named {path.suffix}: read as it is")
        self.stored_head = next(self.stored(), b"")
        self.mark = next((mark for mark in _MARKS if self.stored_head.startswith(mark)), b"")
        self.mark = b"" if asked and _MARKS.get(self.mark) != asked else self.mark
        self.encoding = asked or _MARKS.get(self.mark, "utf-8")
        if self.asked:
            self.said.append(f"{self.encoding.upper()}, as asked")
        elif self.mark:
            self.said.append(f"{self.encoding.upper()} with a byte order mark")
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
        try:
            yield from to_utf8(chain([first], chunks), self.encoding, strict=not self.asked)
        except UnicodeError as error:
            name = self.encoding.upper()
            found = f"is not {name} text: {error}" if self.asked else f"begins as {name} but goes on as something else"
            raise UserError(f"{self.path} {found}") from error

    def lines(self) -> Iterator[Line]:
        """All lines, the empty ones too; one over the limit is never held whole."""
        held: list[bytes] = []
        number, size = 1, 0
        for chunk in self.chunks():
            *ends, rest = chunk.split(self.line_end)
            for end in ends:
                whole = b"".join([*held, end]) if size + len(end) <= LINE_LIMIT else None
                yield decoded(number, whole, self.undecodable)
                held, size, number = [], 0, number + 1
            size += len(rest)
            held = [*held, rest] if size <= LINE_LIMIT else []
        if size:
            yield decoded(number, b"".join(held) if size <= LINE_LIMIT else None, self.undecodable)

    @property
    def undecodable(self) -> str:
        """The problem of a line that is not valid in the encoding."""
        return NOT_AS_ASKED if self.asked and self.encoding != "utf-8" else NOT_UTF8

    def encoding_error(self) -> UserError:
        """The error for a file that has another encoding than was assumed."""
        bad = next((line for line in self.lines() if line.problem == self.undecodable), Line(1, "", ""))
        if self.undecodable == NOT_UTF8:
            return encoding_error(self.path, bad.number, bad.text.encode(errors="surrogateescape"))
        found = f"{self.path} is not {self.encoding.upper()} text: line {bad.number:,} is the first that is not"
        return UserError(found, expected="the encoding that the file has", hint="--encoding auto")

    def check_text(self) -> None:
        """Raise ``UserError`` unless the beginning can be text."""
        expected = f"text: {listing(FORMATS)}"
        for magic, what in _BINARY.items():
            if self.stored_head.startswith(magic):
                raise UserError(f"found binary data: {self.path} is {what}", expected=expected)
        if not self.head.strip(b"\r\n"):
            raise UserError(f"{self.path} is empty", expected="rows of data")
        size = len(self.head)
        if size - len(self.head.translate(None, _CONTROL)) > 0.1 * size:
            wide = 0.3 < self.head.count(0) / size < 0.6
            way = "--encoding utf-16-le, or iconv -f UTF-16LE -t UTF-8 FILE > NEW"
            hint = f"if this is UTF-16 without a mark: {way}" if wide else ""
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
