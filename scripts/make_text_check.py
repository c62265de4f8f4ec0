"""Find text of evaluation sets in generated documents.

A document is reported when it contains a whole text of a set (five words or more), or shares a run of eight words
with one. Words are compared in lower case and without punctuation.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

RUN = 8  # words in a run that must not be shared
SHORTEST = 5  # words of the shortest text that counts as a whole
REPOSITORY = Path(__file__).parents[1]
SETS = {  # below the folder of the data sets: how a file gives its texts
    "sms_spam/SMSSpamCollection": lambda text: (line.partition("\t")[2] for line in text.split("\n")),
    "trec/train.txt": lambda text: (line.partition(" ")[2] for line in text.split("\n")),
    "trec/test.txt": lambda text: (line.partition(" ")[2] for line in text.split("\n")),
    "rotten_tomatoes/rt_polarity.csv": lambda text: cells(text, ","),
    "nonenglish/swahili_afrisenti/train.tsv": lambda text: cells(text, "\t"),
    "nonenglish/swahili_afrisenti/dev.tsv": lambda text: cells(text, "\t"),
    "nonenglish/swahili_afrisenti/test.tsv": lambda text: cells(text, "\t"),
    "instruction/instruction-data.json": lambda text: (value for row in json.loads(text) for value in row.values()),
}


def words(text: str) -> list[str]:
    """Lower-cased words without punctuation; "don't" and "dont" are the same word."""
    return re.findall(r"\w+", re.sub(r"['’`]", "", text.lower()))


def cells(text: str, separator: str) -> Iterator[str]:
    """Every cell of a table, so that no column is missed; labels are too short to count."""
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    for row in csv.reader(text.splitlines(), delimiter=separator, quoting=quoting):
        yield from row


def sample_texts() -> Iterator[str]:
    sample = REPOSITORY / "src" / "gptailor" / "assets" / "sample"
    for file in sorted(sample.glob("*.csv")):
        yield from cells(file.read_text(encoding="utf-8"), ",")
    for row in json.loads((sample / "questions.json").read_text(encoding="utf-8")):
        yield from row.values()


def evaluation_texts(data: Path | None) -> Iterator[str]:
    """The texts of the committed samples and, where ``data`` is given, of the evaluation sets in that folder.

    Raises ``FileNotFoundError`` when a set is missing: a check that skips one would say too much.
    """
    yield from sample_texts()
    if data is None:
        return
    for name, texts in SETS.items():
        yield from texts((data / name).read_text(encoding="utf-8", errors="replace"))


class Checker:
    """Knows the runs of words of the texts that must not occur."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.runs: set[int] = set()
        self.whole: dict[int, set[int]] = {}  # by length; longer texts are found by their runs
        for text in texts:
            found = words(text)
            self.runs.update(hash(tuple(found[i : i + RUN])) for i in range(len(found) - RUN + 1))
            if SHORTEST <= len(found) < RUN:
                self.whole.setdefault(len(found), set()).add(hash(tuple(found)))

    def find(self, text: str) -> list[str]:
        """The runs of words in ``text`` that are a whole short text, or a part of eight words, of a set."""
        found = words(text)
        hits = []
        for length, known in [(RUN, self.runs), *self.whole.items()]:
            for i in range(len(found) - length + 1):
                run = found[i : i + length]
                if hash(tuple(run)) in known:
                    hits.append(" ".join(run))
        return hits
