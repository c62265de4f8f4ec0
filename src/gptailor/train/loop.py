"""The one training loop: batch, loss, backward, clip, check, step, log, evaluate, save."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gptailor.train.guard import Watch, check_finite, check_score
from gptailor.train.log import RunLog
from gptailor.train.losses import Loss
from gptailor.train.optim import rate
from gptailor.train.state import Progress, save_best, save_state

B = TypeVar("B")


@dataclass(frozen=True)
class LoopSettings:
    """What the loop needs of a run's configuration; see ``config.RunConfig`` for the meanings."""

    epochs: int
    steps_per_epoch: int
    accumulate: int
    lr: float
    warmup: float
    schedule: str
    clip: float | None
    evaluate_every: int | None
    patience: int | None


@dataclass
class StopRequest:
    """Set by Ctrl-C or SIGTERM: the loop finishes its step, saves and returns."""

    requested: bool = False


def train(
    model: nn.Module,
    optimizer: Optimizer,
    settings: LoopSettings,
    *,
    batches: Callable[[int], Sequence[B]],
    loss: Callable[[B], Loss],
    evaluate: Callable[[], tuple[dict[str, float], list[float]]],
    describe: Callable[[B], Sequence[str]],
    choices: int | None = None,
    folder: Path,
    log: RunLog,
    progress: Progress,
    stop: StopRequest,
) -> Progress:
    """Trains until the last epoch, until ``patience`` runs out, or until ``stop`` is requested.

    Args:
        batches: gives the batches of an epoch by its number; the same number always gives the same ones.
        loss: the summed loss of one batch and the weight that its sum is divided by.
        evaluate: metrics to log, and a score by which two evaluations are compared: larger is better.
        describe: names the records of a batch, for the case that its loss is no number.
        choices: what an untrained model guesses among, see ``guard.Watch``.
        folder: where the state is kept (``state.py``); a run resumes from it with the ``progress`` it holds.

    Raises:
        UserError: when the loss or the gradient is no finite number; the weights are those before the step.
        OSError: when the state cannot be written; the one before stays.
    """
    model.eval()
    watch = Watch(progress, choices, log.note)
    if progress.best_score is None:
        watch.before(_evaluate(model, evaluate, folder, log, progress))
    while progress.epoch < settings.epochs and not _out_of_patience(settings, progress):
        micro = batches(progress.epoch)
        groups = [micro[i : i + settings.accumulate] for i in range(0, len(micro), settings.accumulate)]
        for group in groups[progress.position :]:
            begun = time.perf_counter()
            lr = _set_rate(optimizer, settings, progress.step)
            losses, norm = _gradients(model, group, loss, settings.clip)
            check_finite(group, losses, norm, describe, step=progress.step + 1, lr=lr)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress.step += 1
            progress.position += 1
            progress.examples += sum(part.count for part in losses)
            seconds = time.perf_counter() - begun
            progress.seconds += seconds
            where = {"step": progress.step, "epoch": progress.epoch + 1, "examples": progress.examples}
            log.step(losses, **where, lr=lr, seconds=seconds)
            watch.step(losses)
            if settings.evaluate_every and progress.step % settings.evaluate_every == 0:
                _evaluate(model, evaluate, folder, log, progress)
                save_state(folder, model, optimizer, progress)
            if stop.requested or _out_of_patience(settings, progress):
                save_state(folder, model, optimizer, progress)
                return progress
        progress.epoch, progress.position = progress.epoch + 1, 0
        ended = progress.epoch == settings.epochs  # then what was learned since the last evaluation is judged too
        if not settings.evaluate_every or (ended and progress.step % settings.evaluate_every):
            _evaluate(model, evaluate, folder, log, progress)
        save_state(folder, model, optimizer, progress)
    return progress


def _gradients(
    model: nn.Module, group: Sequence[B], loss: Callable[[B], Loss], clip: float | None
) -> tuple[list[Loss], Tensor]:
    """The gradients of one optimizer step: the sums of all batches are divided once, by their weight in all.

    Returns:
        The losses, and the norm of the gradient before it was clipped.
    """
    losses = []
    model.train()  # and only here: whatever else asks the model wants no dropout
    for batch in group:
        part = loss(batch)
        part.total.backward()
        losses.append(part._replace(total=part.total.detach()))
    model.eval()
    weight = torch.stack([part.weight for part in losses]).sum()
    trained = [p for p in model.parameters() if p.grad is not None]
    torch._foreach_div_([p.grad for p in trained if p.grad is not None], weight)
    return losses, nn.utils.clip_grad_norm_(trained, math.inf if clip is None else clip)


def _set_rate(optimizer: Optimizer, settings: LoopSettings, step: int) -> float:
    total = settings.epochs * settings.steps_per_epoch
    lr = rate(step, total, peak=settings.lr, warmup=settings.warmup, schedule=settings.schedule)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def _evaluate(
    model: nn.Module,
    evaluate: Callable[[], tuple[dict[str, float], list[float]]],
    folder: Path,
    log: RunLog,
    progress: Progress,
) -> dict[str, float]:
    metrics, score = evaluate()
    check_score(score, step=progress.step)
    better = progress.best_score is None or score > progress.best_score
    progress.stale = 0 if better else progress.stale + 1
    # Counted from the position, so that the number is the same whether or not the epoch has been closed.
    epoch = progress.epoch + (progress.position > 0)
    if better:
        progress.best_score, progress.best_step = score, progress.step
        progress.best = {"epoch": epoch, "step": progress.step, **metrics}
        save_best(folder, model, progress.step)
    log.evaluation(metrics, step=progress.step, epoch=epoch, examples=progress.examples, best=better)
    return metrics


def _out_of_patience(settings: LoopSettings, progress: Progress) -> bool:
    return settings.patience is not None and progress.stale >= settings.patience


@contextmanager
def stop_on_interrupt() -> Generator[StopRequest]:
    """The first Ctrl-C or SIGTERM asks the loop to stop after its step; the second one stops at once."""
    stop = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        print("\nstopping after this step and saving; once more stops at once", file=sys.stderr, flush=True)

    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
    except ValueError:  # not in the main thread, where Python delivers no signals: the caller's business
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
