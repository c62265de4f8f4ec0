"""The text that a base model learns from: files with weights, and their tokens as batches for a decoder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gptailor.config import BaseConfig, user_path
from gptailor.data.documents import DocumentReceipt, read_documents
from gptailor.data.rows import Schedule, TokenBatch, collate_rows, held_out_batches
from gptailor.data.store import Store
from gptailor.errors import UserError
from gptailor.evaluate.ngram import NGram
from gptailor.model.decoder import Decoder, document_mask
from gptailor.model.precision import compute_in
from gptailor.train.losses import Loss, next_token_loss
from gptailor.weights.folder import AdapterBase

TOKENIZER_CHARACTERS = 20_000_000  # of each file, that a new tokenizer is trained on
COUNTED_TOKENS = 10_000_000  # that the n-gram baselines learn from, at most
BYTES_PER_TOKEN = {".gz": 1.5, ".xz": 1}  # of a file, roughly; 4 where it is not compressed
NGRAMS = {"unigram": 1, "5-gram": 5}


@dataclass(frozen=True)
class Source:
    """A file and how often it is sampled, relative to its size."""

    path: Path
    weight: float


def parse_sources(data: list[str]) -> list[Source]:
    """``"FILE"`` has weight 1, ``"FILE@2"`` weight 2. Raises ``UserError`` listing all that cannot be meant."""
    sources, problems = [], []
    for name in data:
        path, _, weight = name.rpartition("@") if "@" in name and not user_path(name).exists() else (name, "", "1")
        try:
            sources.append(Source(user_path(path), float(weight)))
        except ValueError:
            problems.append(UserError(f"{name}: {weight!r} is no number", expected="FILE or FILE@WEIGHT"))
            continue
        if not sources[-1].path.is_file():
            is_folder = sources[-1].path.is_dir()
            problems.append(UserError(f"{path} is a folder" if is_folder else f"there is no file {path}"))
        if not 0 < sources[-1].weight < math.inf:
            problems.append(UserError(f"{name}: the weight is {weight}", expected="a positive number"))
    if problems:
        raise UserError.joined(problems)
    return sources


@dataclass
class Corpus:
    """Token rows of all files, and the model that learns them."""

    config: BaseConfig
    decoder: Decoder
    stores: list[Store]
    schedule: Schedule
    device: torch.device
    adapter_on: AdapterBase | None = None

    def __post_init__(self) -> None:
        self.tokens = [store.tokens("train") for store in self.stores]
        self.end_of_text = self.stores[0].end_of_text
        self.context_length = self.decoder.config.context_length

    def loss(self, number: int) -> Loss:
        """The summed loss of a training batch."""
        rows = self.schedule.rows(number)
        return self._loss(collate_rows(self.tokens, rows, self.context_length, self.end_of_text))

    def trial(self, n_rows: int) -> Tensor:
        """The loss of the first training rows; all are as long as the context."""
        rows = self.schedule.rows(0)[:n_rows]
        return self._loss(collate_rows(self.tokens, rows, self.context_length, self.end_of_text)).total

    def describe(self, number: int) -> list[str]:
        """File and first token, counted over its training documents, of each row of a training batch."""
        paths = [Path(name.rpartition("@")[0]) for name in self.config.data]
        return [f"{paths[source].name}, from token {start:,}" for source, start in self.schedule.rows(number)]

    def _loss(self, batch: TokenBatch) -> Loss:
        return batch_loss(self.decoder, batch.to(self.device), self.config.precision)

    @torch.no_grad()
    def evaluate(self) -> tuple[dict[str, float], list[float]]:
        """Loss in nats per token, perplexity and bits per byte over all held-out documents."""
        total, targets, n_bytes = 0.0, 0, 0
        for store in self.stores:
            batches, count = held_out_batches(store, self.context_length, 8 * self.context_length)
            total += sum(float(self._loss(batch).total) for batch in batches)
            targets, n_bytes = targets + count, n_bytes + store.held_out.bytes
        return figures(total, targets, n_bytes), [-total / targets]

    def baselines(self) -> dict[str, dict[str, float]]:
        """The figures of ``evaluate`` for n-gram models that counted the text of the run, each part of it once."""
        shares = [min(1.0, passes) for passes in self.schedule.passes]
        n_tokens = sum(share * len(tokens) for share, tokens in zip(shares, self.tokens, strict=True))
        room = min(1.0, COUNTED_TOKENS / n_tokens)
        cuts = [tokens[: int(room * share * len(tokens))] for share, tokens in zip(shares, self.tokens, strict=True)]
        seen = np.concatenate([np.append(cut, cut.dtype.type(self.end_of_text)) for cut in cuts])
        held_out = [(store.tokens("held_out"), store.held_out) for store in self.stores]
        targets = sum(part.tokens - part.documents for _, part in held_out)
        n_bytes = sum(part.bytes for _, part in held_out)
        result = {}
        for name, order in NGRAMS.items():
            model = NGram(seen, order, self.decoder.config.vocab_size, self.end_of_text)
            result[name] = figures(sum(model.loss(tokens) for tokens, _ in held_out), targets, n_bytes)
        return result


def batch_loss(decoder: Decoder, batch: TokenBatch, precision: str) -> Loss:
    """The summed loss of a batch that is where the decoder is."""
    with compute_in(precision, batch.input_ids.device):
        hidden = decoder(batch.input_ids, batch.positions, document_mask(batch.documents))
        return next_token_loss(hidden, decoder.token_embedding.weight, batch.labels)


def trial_batch(n_rows: int, context_length: int) -> TokenBatch:
    """Rows of one token: as long as all others, and each a document of its own, which is learned whole."""
    return collate_rows([np.zeros(context_length + 1)], [(0, 0)] * n_rows, context_length, end_of_text=1)


def about_counted(sources: list[Source], n_tokens: int) -> int:
    """How many tokens the n-gram baselines of a run of ``n_tokens`` will count, by the sizes of the files."""
    sizes = [source.path.stat().st_size / BYTES_PER_TOKEN.get(source.path.suffix, 4) for source in sources]
    return min(COUNTED_TOKENS, n_tokens, int(sum(sizes)))


def figures(total: float, targets: int, n_bytes: int) -> dict[str, float]:
    """Of the summed loss in nats: per token, as perplexity, and in bits per byte of text."""
    loss = total / targets
    perplexity = math.exp(min(loss, 700))  # beyond that is none that a float can tell
    return {"validation_loss": loss, "perplexity": perplexity, "bits_per_byte": total / math.log(2) / n_bytes}


def beginning(path: Path, key: str, receipt: DocumentReceipt | None = None) -> Iterator[str]:
    """The first texts of a file, up to ``TOKENIZER_CHARACTERS``; what could not be read is entered in ``receipt``."""
    room = TOKENIZER_CHARACTERS
    for document in read_documents(path, receipt or DocumentReceipt(), text=key):
        yield document.text
        room -= len(document.text)
        if room <= 0:
            return
