"""A classifier in training and the texts for it, as the loop wants them: batches, losses, figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gptailor.data.batching import Batch, by_length, collate, shuffled
from gptailor.evaluate.metrics import confusion_counts, macro_scores
from gptailor.model.device import choose_device
from gptailor.model.head import Classifier, freeze
from gptailor.predict import TOKENS_PER_BATCH
from gptailor.tasks.prepare import Prepared
from gptailor.train.losses import Loss, balanced_weights, class_loss
from gptailor.train.trunk import Trunk, keep_trunk
from gptailor.weights.folder import build_classifier


@dataclass
class Feed:
    """Training and validation texts for the loop, in this order, behind frozen blocks that are computed once."""

    prepared: Prepared
    model: Classifier
    depth: int
    device: torch.device
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
            self.class_weights = torch.tensor(balanced_weights(counts.tolist()), device=self.device)

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
        batches = (self.batch(rows) for rows in by_length(self.widths, TOKENS_PER_BATCH))
        states = ((batch.rows, self._trunk(batch).cpu()) for batch in batches)
        self.trunk = keep_trunk(self.lengths, self.model.decoder.config.n_embd, states, folder / "trunk.bin")

    @torch.no_grad()
    def _trunk(self, batch: Batch) -> Tensor:
        return self.model.trunk(batch.input_ids, batch.real, self.depth)

    def logits(self, batch: Batch) -> Tensor:
        """(B, K), with gradients for what is trained."""
        if not self.depth:
            return self.model(batch.input_ids, batch.real)
        kept = self.trunk.batch(batch.rows, batch.real.size(1)).to(self.device) if self.trunk else self._trunk(batch)
        return self.model.top(kept, batch.real, self.depth)

    def loss(self, rows: list[int]) -> Loss:
        """The summed loss of a training batch."""
        batch = self.batch(rows)
        return class_loss(self.logits(batch), batch.labels, self.class_weights)

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
        for places in by_length([self.widths[row] for row in rows], TOKENS_PER_BATCH):
            result[places] = self.logits(self.batch([rows[place] for place in places])).float().cpu().numpy()
        return result


def build(prepared: Prepared) -> Feed:
    """The model with its fresh head, frozen as the options say, and the texts for it."""
    config = prepared.config
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    model = build_classifier(prepared.base.load(prepared.tokenizer), len(prepared.names), prepared.settings).to(device)
    return Feed(prepared, model, freeze(model, config.layers or "all"), device)
