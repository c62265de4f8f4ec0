"""What every task that learns from rows does around the loop: optimizer, state, log, and which weights stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from rich.console import Console
from torch import Tensor, nn

from gptailor.config import RunConfig, TableConfig
from gptailor.model.precision import in_bf16
from gptailor.show import show_note
from gptailor.tasks.estimate import Workload
from gptailor.tasks.memory import room, within_memory
from gptailor.train.log import RunLog
from gptailor.train.loop import LoopSettings, StopRequest, train
from gptailor.train.losses import Loss
from gptailor.train.optim import adamw
from gptailor.train.state import Progress, has_state, load_best, load_state

B = TypeVar("B")
COMPARED = 2  # rows, for an accelerator may be chosen because the processor takes minutes for a batch
APART, APART_HALF = 1e-3, 5e-2  # shares by which their loss may differ: the order of sums; that, rounded to bf16


class Lesson(Protocol):
    """Rows to learn from, and the device that their batches go to."""

    device: torch.device

    def trial(self, n_rows: int) -> Tensor:
        """The summed loss of so many training rows, or what it is made of."""
        ...


@torch.no_grad()
def check_device(config: RunConfig, lesson: Lesson, model: nn.Module, console: Console) -> None:
    """Tells when an accelerator gives some rows another loss than the processor, where the model is for a moment.

    Nothing is compared where the processor is the device, or may have no memory for the model.
    """
    device, cpu, spare = lesson.device, torch.device("cpu"), room(torch.device("cpu"))
    needed = 2 * sum(p.nbytes for p in model.parameters())  # twice, for there is more than weights
    if device.type == "cpu" or (spare is not None and needed > spare):
        return
    model.eval()
    rows = min(COMPARED, config.batch_size)
    there = float(lesson.trial(rows))
    model.to(cpu)
    lesson.device = cpu
    here = float(lesson.trial(rows))
    model.to(device)
    lesson.device = device
    half = config.frozen_in == "bf16" or any(in_bf16(config.precision, place) for place in (device, cpu))
    allowed = APART_HALF if half else APART
    if not abs(there - here) <= allowed * max(1.0, abs(here)):  # also for what is no number
        show_note(
            console,
            f"the same weights give the same rows {there:.6g} on {device} and {here:.6g} on the processor, summed up, "
            f"which is more than {allowed:.1%} apart: one of them computes wrongly, and what is learned there may be "
            "worth nothing; Ctrl-C, and another version of torch or of the driver, or --device cpu",
        )


def fit(
    model: nn.Module,
    config: TableConfig,
    *,
    batches: Callable[[int], Sequence[B]],
    loss: Callable[[B], Loss],
    evaluate: Callable[[], tuple[dict[str, float], list[float]]],
    describe: Callable[[B], Sequence[str]],
    choices: int | None,
    work: Workload,
    evaluate_every: int | None,
    folder: Path,
    checkpoints: Path,
    console: Console,
    stop: StopRequest,
    unit: str = "texts",
) -> tuple[Progress, dict[str, Any]]:
    """Trains the model, from the state in ``checkpoints`` if there is one; the weights to keep stay in it.

    Args:
        batches, loss, evaluate, describe, choices: see ``train.loop.train``.
        work: what is to be computed, for the estimate of memory.
        evaluate_every: optimizer steps between evaluations; None is an epoch.
        folder: where ``history.jsonl`` is written.
        unit: what the log counts.

    Raises:
        UserError: when memory runs out, or the loss is no number; what was saved before is intact.

    Returns:
        How far it came, and which weights stay: ``which`` (best or last), ``epoch`` and ``step``.
    """
    assert config.epochs and config.lr  # decided by ``for_base``
    optimizer = adamw(model, config.lr, config.weight_decay)
    progress = Progress()
    device = next(model.parameters()).device
    if has_state(checkpoints):
        progress = load_state(checkpoints, model, optimizer, lambda text: show_note(console, text))
    settings = LoopSettings(
        epochs=config.epochs,
        steps_per_epoch=-(-len(batches(0)) // config.accumulate),
        accumulate=config.accumulate,
        lr=config.lr,
        warmup=config.warmup,
        schedule=config.schedule,
        clip=config.clip,
        evaluate_every=evaluate_every,
        patience=config.patience,
    )
    steps = settings.epochs * settings.steps_per_epoch
    how = {"console": console, "tensorboard": config.tensorboard, "unit": unit}
    log = RunLog(folder, steps, resumed_at=progress.step, sums=progress.sums, **how)
    with within_memory(config, work, device), log:
        progress = train(
            model,
            optimizer,
            settings,
            batches=batches,
            loss=loss,
            evaluate=evaluate,
            describe=describe,
            choices=choices,
            folder=checkpoints,
            log=log,
            progress=progress,
            stop=stop,
        )
    # A run that is stopped in its first epoch has nothing better than what it began with: then the last weights stay.
    last = config.keep == "last" or (stop.requested and progress.best_step == 0)
    return progress, keep_weights(model, checkpoints, progress, last=last)


def keep_weights(model: nn.Module, checkpoints: Path, progress: Progress, *, last: bool) -> dict[str, Any]:
    """Leaves the last weights in the model or loads the best, and says which: ``which``, ``epoch`` and ``step``."""
    if last:
        return {"which": "last", "epoch": progress.epoch + (progress.position > 0), "step": progress.step}
    load_best(checkpoints, model, progress.best_step)
    assert progress.best is not None
    return {"which": "best", "epoch": int(progress.best["epoch"]), "step": progress.best_step}
