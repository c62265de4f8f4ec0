"""Losses that make a model prefer the better of two answers: pure functions of the log-probabilities of both.

Log-probabilities are natural, and of the answer's tokens alone, its end of text with them; the prompt's do not count.
The reference is the model as it was before the training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptailor.errors import UserError
from gptailor.model.linear import product
from gptailor.train.durable import put_in_place
from gptailor.train.losses import IGNORED, as_in_products
from gptailor.train.state import UNREADABLE

START = 1e-4  # by how much loss and margin may miss what they must be before the first step
START_HALF = 5e-2  # the same where products are in bf16: another batch rounds otherwise, on every token of an answer
SURE = -1e-6  # nearer to 0, 1 - e^x has no digits left in float32


class PairLosses(NamedTuple):
    """What a batch of B pairs gives.

    Attributes:
        losses: (B,).
        margins: (B,), by how much the reward of the chosen answer is above that of the rejected one; above 0 the pair
            is told right.
    """

    losses: Tensor
    margins: Tensor


def dpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float = 0.1,
    smoothing: float = 0.0,
) -> PairLosses:
    """Direct preference optimisation, of summed log-probabilities (B,). Rafailov et al. 2023, arXiv:2305.18290, eq. 7.

    The reward of an answer is beta * (policy - reference), the margin m the reward of the chosen one minus that of the
    rejected one, and the loss -log sigmoid(m). With ``smoothing`` s, for pairs of which a share s is the wrong way
    round, it is -(1 - s) log sigmoid(m) - s log sigmoid(-m) (Mitchell 2023, "conservative DPO").

    Policy -10 and -12, reference -11 and -11, beta 0.1: m = 0.1 * ((-10 + 11) - (-12 + 11)) = 0.2 and the loss is
    log(1 + e^-0.2) = 0.5981; with s = 0.1 it is 0.9 * 0.5981 + 0.1 * 0.7981 = 0.6181. Where policy and reference are
    the same model, m = 0 and the loss is ln 2 = 0.6931.
    """
    margins = beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected))
    losses = -(1 - smoothing) * F.logsigmoid(margins) - smoothing * F.logsigmoid(-margins)
    return PairLosses(losses, margins)


def ipo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float = 0.1,
) -> PairLosses:
    """Identity preference optimisation, of summed log-probabilities (B,). Azar et al. 2023, arXiv:2310.12036, eq. 17.

    With h the difference of DPO before it is multiplied by beta, the loss is (h - 1 / (2 beta))^2: it ends where the
    margin beta * h is one half, where DPO would go on. The paper's tau is beta. (TRL gives it means over the tokens.)

    The numbers of ``dpo``: h = 2, the loss (2 - 5)^2 = 9 and the margin 0.2; at the start it is 25.
    """
    apart = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    return PairLosses((apart - 1 / (2 * beta)).square(), beta * apart)


def orpo(chosen: Tensor, rejected: Tensor, *, beta: float = 0.1) -> PairLosses:
    """Odds ratio preference optimisation, of mean log-probabilities per token (B,), below 0. No reference.

    Hong et al. 2024, arXiv:2403.07691, eq. 6 and 7: with p = e^mean and odds(p) = p / (1 - p), the loss is the mean
    negative log-likelihood of the chosen answer plus beta (the paper's lambda) times -log sigmoid(log(odds(chosen) /
    odds(rejected))). The margin is the log of that ratio, times beta.

    Means of ln 0.5 and ln 0.2: odds 1 and 0.25, ratio 4, sigmoid(ln 4) = 4 / 5, the loss is
    0.6931 + 0.1 * -log 0.8 = 0.7155 and the margin 0.1 * 1.3863.
    """
    apart = (chosen - rejected) - (_log_of_the_rest(chosen) - _log_of_the_rest(rejected))
    return PairLosses(-chosen - beta * F.logsigmoid(apart), beta * apart)


def _log_of_the_rest(mean: Tensor) -> Tensor:
    """log(1 - e^mean)."""
    return torch.log(-torch.expm1(mean.clamp(max=SURE)))


def simpo(chosen: Tensor, rejected: Tensor, *, beta: float = 2.0, gamma: float = 1.0) -> PairLosses:
    """Simple preference optimisation, of mean log-probabilities per token (B,). No reference.

    Meng et al. 2024, arXiv:2405.14734, eq. 6: the reward is beta * mean, and the loss -log sigmoid(m - gamma) for the
    margin m, so that the chosen answer's reward has to be above the other's by gamma.

    Means -0.5 and -1.5: m = 2 and the loss is log(1 + e^-1) = 0.3133.
    """
    margins = beta * (chosen - rejected)
    return PairLosses(-F.logsigmoid(margins - gamma), margins)


def check_start(losses: Tensor, margins: Tensor, tolerance: float = START, expected: float = math.log(2)) -> None:
    """Raises ``UserError`` unless losses (B,) are as ``expected`` and margins (B,) 0, as before any training."""
    off, margin = float((losses - expected).abs().max()), float(margins.abs().max())
    if not max(off, margin) <= tolerance:  # also for what is no number
        raise UserError(
            f"the reference does not match the model: before the first step a margin is {margin:.5f} off 0 and a loss "
            f"{off:.5f} off {expected:.4f}",
            expected=f"at most {tolerance:g}",
            hint="the base has changed since the run began, or computes otherwise: begin a new run with another --out",
        )


def save_reference(file: Path, reference: Mapping[str, Tensor]) -> None:
    """Writes the log-probabilities of each part, (N, 2) for chosen and rejected answers, whole or not at all."""
    unfinished = file.with_name(f".{file.name}.unfinished")
    save_file({part: figures.contiguous() for part, figures in reference.items()}, unfinished)
    put_in_place(unfinished, file)


def read_reference(file: Path, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """What ``save_reference`` wrote, for parts of these numbers of pairs. Raises ``UserError`` when it is not there."""
    try:
        reference = load_file(file)
    except UNREADABLE as error:
        raise UserError(f"{file} cannot be read: {error}", hint="start the run again") from None
    if {part: tuple(figures.shape) for part, figures in reference.items()} != {p: (n, 2) for p, n in sizes.items()}:
        raise UserError(f"{file} is of other pairs", hint="start the run again")
    return reference


# --- log-probabilities ------------------------------------------------------------------------------------------------


def answer_log_probabilities(
    hidden: Tensor, head: Tensor, labels: Tensor, *, chunk: int = 512
) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities of the learned tokens of each row, without the logits of all positions at once.

    Hidden states are gathered where something is learned, and the head runs over ``chunk`` of them at a time, once more
    when the gradients are asked for: what they are multiplied by is known only when all pairs have their losses.

    Args:
        hidden: (B, T, C), after the final norm.
        head: (V, C), the output head; for tied models the token embedding.
        labels: (B, T) int64, -100 where nothing is learned.

    Returns:
        Sums (B,) float32, and the number of learned tokens (B,) int64.
    """
    learned = labels != IGNORED
    each = _ChunkedLogProbabilities.apply(as_in_products(hidden[learned]), head, labels[learned], chunk)
    rows = learned.nonzero()[:, 0]
    sums = each.new_zeros(len(labels)).index_add(0, rows, each)
    return sums, learned.sum(1)


