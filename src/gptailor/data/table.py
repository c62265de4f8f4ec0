"""What every reader gives back: the rows of one file as columns, and the rows that could not be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMATS = ("csv", "tsv", "json", "jsonl", "parquet", "label-first")
COLUMN_LIMIT = 1_000


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
