"""A token store to rows for next-token training: their order, and batches.

A row is T + 1 token ids in a stretch; which rows a batch holds follows from the seed and the number of the batch alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from gptailor.data.store import Store
from gptailor.errors import UserError

NOT_LEARNED = -100  # as a label: no loss at this place
CHUNK = 1 << 20  # ids that are searched at once


class Schedule:
    """The rows of each batch, for any batch at any time: nothing but the arguments decides them.

    The rows of a source are its stretches of T + 1 tokens, each beginning with the last token of the one before, so
    that every token but the very first is a target exactly once; the last row may be shorter. In one pass over a
    source each row comes once, in an order that is new for each pass. The sources take turns evenly: after any number
    of rows, each has had its share, give or take one row for each source. More batches lengthen the schedule and do
    not change its beginning.

    Worked example: sources of 9 and 5 tokens with T = 4 have 2 and 1 rows; weights 1 and 2 give each of them half of
    all rows, so that four batches of two rows are two passes over the first source and four over the second.

    Args:
        n_tokens: of each source; one with fewer than two has no row.
        weights: of each source, 0 or more: 2.0 is twice as many passes as 1.0.
        context_length: T.
        batch_size: rows in each batch.
        n_batches: how many there are.
        seed: decides the order of the rows.

    Attributes:
        passes: how often each source is gone through, on average over its rows.

    Raises:
        UserError: a weight that is negative or not finite, or no source that has both a weight and a row.
    """

    passes: list[float]

    def __init__(
        self,
        n_tokens: Sequence[int],
        weights: Sequence[float],
        context_length: int,
        batch_size: int,
        n_batches: int,
        seed: int,
    ) -> None:
        _check_weights(weights)
        self._n_rows = [-(-max(0, count - 1) // context_length) for count in n_tokens]
        mass = [weight * count for weight, count in zip(weights, self._n_rows, strict=True)]
        if not sum(mass):
            raise UserError("there is no row to learn from", expected="a source with at least two tokens and a weight")
        self._shares = {source: part / sum(mass) for source, part in enumerate(mass) if part}
        self._context_length, self._batch_size, self._seed = context_length, batch_size, seed
        self._n_batches = n_batches
        self._orders: dict[int, tuple[int, np.ndarray]] = {}
        n_visits = n_batches * batch_size
        self.passes = [self._shares.get(i, 0.0) * n_visits / max(1, count) for i, count in enumerate(self._n_rows)]

    def __len__(self) -> int:
        """The number of batches."""
        return self._n_batches

    def rows(self, batch_number: int) -> list[tuple[int, int]]:
        """The rows of one batch (from 0): each as its source and the place of its first token there."""
        assert 0 <= batch_number < self._n_batches
        return [(source, self._start(source, visit)) for source, visit in self._visits(batch_number * self._batch_size)]

    def _visits(self, first: int) -> list[tuple[int, int]]:
        """Rows ``first`` and following of the whole schedule, each as its source and which visit there it is.

        Visit v of a source with share p has its time at (v + 1/2) / p, and the schedule is all visits in order of time:
        until t there are t of them, give or take half a visit for each source. So those around ``first`` suffice.
        """
        margin = len(self._shares) + 1
        begin, end = first - margin, first + self._batch_size + margin
        spans = {source: (max(0, int(begin * p)), int(end * p) + 2) for source, p in self._shares.items()}
        times = sorted(((v + 0.5) / self._shares[s], s, v) for s, span in spans.items() for v in range(*span))
        skipped = first - sum(low for low, _ in spans.values())
        return [(source, visit) for _, source, visit in times[skipped : skipped + self._batch_size]]

    def _start(self, source: int, visit: int) -> int:
        number, place = divmod(visit, self._n_rows[source])
        if self._orders.get(source, (-1,))[0] != number:
            random = np.random.default_rng([self._seed, source, number])
            self._orders[source] = number, random.permutation(self._n_rows[source])
        return int(self._orders[source][1][place]) * self._context_length


def _check_weights(weights: Sequence[float]) -> None:
    wrong = [weight for weight in weights if not 0 <= weight < float("inf")]
    if wrong:
        raise UserError(f"a source weight of {wrong[0]}", expected="0 or more: 2 samples a source twice as often as 1")


@dataclass
class TokenBatch:
    """Rows of packed documents; a token may see only earlier ones of its own document.

    Attributes:
        input_ids: (B, T) int64.
        labels: (B, T) int64, the id that follows; ``NOT_LEARNED`` where nothing is learned.
        positions: (B, T) int64, from 0 where a document, or the row, begins.
        documents: (B, T) int64, number of the document within the row, from 0.
    """

    input_ids: Tensor
    labels: Tensor
    positions: Tensor
    documents: Tensor

    def to(self, device: torch.device) -> TokenBatch:
        """The same batch on ``device``."""
        tensors = (self.input_ids, self.labels, self.positions, self.documents)
        return TokenBatch(*(tensor.to(device) for tensor in tensors))


def collate_rows(
    sources: Sequence[np.ndarray], rows: Sequence[tuple[int, int]], context_length: int, end_of_text: int
) -> TokenBatch:
    """The batch of some rows, each cut from the ids of its source and filled up with ends of text.

    A document ends with its end of text, which is learned. What follows it is another document, whose first token
    nothing could foretell: it is not learned.

    Worked example: two documents 5 6 and 7 8 9, end of text 0, T = 4. The source 5 6 0 7 8 9 0 has the rows
    5 6 0 7 8 (from place 0) and 8 9 0 (from place 4):

        input_ids     5  6    0    7       8  9    0    0
        labels        6  0 -100    8       9  0 -100 -100
        positions     0  1    2    0       0  1    2    0
        documents     0  0    0    1       0  0    0    1

    Args:
        sources: ids (N,) of each, such as ``Store.tokens("train")``.
        rows: source and first place of each row, such as ``Schedule.rows``.
        context_length: T.
        end_of_text: id that closes each document.
    """
    ids = np.full((len(rows), context_length + 1), end_of_text, np.int64)
    for place, (source, start) in enumerate(rows):
        cut = sources[source][start : start + context_length + 1]
        ids[place, : len(cut)] = cut
    inputs = ids[:, :-1]
    ends = inputs == end_of_text
    begins = np.zeros_like(ends)
    begins[:, 1:] = ends[:, :-1]
    places = np.arange(context_length)
    return TokenBatch(
        torch.from_numpy(inputs.copy()),
        torch.from_numpy(np.where(ends, NOT_LEARNED, ids[:, 1:])),
        torch.from_numpy(places - np.maximum.accumulate(np.where(begins, places, 0), axis=1)),
        torch.from_numpy(begins.cumsum(axis=1)),
    )


def held_out_batches(store: Store, context_length: int, max_tokens: int) -> tuple[Iterator[TokenBatch], int]:
    """Batches in which every held-out token but the first of each document is a target exactly once.

    Each document is cut into windows of T targets from its beginning, so that no neighbour moves its cuts; short
    windows share a row, as documents of their own. Worked example with the source of ``collate_rows`` and T = 4: the
    windows are 5 6 (targets 6 0) and 7 8 9 (targets 8 9 0), which do not fit into one row:

        input_ids     5  6    0    0       7  8  9    0
        labels        6  0 -100 -100       8  9  0 -100
        positions     0  1    0    1       0  1  2    0
        documents     0  0    1    1       0  0  0    1

    Args:
        store: whose held-out part is meant.
        context_length: T.
        max_tokens: in one batch; a row is never split.

    Returns:
        The batches, and how many targets they have in all: with L the sum of their losses in nats, perplexity is
        exp(L / targets), and bits per byte are L / ln 2 / ``store.held_out.bytes``.
    """
    tokens = store.tokens("held_out")
    rows = _packed(_windows(tokens, store.end_of_text, context_length), context_length)
    size = max(1, max_tokens // context_length)
    groups = iter(lambda: list(islice(rows, size)), [])
    batches = (_collate_windows(tokens, group, context_length, store.end_of_text) for group in groups)
    return batches, store.held_out.tokens - store.held_out.documents


def _windows(tokens: np.ndarray, end_of_text: int, context_length: int) -> Iterator[tuple[int, int]]:
    """Place of the first input and number of inputs, for each window of each document."""
    begin = 0
    for offset in range(0, len(tokens), CHUNK):
        for end in (np.flatnonzero(tokens[offset : offset + CHUNK] == end_of_text) + offset).tolist():
            for start in range(begin, end, context_length):
                yield start, min(context_length, end - start)
            begin = end + 1


def _packed(windows: Iterable[tuple[int, int]], context_length: int) -> Iterator[list[tuple[int, int]]]:
    """Rows of as many windows, in their order, as fit."""
    row: list[tuple[int, int]] = []
    for window in windows:
        if sum(n for _, n in row) + window[1] > context_length:
            yield row
            row = []
        row.append(window)
    if row:
        yield row


def _collate_windows(
    tokens: np.ndarray, rows: Sequence[Sequence[tuple[int, int]]], context_length: int, end_of_text: int
) -> TokenBatch:
    """The batch of some rows of windows; what is left of a row is one more document, of ends of text."""
    shape = (len(rows), context_length)
    inputs, labels = torch.full(shape, end_of_text), torch.full(shape, NOT_LEARNED)
    positions, documents = torch.empty(shape, dtype=torch.int64), torch.empty(shape, dtype=torch.int64)
    for place, row in enumerate(rows):
        at = 0
        for document, (start, n) in enumerate(row):
            ids = torch.from_numpy(tokens[start : start + n + 1].astype(np.int64))
            inputs[place, at : at + n], labels[place, at : at + n] = ids[:-1], ids[1:]
            positions[place, at : at + n], documents[place, at : at + n] = torch.arange(n), document
            at += n
        positions[place, at:], documents[place, at:] = torch.arange(context_length - at), len(row)
    return TokenBatch(inputs, labels, positions, documents)
