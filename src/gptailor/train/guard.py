"""Numbers gone wrong: the run stops before a step that would spoil the weights; what only looks wrong is told."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from gptailor.errors import UserError, listing
from gptailor.train.losses import Loss
from gptailor.train.state import Progress

B = TypeVar("B")
RECENT = 50  # steps over which the loss is averaged before it is judged
ENOUGH = 100  # predictions of a first step, below which its loss says little


def check_finite(
    batches: Sequence[B],
    losses: Sequence[Loss],
    norm: Tensor,
    describe: Callable[[B], Sequence[str]],
    *,
    step: int,
    lr: float,
) -> None:
    """Raises ``UserError`` when the loss of a batch, or the norm of the step's gradient, is no finite number.

    Args:
        norm: scalar, of the gradient of all batches.
        describe: names the records of a batch, such as ``messages.csv:12``.
        step: that is not to be taken then, from 1.
        lr: its learning rate.
    """
    numbers = torch.stack([*(part.total for part in losses), norm.to(losses[0].total)])
    if bool(numbers.isfinite().all()):
        return
    *totals, size = numbers.tolist()
    wrong = [batch for batch, total in zip(batches, totals, strict=True) if not math.isfinite(total)]
    what, value = ("the loss", sum(totals)) if wrong else ("the norm of the gradient", size)
    records = listing(record for batch in wrong or batches for record in describe(batch))
    raise UserError(
        f"{what} has become {value} at step {step}, with the learning rate {lr:g}, on these records: {records}",
        expected="a finite number; the step was not taken, and what was saved before it is intact",
        hint="a new run with a smaller --lr; --precision fp32 where it was bf16; and a look at these records",
    )


def check_score(score: Sequence[float], *, step: int) -> None:
    """Raises ``UserError`` when an evaluation gives no finite number: nothing could be compared with it."""
    if not all(map(math.isfinite, score)):
        raise UserError(
            f"the validation part is judged as {listing(score)} after step {step}",
            expected="finite numbers; what was saved before is intact",
            hint="another base if this is step 0; else a new run with a smaller --lr",
        )


class Watch:
    """Compares the losses of a run with what is to be expected of them, and tells what looks wrong; it never steers.

    Args:
        progress: holds the loss before the first step, so that a resumed run is compared with the same one.
        choices: how many classes or tokens a model that knows nothing guesses among; None when it is no beginner.
        tell: is told in one sentence.
    """

    def __init__(self, progress: Progress, choices: int | None, tell: Callable[[str], None]) -> None:
        self.progress, self.choices, self.tell = progress, choices, tell
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.told = False

    def before(self, metrics: Mapping[str, float]) -> None:
        """The validation part was evaluated before the first step: a beginner must do as well as guessing, ln K."""
        self.progress.loss_before = loss = metrics.get("validation_loss")
        if loss is None or self.choices is None or _near(loss, math.log(self.choices)):
            return
        guessing = f"ln {self.choices} = {math.log(self.choices):.2f}, that of guessing"
        self.tell(
            f"before the first step the loss is {loss:.2f}, and not near {guessing}: far above, the new weights are "
            "sure of something that they cannot know, and training begins by undoing it; far below, the answer can be "
            "seen in the input"
        )

    def step(self, losses: Sequence[Loss]) -> None:
        """A step was taken: the first one must fit the loss before, and later ones must not lie above it for long."""
        before = self.progress.loss_before
        if before is None:
            return
        loss = sum(float(part.total) for part in losses) / sum(float(part.weight) for part in losses)
        if self.progress.step == 1 and sum(part.count for part in losses) >= ENOUGH and not _near(loss, before):
            self.tell(
                f"the loss of the first step is {loss:.2f}, and that of the held-out texts before it {before:.2f}: "
                "the same model cannot be so much better or worse on texts of the same kind, so the two parts differ, "
                "or one of them is computed wrongly, and their curves cannot be compared"
            )
        self.recent.append(loss)
        mean = sum(self.recent) / len(self.recent)
        if not self.told and len(self.recent) == RECENT and mean > before + max(0.5, before / 2):
            self.told = True
            self.tell(
                f"the loss of the last {RECENT} steps is {mean:.2f}, far above the {before:.2f} before training: "
                "the model unlearns, most often because the rate is too high; Ctrl-C, and a new run with a smaller --lr"
            )


def _near(loss: float, expected: float) -> bool:
    """Neither below half of it nor more than two nats above: heads on large bases begin a nat or two above ln K."""
    return expected / 2 <= loss <= expected + 2
