"""A classifier in training and the texts for it, as the loop wants them: batches, losses, figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gptailor.data.batching import Batch, collate, shuffled
from gptailor.evaluate.metrics import confusion_counts, macro_scores
from gptailor.model.device import choose_device
from gptailor.model.freeze import count_parameters
from gptailor.model.head import Classifier
from gptailor.model.precision import compute_in, in_bf16
from gptailor.model.together import by_length, tokens_at_once
from gptailor.tasks.estimate import Workload
from gptailor.tasks.prepare import Prepared
from gptailor.tasks.tuning import adapter_base, freeze_as
from gptailor.train.losses import Loss, balanced_weights, class_loss
from gptailor.train.trunk import Trunk, keep_trunk
from gptailor.weights.folder import AdapterBase, build_classifier


@dataclass
class Feed:
    """Training and validation texts for the loop, in this order, behind frozen blocks that are computed once."""

    prepared: Prepared
    model: Classifier
    depth: int
    device: torch.device
    adapter_on: AdapterBase | None = None
    trunk: Trunk | None = None

    def __post_init__(self) -> None:
        self.ids = self.prepared.ids("train") + self.prepared.ids("validation")
        self.labels = self.prepared.labels("train") + self.prepared.labels("validation")
        self.lengths = [len(text) for text in self.ids]
        self.widths = [max(length, self.prepared.width or 0) for length in self.lengths]  # with padding
        self.n_train = len(self.prepared.parts["train"])
        self.class_weights = None
        if self.prepared.config.balance == "weights":
            counts = np.bincount(self.labels[: self.n_train], minlength=len(self.prepared.names))
            self.class_weights = torch.tensor(balanced_weights(counts.tolist()))

    def batch(self, rows: list[int]) -> Batch:
        """The texts of these rows."""
        pad = self.prepared.tokenizer.end_of_text
        return collate(self.ids, self.labels, rows, pad, self.prepared.width).to(self.device)

    def epoch(self, number: int) -> list[list[int]]:
        """The rows of each training batch of an epoch."""
        config = self.prepared.config
        return shuffled(self.lengths[: self.n_train], config.batch_size, config.seed, number)

    def keep_trunk(self, folder: Path) -> None:
        """Runs all texts through the frozen blocks, if there are any and there is room for the result."""
        if not self.depth:
            return
        batches = (self.batch(rows) for rows in by_length(self.widths, tokens_at_once(self.device)))
        states = ((batch.rows, self._trunk(batch).cpu()) for batch in batches)
        dtype = torch.bfloat16 if self.in_bf16 else torch.float32
        width = self.model.decoder.config.n_embd
        self.trunk = keep_trunk(self.lengths, width, states, folder / "trunk.bin", dtype)

    @property
    def in_bf16(self) -> bool:
        """Whether matrix products are computed in bf16."""
        return in_bf16(self.prepared.config.precision, self.device)

    @torch.no_grad()
    def _trunk(self, batch: Batch) -> Tensor:
        with compute_in(self.prepared.config.precision, self.device):
            return self.model.trunk(batch.input_ids, batch.real, self.depth)

    def _top(self, kept: Tensor, batch: Batch) -> Tensor:
        # A step of few blocks is bound by reading their weights, which a processor would have to round anew each time.
        precision = "fp32" if self.device.type == "cpu" else self.prepared.config.precision
        with compute_in(precision, self.device):
            return self.model.top(kept.float(), batch.real, self.depth)

    def logits(self, batch: Batch) -> Tensor:
        """(B, K), with gradients for what is trained."""
        if self.trunk:
            return self._top(self.trunk.batch(batch.rows, batch.real.size(1)).to(self.device), batch)
        return self._of_any(batch)

    def _of_any(self, batch: Batch) -> Tensor:
        """The same for texts of which nothing is kept."""
        if self.depth:
            return self._top(self._trunk(batch), batch)
        with compute_in(self.prepared.config.precision, self.device):
            return self.model(batch.input_ids, batch.real)

    @torch.no_grad()
    def logits_of(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Logits (N, K) of other texts, computed like those in training."""
        pad = self.prepared.tokenizer.end_of_text
        result = np.zeros((len(ids), len(self.prepared.names)), np.float32)
        for rows in by_length([len(text) for text in ids], tokens_at_once(self.device)):
            batch = collate(ids, [0] * len(ids), rows, pad).to(self.device)
            result[rows] = self._of_any(batch).float().cpu().numpy()
        return result

    def loss(self, rows: list[int]) -> Loss:
        """The summed loss of a training batch."""
        batch = self.batch(rows)
        weights = None if self.class_weights is None else self.class_weights.to(self.device)
        return class_loss(self.logits(batch), batch.labels, weights)

    @property
    def work(self) -> Workload:
        """What training on them takes."""
        shape, trained = self.model.decoder.config, count_parameters(self.model)[1]
        return Workload(shape, self.widths[: self.n_train], self.depth, trained)

    def trial(self, n_rows: int) -> Tensor:
        """The loss of the longest training texts."""
        return self.loss(sorted(range(self.n_train), key=lambda row: -self.widths[row])[:n_rows]).total

    def describe(self, rows: list[int]) -> list[str]:
        """File and line of each text of a training batch."""
        return [self.prepared.parts["train"][row].where for row in rows]

    @torch.no_grad()
    def evaluate(self) -> tuple[dict[str, float], list[float]]:
        """Figures of the whole validation part, and what is compared: macro F1, then loss.

        Accuracy would choose the model that always says the commonest label where labels are uneven.
        """
        logits, labels = self.outputs(range(self.n_train, len(self.ids))), np.array(self.labels[self.n_train :])
        part = class_loss(torch.from_numpy(logits), torch.from_numpy(labels))
        loss, accuracy = float(part.total) / part.count, int(part.correct) / part.count
        f1 = macro_scores(confusion_counts(labels, logits.argmax(1), len(self.prepared.names)))["f1"] or 0.0
        metrics = {"validation_loss": loss, "validation_accuracy": accuracy, "validation_macro_f1": f1}
        return metrics, [f1, -loss]

    @torch.no_grad()
    def outputs(self, rows: range) -> np.ndarray:
        """Logits (N, K) float32 of a range of texts, in order."""
        result = np.zeros((len(rows), len(self.prepared.names)), np.float32)
        for places in by_length([self.widths[row] for row in rows], tokens_at_once(self.device)):
            result[places] = self.logits(self.batch([rows[place] for place in places])).float().cpu().numpy()
        return result


def build(prepared: Prepared) -> Feed:
    """The model with its fresh head, frozen as the options say, and the texts for it."""
    config = prepared.config
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    decoder = prepared.base.load(prepared.tokenizer)
    adapter_on = adapter_base(config, decoder)
    model = build_classifier(decoder, len(prepared.names), prepared.settings).to(device)
    return Feed(prepared, model, freeze_as(config, model), device, adapter_on)
