"""Losses as pure functions: a sum and what it is to be divided by, so that no average is ever averaged."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Loss(NamedTuple):
    """The loss of a batch before division.

    Attributes:
        total: scalar, summed over what is learned.
        weight: scalar, what the sums of all batches of a step are divided by once.
        correct: how many predictions were right.
        count: how many predictions there were.
    """

    total: Tensor
    weight: Tensor
    correct: Tensor
    count: int


def class_loss(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Loss:
    """Cross-entropy of logits (B, K) for class ids (B,) int64.

    With class weights w (K,), total = sum_i w[y_i] * nll_i and weight = sum_i w[y_i]; without, every w is 1.
    Logits [[-1, 1], [-0.5, 1.5]] and labels [0, 1]: nll = 2.1269 and 0.1269, total 2.2538, weight 2, mean 1.1269.
    """
    nll = F.cross_entropy(logits, labels, reduction="none")
    weights = nll.new_ones(len(nll)) if class_weights is None else class_weights[labels]
    return Loss((weights * nll).sum(), weights.sum(), (logits.argmax(-1) == labels).sum(), len(labels))


def balanced_weights(counts: list[int]) -> list[float]:
    """Weights that make every class count the same: N / (K * n_k). Counts 30 and 10 give 0.667 and 2."""
    total = sum(counts)
    return [total / (len(counts) * count) if count else 0.0 for count in counts]
