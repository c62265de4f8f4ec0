"""Files to rows: csv, tsv, json, jsonl, parquet, labelled lines and label folders become columns with line numbers.

Every row of a file ends up in the table or among the dropped ones, with the line where it begins. What a file leaves
open (format, delimiter, header, quotes, encoding) is decided by evidence, and the decision is said.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path

from gptailor.data.delimited import DELIMITERS, read_delimited
from gptailor.data.labelled import begins_with_label, label_folders, read_folders, read_label_first
from gptailor.data.lines import UNDECODABLE, Source, readable
from gptailor.data.records import parsed, read_json, read_jsonl, read_parquet
from gptailor.data.table import FORMATS, Dropped, Table
from gptailor.errors import UserError, did_you_mean, listing

__all__ = ["FORMATS", "Dropped", "Parts", "Table", "find_parts", "read_table"]

_READERS = {"json": read_json, "jsonl": read_jsonl, "parquet": read_parquet, "label-first": read_label_first}
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
_PART_WORDS = {"train": "train", "val": "validation", "dev": "validation", "test": "test"}


@dataclass(frozen=True)
class Parts:
    """Which files make up which part of the data.

    Args:
        files: ``{"data": [file]}``, or some of ``"train"``, ``"validation"`` and ``"test"`` with their files by name.
        ignored: what else lies in the folder.
    """

    files: dict[str, list[Path]]
    ignored: list[Path]


def read_table(
    path: Path,
    *,
    format: str = "auto",
    encoding: str = "auto",
    delimiter: str = "auto",
    header: bool | None = None,
    quoting: bool | None = None,
) -> Table:
    """Read one file (plain, gzip or xz), or one folder of label folders with a text in each ``.txt`` file.

    Args:
        path: the file or folder.
        format: one of ``FORMATS``; ``"auto"`` tells by the name's ending, and by the content where that says nothing.
        encoding: name of a text encoding that Python knows; ``"auto"`` is UTF-8, or UTF-16 with a byte order mark.
        delimiter: csv and tsv only: one of ``DELIMITERS``; ``"auto"`` tells by the first line and the evenness.
        header: csv and tsv only: whether the first row names the columns; None tells by its look.
        quoting: csv and tsv only: whether ``"`` encloses fields; None tells by which way more rows fit.

    Returns:
        A table with at least one row.

    Raises:
        UserError: when nothing can be read: missing, unreadable, empty, binary, damaged, or without one good row; or
            for an unknown format, encoding or delimiter.
    """
    path = Path(path)
    if format not in ("auto", *FORMATS):
        raise UserError(f"unknown format {format!r}", expected=listing(FORMATS), hint=did_you_mean(format, FORMATS))
    if delimiter not in ("auto", *DELIMITERS):
        expected = f"auto, {listing(DELIMITERS)}"
        raise UserError(f"unknown delimiter {delimiter!r}", expected=expected, hint=did_you_mean(delimiter, DELIMITERS))
    _check_there(path)
    if path.is_dir():
        return _checked(read_folders(path, encoding))
    source = Source(path, encoding)
    chosen = _tell_format(source, guess=delimiter == "auto") if format == "auto" else format
    if chosen != "parquet":
        source.check_text()
    if chosen in _READERS:
        return _checked(_READERS[chosen](source), source)
    told = format != "auto"
    table = read_delimited(source, chosen, told=told, delimiter=delimiter, header=header, quoting=quoting)
    return _checked(table, source)


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
    with readable(path):
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    by_part: dict[str, list[Path]] = {"train": [], "validation": [], "test": [], "": []}
    for entry in entries:
        by_part[_part_of(entry)].append(entry)
    ignored = by_part.pop("")
    files = {part: paths for part, paths in by_part.items() if paths}
    if files:
        return Parts(files, ignored)
    if label_folders(path):
        return Parts({"data": [path]}, [])
    there = listing(entry.name + "/" * entry.is_dir() for entry in entries) or "nothing"
    raise UserError(
        f"no file in {path} tells which part of the data it is; there is: {there}",
        expected=f"files named train, validation (or val, dev) and test, ending in {listing(_SUFFIXES)} (.gz, .xz)",
        hint="name one file itself",
    )


def _check_there(path: Path) -> None:
    with readable(path):
        if path.is_file() or path.is_dir():
            return
        if path.exists():
            raise UserError(f"{path} is neither a file nor a folder", expected="a data file")
        near = [entry.name for entry in path.parent.iterdir() if _alike(entry, path)] if path.parent.is_dir() else []
    raise UserError(f"no such file: {path}", expected="a data file or folder", hint=did_you_mean(path.name, near))


def _alike(entry: Path, path: Path) -> bool:
    """Whether the names are close without their endings, which make any two files look alike."""
    return SequenceMatcher(None, _stem_and_suffix(entry)[0], _stem_and_suffix(path)[0]).ratio() >= 0.7


def _part_of(entry: Path) -> str:
    stem, suffix = _stem_and_suffix(entry)
    if (suffix not in _SUFFIXES and suffix) or (entry.is_dir() and not label_folders(entry)):
        return ""
    words = re.split(r"[\W_]+", stem.lower())
    for word in (words[0], words[-1]):
        for start, part in _PART_WORDS.items():
            if word.startswith(start):
                return part
    return ""


def _stem_and_suffix(path: Path) -> tuple[str, str]:
    """``train.csv.gz`` -> ``("train", ".csv")``."""
    name = Path(path.stem) if path.suffix.lower() in (".gz", ".xz") else Path(path.name)
    return name.stem, name.suffix.lower()


def _tell_format(source: Source, *, guess: bool) -> str:
    """The format by content where that is certain, then by the name's ending, then by a look at the first lines.

    ``""`` stands for delimited text of which nothing more is known; without ``guess`` it is what no ending tells.
    """
    if source.stored_head.startswith(b"PAR1"):
        return "parquet"
    named = _SUFFIXES.get(_stem_and_suffix(source.path)[1], "")
    if named or not guess:
        return named
    if re.match(r"\[\s*\{", source.head[:4096].decode(errors="replace").lstrip()):
        return "json"
    sample = [line.text for line in islice(source.lines(), 100) if not line.blank]
    if sample and sample[0].startswith("{"):
        return "jsonl" if isinstance(parsed(sample[0]), dict) else "json"
    return "label-first" if sample and all(map(begins_with_label, sample)) else ""


def _checked(table: Table, source: Source | None = None) -> Table:
    """The table, of a source or of label folders, if it has rows and most of them could be decoded."""
    broken = [row for row in table.dropped if row.reason in UNDECODABLE]
    if source and 2 * len(broken) > len(table.lines) + len(table.dropped):
        raise source.encoding_error()
    if not table.lines:
        reasons = Counter(row.reason for row in table.dropped).most_common(3)
        listed = "; ".join(f"{reason} ({count:,})" for reason, count in reasons)
        raise UserError(f"{table.path} has no row that can be read" + (f": {listed}" if listed else ""))
    if broken:
        table.said.append(
            f"{len(broken):,} rows are {broken[0].reason}, the first on line {broken[0].line:,}; if the file has "
            "another encoding, name it (--encoding cp1252) or convert it (iconv -f ISO-8859-1 -t UTF-8 FILE > NEW)"
        )
    return table
