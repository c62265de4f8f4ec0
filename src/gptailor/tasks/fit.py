"""What every task that learns from rows does around the loop: optimizer, state, log, and which weights stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from torch import nn

from gptailor.config import TableConfig
from gptailor.show import show_note
from gptailor.tasks.estimate import Workload
from gptailor.tasks.memory import tell, within_memory
from gptailor.train.log import RunLog
from gptailor.train.loop import LoopSettings, StopRequest, train
from gptailor.train.losses import Loss
from gptailor.train.optim import adamw
from gptailor.train.state import Progress, has_state, load_best, load_state

B = TypeVar("B")


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
    else:
        tell(console, config, work, device)
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
    if config.keep == "last" or (stop.requested and progress.best_step == 0):
        return progress, {"which": "last", "epoch": progress.epoch + (progress.position > 0), "step": progress.step}
    load_best(checkpoints, model, progress.best_step)
    assert progress.best is not None
    return progress, {"which": "best", "epoch": int(progress.best["epoch"]), "step": progress.best_step}
