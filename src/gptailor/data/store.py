"""Documents to a store of token ids on disk: all ids one after the other, each document closed by the end of text."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gptailor.data.documents import Document, DocumentReceipt
from gptailor.errors import UserError
from gptailor.tokenizer import Tokenizer

PENDING = 1 << 20  # characters that are encoded at once

_SUMMARY = "store.json"
_FILES = {"train": "train.bin", "held_out": "held.bin"}
_OWN = {*_FILES.values(), _SUMMARY}


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

    Documents are held out whole, each with the probability ``held_out`` by a hash of the seed and its text, so that
    copies share a part; the first one is always trained on. Of the passages of a plain text the second is held out
    too, so that there is something to measure on. The folder appears at ``path`` in one moment, complete; a store of
    other inputs that is there is replaced. Memory does not grow with the documents.

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
            for batch in _batches(documents):
                for document, ids in zip(batch, self.tokenizer.encode_many([d.text for d in batch]), strict=True):
                    name = "held_out" if self._is_held_out(document) else "train"
                    row = [*ids, self.tokenizer.end_of_text]
                    files[name].write(np.array(row, self.dtype).tobytes())
                    self._count(document, self.parts[name], len(row))
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        if not self.number:
            raise UserError("there is no document to learn from")

    def _is_held_out(self, document: Document) -> bool:
        second = self.held_out > 0 and document.passage and self.number == 1
        return self.number > 0 and (second or is_held_out(self.seed, document.text, self.held_out))

    def _count(self, document: Document, part: Part, n_tokens: int) -> None:
        part.documents += 1
        part.tokens += n_tokens
        part.bytes += len(document.text.encode())
        self.number += 1
        if self.receipt:
            self.receipt.add_tokens(document.where, n_tokens)

    def summary(self) -> dict[str, Any]:
        """What ``Store`` says of itself, but for its folder."""
        parts = {name: asdict(part) for name, part in self.parts.items()}
        receipt = self.receipt.to_dict() if self.receipt else {}
        return {"dtype": self.dtype, "end_of_text": self.tokenizer.end_of_text, **parts, "receipt": receipt}


def is_held_out(seed: int, text: str, share: float) -> bool:
    """Whether a store holds out a document with this text, if it is not the first: a hash decides."""
    digest = hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


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
