"""Texts whose label stands before them: at the beginning of a line, or as the name of the folder."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from gptailor.data.lines import (
    LINE_LIMIT,
    NOT_AS_ASKED,
    UNDECODABLE,
    Line,
    Source,
    decoded,
    known_encoding,
    readable,
    to_utf8,
    without_cr,
)
from gptailor.data.table import Dropped, Table
from gptailor.errors import UserError, listing

_LABEL_AND_TEXT = re.compile(r"([^ \t]+)[ \t]+(\S.*)", re.DOTALL)
_FINE_LABEL = re.compile(r"[^\W\d][\w-]*:[\w-]+[ \t]+\S")
_UNLABELLED = "unsup"  # the folder of texts without a label in the layout that IMDb made common


def begins_with_label(text: str) -> bool:
    """Whether a line begins like ``DESC:manner How did``; a label without a colon looks like any other word."""
    return bool(_FINE_LABEL.match(text))


def read_label_first(source: Source) -> Table:
    """Read lines of a label, white space and a text, as columns ``label`` (up to the colon), ``fine`` and ``text``."""
    table = source.table("label-first", {"label": [], "fine": [], "text": []}, [], [])
    for line in source.lines():
        if line.blank:
            continue
        match = _LABEL_AND_TEXT.fullmatch(without_cr(line.text))
        label = match[1].partition(":")[0] if match else ""
        if line.problem or not match or not label:
            why = line.problem or ("no label before the colon" if match else "no text after the label")
            table.dropped.append(Dropped(line.number, why))
            continue
        for name, value in (("label", label), ("fine", match[1].rstrip(":")), ("text", match[2])):
            table.columns[name].append(value)
        table.lines.append(line.number)
    table.said.append("each line is its label and then the text; label is what stands before the colon, fine the whole")
    return table


def label_folders(path: Path) -> list[Path]:
    """The folders directly in ``path`` that hold .txt files."""
    with readable(path):
        folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
        return [folder for folder in folders if text_files(folder)]


def text_files(folder: Path) -> list[Path]:
    """The .txt files (or .TXT) directly in a folder, by name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() == ".txt")


def read_folders(path: Path, encoding: str = "auto") -> Table:
    """Read the .txt files of the label folders in ``path``, as columns ``text`` and ``label``.

    Args:
        path: the folder.
        encoding: of the files; ``"auto"`` is UTF-8.

    Raises:
        UserError: when there are no such folders, a file cannot be read, or there is no such encoding.
    """
    asked = "" if encoding == "auto" else known_encoding(encoding)
    folders = label_folders(path)
    labels = [folder for folder in folders if folder.name != _UNLABELLED]
    if not folders:
        raise UserError(f"{path} is a folder", expected="a file, or a folder of label folders that hold .txt files")
    table = Table(path, "", 0, "folders", {"text": [], "label": []}, [])
    table.said.append(f"one text in each .txt file, its label is the folder: {listing(label.name for label in labels)}")
    if asked:
        table.said.append(f"{asked.upper()}, as asked")
    if labels != folders:
        table.said.append(f"the folder {_UNLABELLED!r} was passed over: its texts have no label")
    digest = hashlib.sha256()
    files = [file for label in labels for file in text_files(label)]
    others = sum(1 for label in labels for file in label.iterdir()) - len(files)
    if others:
        table.said.append(f"other files in these folders were passed over: {others:,}")
    apart = [each.name for each in path.iterdir() if each.is_dir() and each not in folders and each.name[0] != "."]
    if apart:
        table.said.append(f"folders without .txt files were passed over: {listing(sorted(apart))}")
    for number, file in enumerate(files, 1):
        raw = _content(file)
        digest.update(f"{file.relative_to(path).as_posix()}\0{hashlib.sha256(raw or b'').hexdigest()}\n".encode())
        table.bytes += len(raw or b"")
        line = _line(number, raw, asked)
        if line.problem:
            table.dropped.append(Dropped(number, line.problem))
            continue
        table.columns["text"].append(line.text)
        table.columns["label"].append(file.parent.name)
        table.lines.append(number)
    table.sha256 = digest.hexdigest()
    broken = [row.line for row in table.dropped if row.reason in UNDECODABLE]
    if 2 * len(broken) > len(files):
        raise Source(files[broken[0] - 1], asked or "utf-8").encoding_error()
    return table


def _line(number: int, raw: bytes | None, encoding: str) -> Line:
    if raw is None or encoding in ("", "utf-8"):
        return decoded(number, raw)
    try:
        return decoded(number, b"".join(to_utf8([raw], encoding)), NOT_AS_ASKED)
    except UnicodeError:
        return Line(number, "", NOT_AS_ASKED)


def _content(file: Path) -> bytes | None:
    with readable(file):
        if not file.is_file():  # a link to a pipe or a device has no end
            raise UserError(f"{file} is no file", expected="a text")
        return file.read_bytes() if file.stat().st_size <= LINE_LIMIT else None
