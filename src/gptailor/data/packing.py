"""Records to rows of a batch: one in each, padded as the book does, or several that cannot see each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gptailor.data.instruction import Record
from gptailor.data.rows import NOT_LEARNED, TokenBatch


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Rows of records that together have at most ``room`` tokens: the longest first, each where it first fits.

    Lengths 3, 5, 2, 4 and room 8 give [[1, 0], [3, 2]]. A longer record has a row of its own.
    """
    rows: list[list[int]] = []
    free = np.zeros(len(lengths), np.int64)
    for record in sorted(range(len(lengths)), key=lambda record: -lengths[record]):
        fits = free[: len(rows)] >= lengths[record]
        place = int(fits.argmax()) if fits.any() else len(rows)
        if place == len(rows):
            rows.append([])
            free[place] = room
        rows[place].append(record)
        free[place] -= lengths[record]
    return rows


def collate_records(rows: Sequence[Sequence[Record]], end_of_text: int) -> TokenBatch:
    """The batch of some rows of encoded records, each record a document of its own, padded to the longest row.

    The model reads all tokens of a record but the last, and each place foretells the next token. What is left of a row
    is one more document, of ends of text, of which nothing is learned.

    Worked example (the book's, in which everything is learned): 0 1 2 3 4, 5 6 and 7 8 9, each closed by the end of
    text E, in a row each:

        input_ids     0 1 2 3 4    5 6    E    E    E    7 8 9    E    E
        labels        1 2 3 4 E    6 E -100 -100 -100    8 9 E -100 -100

    and the last two in one row:

        input_ids     5 6 7 8 9
        labels        6 E 8 9 E
        positions     0 1 0 1 2
        documents     0 0 1 1 1
    """
    shape = (len(rows), max(sum(record.n_inputs for record in row) for row in rows))
    inputs, labels = torch.full(shape, end_of_text), torch.full(shape, NOT_LEARNED)
    positions, documents = torch.empty(shape, dtype=torch.int64), torch.empty(shape, dtype=torch.int64)
    for place, row in enumerate(rows):
        at = 0
        for number, record in enumerate(row):
            ids, end = torch.from_numpy(record.ids.astype(np.int64)), at + record.n_inputs
            inputs[place, at:end] = ids[:-1]
            labels[place, at:end] = ids[1:].masked_fill(~torch.from_numpy(record.learned[1:]), NOT_LEARNED)
            positions[place, at:end], documents[place, at:end] = torch.arange(record.n_inputs), number
            at = end
        positions[place, at:], documents[place, at:] = torch.arange(shape[1] - at), len(row)
    return TokenBatch(inputs, labels, positions, documents)
