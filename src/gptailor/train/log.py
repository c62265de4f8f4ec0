"""What a run tells: a progress bar, ``history.jsonl``, and TensorBoard on request."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from gptailor.errors import UserError
from gptailor.train.durable import put_in_place
from gptailor.train.losses import Loss

LINES = 500  # about as many training lines as a run writes, however long it is


class RunLog:
    """Reports on a run; never steers it.

    Args:
        folder: where ``history.jsonl`` is written.
        unit: what an example is called.
        total_steps: optimizer steps of the whole run.
        resumed_at: lines of later steps are removed: they will be written again.
        sums: of the line that has begun, kept up to date; a resumed run goes on with those that it saved.
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        *,
        console: Console,
        tensorboard: bool = False,
        resumed_at: int = 0,
        sums: dict[str, float] | None = None,
        unit: str = "texts",
    ) -> None:
        self.every = max(1, total_steps // LINES)
        self.file = folder / "history.jsonl"
        kept = [line for line in read_history(folder) if line["step"] <= resumed_at] if resumed_at else []
        unfinished = self.file.with_suffix(".unfinished")
        unfinished.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        put_in_place(unfinished, self.file)
        self.unit = unit
        self.board = _board(folder / "tensorboard") if tensorboard else None
        self.console = console
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps  {task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total_steps, completed=resumed_at, epoch=1, numbers="")
        self.shown: tuple[float, ...] = ()
        self.sums = {} if sums is None else sums
        if not self.sums:
            self._begin()

    def __enter__(self) -> RunLog:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        if self.board:
            self.board.close()

    def step(self, losses: list[Loss], *, step: int, epoch: int, examples: int, lr: float, seconds: float) -> None:
        """One optimizer step was made from these batches; several steps share a line when there are many."""
        sums = self.sums
        sums["seconds"] += seconds
        sums["total"] += sum(float(loss.total) for loss in losses)
        sums["weight"] += sum(float(loss.weight) for loss in losses)
        sums["correct"] += sum(int(loss.correct) for loss in losses)
        sums["count"] += sum(loss.count for loss in losses)
        if step % self.every == 0:
            speed = sums["count"] / sums["seconds"]
            loss, accuracy = sums["total"] / sums["weight"], sums["correct"] / sums["count"]
            self.shown = _smoothed(self.shown, (loss, accuracy, speed))
            numbers = "loss {:.3f}  accuracy {:.1%}  {:,.0f} {}/s".format(*self.shown, self.unit)
            self.bar.update(self.task, completed=step, epoch=epoch, numbers=numbers)
            line = {"step": step, "epoch": epoch, "examples": examples, "loss": loss, "accuracy": accuracy, "lr": lr}
            self._write({"kind": "train", **line, "examples_per_second": round(speed, 1)})
            self._begin()

    def evaluation(self, metrics: dict[str, float], *, step: int, epoch: int, examples: int, best: bool) -> None:
        """The validation part was evaluated."""
        self._write({"kind": "evaluate", "step": step, "epoch": epoch, "examples": examples, **metrics})
        numbers = ", ".join(
            f"{name.removeprefix('validation_').replace('_', ' ')} {value:.3f}" for name, value in metrics.items()
        )
        mark = "  [green]best[/]" if best else ""
        self.console.print(f"epoch {epoch:>3}  step {step:>6}  validation {numbers}{mark}", highlight=False)

    def note(self, text: str) -> None:
        """Something that looks wrong, in one sentence."""
        self.console.print(f"[yellow]note:[/] {escape(text)}", highlight=False)

    def _begin(self) -> None:
        self.sums.update(dict.fromkeys(("seconds", "total", "weight", "correct", "count"), 0))

    def _write(self, line: dict[str, Any]) -> None:
        rounded = {
            key: round(value, 6) if key != "lr" and isinstance(value, float) else value for key, value in line.items()
        }
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")
        if self.board:
            for key in line.keys() - {"kind", "step"}:
                self.board.add_scalar(f"{line['kind']}/{key}", line[key], line["step"])


def _smoothed(before: tuple[float, ...], now: tuple[float, ...]) -> tuple[float, ...]:
    """A moving average for the eye, because a line may hold a single batch; the file has the numbers themselves."""
    return tuple(0.9 * old + 0.1 * new for old, new in zip(before, now, strict=True)) if before else now


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``history.jsonl``; one that a crash cut short ends it."""
    lines: list[dict[str, Any]] = []
    file = folder / "history.jsonl"
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def check_board() -> None:
    """Raises ``UserError`` when TensorBoard events cannot be written."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard is not installed", hint='pip install "gptailor[track]"')


def _board(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
