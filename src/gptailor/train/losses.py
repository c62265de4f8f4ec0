"""Losses as pure functions: a sum and what it is to be divided by, so that no average is ever averaged."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gptailor.model.linear import product

IGNORED = -100  # the label of a position that is not learned


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


def next_token_loss(hidden: Tensor, head: Tensor, labels: Tensor, *, chunk: int = 512) -> Loss:
    """Cross-entropy of the next token, without holding the logits of all positions at once.

    Hidden states are gathered where something is learned, and the head runs over ``chunk`` of them at a time; each
    chunk's gradient is taken on the spot, so that nothing vocabulary-sized outlives it.

    Args:
        hidden: (B, T, C), after the final norm.
        head: (V, C), the output head; for tied models the token embedding.
        labels: (B, T) int64, -100 where nothing is learned.

    Returns:
        The sum in float32 over the learned positions, their number as weight, and how many were right.
    """
    learned = labels != IGNORED
    states, targets = as_in_products(hidden[learned]), labels[learned]
    head = head if torch.is_grad_enabled() else head.detach()  # the function below is not told
    total, correct = _ChunkedCrossEntropy.apply(states, head, targets, chunk)
    count = len(targets)
    return Loss(total, total.new_tensor(float(count)), correct, count)


def as_in_products(states: Tensor) -> Tensor:
    """In the precision in which a product with them would be computed here: so they and the head are rounded once."""
    kind = states.device.type
    return states.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of -log softmax(states @ head.T)[target]; its gradients are made in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, targets: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        """States (N, C), head (V, C), targets (N,) -> the sum and the number of right predictions."""
        weight = head.to(states.dtype)
        total, correct = states.new_zeros((), dtype=torch.float32), targets.new_zeros(())
        d_states, d_head = [states[:0]], None
        for part, target in zip(states.split(chunk), targets.split(chunk), strict=True):
            # Spelled out: log_softmax and argmax over a vocabulary take three times as long on a CPU.
            logits = product(part, weight).float()  # (chunk, V)
            logits -= logits.amax(-1, keepdim=True)
            wanted = logits.gather(1, target[:, None])
            correct += (wanted == 0).sum()  # the target has the largest logit
            exponentials = logits.exp_()
            sums = exponentials.sum(-1, keepdim=True)
            total += (sums.log() - wanted).sum()
            if any(ctx.needs_input_grad):
                d_logits = exponentials.div_(sums).scatter_add_(1, target[:, None], -torch.ones_like(sums))
                d_logits = d_logits.to(states.dtype)
                d_states.append(product(d_logits, weight.T))
                if ctx.needs_input_grad[1]:  # as large as the head: one more such tensor takes longer than the product
                    d_part = product(d_logits.T, part.T).to(head.dtype)
                    d_head = d_part if d_head is None else d_head.add_(d_part)
        ctx.gradients = (torch.cat(d_states), d_head)
        ctx.mark_non_differentiable(correct)
        return total, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """The gradients of the forward pass, times that of the sum (the first of ``gradients``)."""
        (d_states, d_head), d_total = ctx.gradients, gradients[0]
        ctx.gradients = None  # so that what is added to them can be added in place
        return d_states.mul_(d_total.to(d_states.dtype)), None if d_head is None else d_head.mul_(d_total), None, None