class _ChunkedLogProbabilities(torch.autograd.Function):
    """log softmax(states @ head.T)[target] of each row; kept for the way back is the log-sum-exp of each."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, targets: Tensor, chunk: int) -> Tensor:
        """States (N, C), head (V, C), targets (N,) -> (N,) float32."""
        weight, found, sums = head.to(states.dtype), [], []
        for part, target in zip(states.split(chunk), targets.split(chunk), strict=True):
            logits = product(part, weight).float()  # (chunk, V)
            sums.append(logits.logsumexp(-1))
            found.append(logits.gather(1, target[:, None])[:, 0] - sums[-1])
        ctx.save_for_backward(states, head, targets, torch.cat(sums))
        ctx.chunk = chunk
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """Of log p[target], the gradient by the logits is 1 at the target minus p everywhere."""
        states, head, targets, sums = ctx.saved_tensors
        weight, d_states = head.to(states.dtype), torch.empty_like(states)
        d_head = torch.zeros_like(head) if ctx.needs_input_grad[1] else None
        for begin in range(0, len(states), ctx.chunk):
            at = slice(begin, begin + ctx.chunk)
            scale = gradients[0][at, None].float()
            logits = product(states[at], weight).float()  # (chunk, V)
            d_logits = logits.sub_(sums[at, None]).exp_().mul_(-scale)
            d_logits = d_logits.scatter_add_(1, targets[at, None], scale).to(states.dtype)
            d_states[at] = product(d_logits, weight.T)
            if d_head is not None:
                d_head += product(d_logits.T, states[at].T).to(head.dtype)
        return d_states, d_head, None, None
