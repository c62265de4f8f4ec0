"""Who takes part, and what all are given: one model, the same texts as ids, and how much of them is to be done."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Skip(Exception):
    """Raised by a contestant that cannot take part, with the reason."""


@dataclass(frozen=True)
class Work:
    """Made by ``material.py`` and read by all; ids are those of the model's own tokenizer.

    Attributes:
        folder: holds ``model/`` and ``classifier/`` in the Hugging Face layout, ``sms.csv`` and ``instructions.json``.
        shape: n_layer, n_head, n_embd, vocab_size, context_length.
        pad: id of the end of text.
        spam: ``train``, ``validation`` and ``test``, each a list of ids and class.
        texts: to classify; ``ids`` are theirs.
        records: to fine-tune on: prompt, answer and end of text.
        prompts: to continue, each by ``new_tokens``.
        scale: texts, words in each, and epochs that the scaling laws begin with.
    """

    folder: Path
    shape: dict[str, int]
    pad: int
    epochs: int
    batch_size: int
    new_tokens: int
    spam: dict[str, list[tuple[list[int], int]]]
    texts: list[str]
    ids: list[list[int]]
    records: list[list[int]]
    prompts: list[list[int]]
    scale: dict[str, int]

    @classmethod
    def load(cls, folder: Path) -> Work:
        """What ``save`` wrote."""
        return cls(**json.loads((folder / "work.json").read_text(encoding="utf-8")) | {"folder": folder})

    def save(self) -> None:
        """Writes ``work.json`` into the folder."""
        (self.folder / "work.json").write_text(json.dumps(asdict(self) | {"folder": ""}), encoding="utf-8")

    @property
    def longest(self) -> int:
        """Tokens of the longest training text, to which the textbook pads all texts."""
        return max(len(ids) for ids, _ in self.spam["train"])

    @property
    def learned(self) -> int:
        """Tokens that one pass over the records learns: all but the first of each."""
        return sum(len(ids) - 1 for ids in self.records)

    def batches(self, lengths: list[int], seed: int, *, by_length: bool = False) -> list[list[int]]:
        """Rows of each batch of an epoch: shuffled, or such of similar length together in shuffled order."""
        rng = random.Random(seed)
        order = sorted(range(len(lengths)), key=lambda row: (by_length and lengths[row], rng.random()))
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        rng.shuffle(batches)
        return batches


@dataclass(frozen=True)
class Contestant:
    """A function of a file of ``peers/`` and its options.

    Attributes:
        peer: the file; the function in it is called like the row's work.
        work: another function, where there are two ways.
    """

    peer: str
    precision: str = "fp32"
    options: Mapping[str, Any] = field(default_factory=dict)
    work: str | None = None


def padded(
    rows: list[list[int]], pad: int, *, width: int = 0, left: bool = False
) -> tuple[list[list[int]], list[list[int]]]:
    """Rows filled up to the longest of them, or cut and filled to ``width``; and which ids are real, as 0 and 1."""
    width = width or max(map(len, rows))
    rows = [row[:width] for row in rows]
    fills = [width - len(row) for row in rows]
    both = list(zip(rows, fills, strict=True))
    ids = [[pad] * fill + row if left else row + [pad] * fill for row, fill in both]
    real = [[0] * fill + [1] * len(row) if left else [1] * len(row) + [0] * fill for row, fill in both]
    return ids, real
