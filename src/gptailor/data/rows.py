"""Documents to rows for next-token training: a store of token ids on disk, the order of its rows, and batches.

The ids of all documents stand one after the other, each document closed by the end of text. A row is T + 1 of them in
a stretch; which rows a batch holds follows from the seed and the number of the batch alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptailor.data.documents import Document, DocumentReceipt
from gptailor.errors import UserError
from gptailor.tokenizer import Tokenizer

NOT_LEARNED = -100  # as a label: no loss at this place
PENDING = 1 << 20  # characters that are encoded at once
CHUNK = 1 << 20  # ids that are searched at once

_SUMMARY = "store.json"
_FILES = {"train": "train.bin", "held_out": "held.bin"}
_OWN = {*_FILES.values(), _SUMMARY}


# --- the store --------------------------------------------------------------------------------------------------------


@dataclass
class Part:
    """What one part of a store holds.

    Attributes:
        documents: how many.
        tokens: how many, with one end of text for each document.
        bytes: of the documents' text in UTF-8.
    """

    documents: int = 0
    tokens: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Store:
    """A finished folder of token ids.

    Attributes:
        folder: with train.bin, held.bin and store.json.
        dtype: of the ids on disk, ``"<u2"`` or ``"<u4"``.
        end_of_text: id that closes each document.
        train: what is to be learned from.
        held_out: what is to be measured on.
        receipt: of the documents, as it was when the store was made; ``{}`` where none was kept.
    """

    folder: Path
    dtype: str
    end_of_text: int
    train: Part
    held_out: Part
    receipt: dict[str, Any]

    def tokens(self, part: str) -> np.ndarray:
        """The ids (N,) of ``"train"`` or ``"held_out"``, memory-mapped: only what is read comes into memory."""
        path = self.folder / _FILES[part]
        if not path.stat().st_size:
            return np.zeros(0, self.dtype)  # nothing cannot be mapped
        return np.memmap(path, self.dtype, mode="r")


def build_store(
    path: Path,
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    held_out: float,
    seed: int,
    *,
    inputs: Sequence[str],
    receipt: DocumentReceipt | None = None,
) -> Store:
    """Encode documents into a folder, or take up the folder if it was finished from the same inputs before.

    Documents are held out whole, each with the probability ``held_out`` by a hash of the seed and its number; the first
    one is always trained on. The folder appears at ``path`` in one moment, complete; a store of other inputs that is
    there is replaced. Memory does not grow with the documents.

    Args:
        path: the folder of the store.
        documents: read only when the store must be made.
        tokenizer: gives the ids.
        held_out: 0 or more, less than 1.
        seed: decides which documents are held out.
        inputs: all that decides the documents (``documents.identity``): with other ones the store is made anew.
        receipt: where the tokens of each file are entered; what it then says is kept in the store.

    Raises:
        UserError: no document, something else at ``path``, or it cannot be written.
    """
    if not 0 <= held_out < 1:
        raise UserError(f"a held-out share of {held_out}", expected="0 or more, less than 1")
    path = Path(path)
    key = _key(inputs, tokenizer, held_out, seed)
    finished = _finished(path, key)
    if finished:
        return finished
    with _explained(path):
        scratch = _scratch(path)
        writer = _Writer(scratch, tokenizer, held_out, seed, receipt)
        writer.write(documents)
        (scratch / _SUMMARY).write_text(json.dumps({"key": key, **writer.summary()}, indent=1), encoding="utf-8")
        _remove(path)
        scratch.rename(path)
    store = _finished(path, key)
    assert store
    return store


def _key(inputs: Sequence[str], tokenizer: Tokenizer, held_out: float, seed: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder), context_length=0)
        encoder = hashlib.sha256((Path(folder) / "tokenizer.json").read_bytes()).hexdigest()
    parts = [*inputs, encoder, tokenizer.end_of_text, held_out, seed]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _finished(path: Path, key: str) -> Store | None:
    """The store at ``path`` if it is whole and was made for ``key``."""
    try:
        saved = json.loads((path / _SUMMARY).read_text(encoding="utf-8"))
        if saved.pop("key") != key:
            return None
        parts = {name: Part(**saved.pop(name)) for name in _FILES}
        width = np.dtype(saved["dtype"]).itemsize
        whole = all((path / _FILES[name]).stat().st_size == width * part.tokens for name, part in parts.items())
        fields: dict[str, Any] = {**saved, **parts}
        return Store(path, **fields) if whole else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # unfinished or damaged: it is made again


def _scratch(path: Path) -> Path:
    """An empty folder beside ``path``, where there may be nothing but an older store."""
    if path.exists() and not (path.is_dir() and {entry.name for entry in path.iterdir()} <= _OWN):
        raise UserError(f"{path} is there and is no token store", expected="a name that is free, or an older store")
    scratch = path.with_name(f"{path.name}.unfinished")
    if scratch.exists():
        shutil.rmtree(scratch)
    scratch.mkdir(parents=True)
    return scratch


def _remove(path: Path) -> None:
    for file in _OWN:
        (path / file).unlink(missing_ok=True)
    if path.exists():
        path.rmdir()


@contextmanager
def _explained(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}", expected="a folder with room") from error


class _Writer:
    """Appends documents to the two files of a store."""

    def __init__(
        self, folder: Path, tokenizer: Tokenizer, held_out: float, seed: int, receipt: DocumentReceipt | None
    ) -> None:
        self.folder, self.tokenizer, self.receipt = folder, tokenizer, receipt
        self.held_out, self.seed = held_out, seed
        self.dtype = "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"
        self.parts = {name: Part() for name in _FILES}
        self.number = 0  # of the document that is being written

    def write(self, documents: Iterable[Document]) -> None:
        """All documents, and everything on disk before this returns."""
        with ExitStack() as stack:
            files = {name: stack.enter_context((self.folder / file).open("wb")) for name, file in _FILES.items()}
            for batch in _batches(_closed(documents)):
                for document, ids in zip(batch, self.tokenizer.encode_many([d.text for d in batch]), strict=True):
                    name = "held_out" if is_held_out(self.seed, self.number, self.held_out) else "train"
                    row = [*ids, self.tokenizer.end_of_text] if document.ends else ids
                    files[name].write(np.array(row, self.dtype).tobytes())
                    self._count(document, self.parts[name], len(row))
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        if not self.number:
            raise UserError("there is no document to learn from")

    def _count(self, document: Document, part: Part, n_tokens: int) -> None:
        part.documents += document.ends
        part.tokens += n_tokens
        part.bytes += len(document.text.encode())
        self.number += document.ends
        if self.receipt:
            self.receipt.add_tokens(document.where, n_tokens)

    def summary(self) -> dict[str, Any]:
        """What ``Store`` says of itself, but for its folder."""
        parts = {name: asdict(part) for name, part in self.parts.items()}
        receipt = self.receipt.to_dict() if self.receipt else {}
        return {"dtype": self.dtype, "end_of_text": self.tokenizer.end_of_text, **parts, "receipt": receipt}


def is_held_out(seed: int, number: int, share: float) -> bool:
    """Whether a store holds out its document ``number`` (from 0): a hash decides, and the first is always kept."""
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    return number > 0 and int.from_bytes(digest, "big") < share * 2**64


def _closed(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents, with an end for the last one if the stream stops within it."""
    document = None
    for document in documents:
        yield document
    if document and not document.ends:
        yield Document("", document.where)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text) + 100  # an empty or short one takes memory too
        if size >= PENDING:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


# --- which rows a batch holds -----------------------------------------------------------------------------------------


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


# --- batches ----------------------------------------------------------------------------------------------------------


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
