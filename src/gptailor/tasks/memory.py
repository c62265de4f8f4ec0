"""Whether a run fits into memory: told before it begins, tried on its longest rows, and mended by --auto-batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from torch import Tensor, nn

from gptailor.config import ClassifierConfig, TableConfig
from gptailor.errors import UserError
from gptailor.show import show_note
from gptailor.tasks.estimate import Workload
from gptailor.tasks.run import RunFolder

C = TypeVar("C", bound=TableConfig)
SHORTEST = 16  # tokens; to cut rows to less would be no advice
PROPOSED = 3  # settings


def room(device: torch.device) -> float | None:
    """Bytes that this process has on the device and could still take; None where that cannot be asked.

    On Linux the limit of a container (cgroup v2) counts where it leaves less than the machine has.
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    if device.type != "cpu":
        return None
    spare = [1024.0 * size for size in _figures(Path("/proc/meminfo"), "MemAvailable:")]
    group = Path("/sys/fs/cgroup")
    limit, used = _figures(group / "memory.max"), _figures(group / "memory.current")
    if limit and used:
        cached = _figures(group / "memory.stat", "inactive_file")  # read files, which are forgotten when need be
        spare.append(limit[0] - used[0] + sum(cached))
    pages = _figures(Path("/proc/self/statm"))
    own = pages[1] * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else 0
    return min(spare) + own if spare else None


def _figures(file: Path, word: str = "") -> list[float]:
    """The numbers of a line that begins with a word; none where there is no such file or line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    line = next((line.removeprefix(word) for line in lines if line.startswith(word)), "")
    return [float(part) for part in line.split() if part.isdigit()]


def tell(console: Console, config: TableConfig, work: Workload, device: torch.device) -> None:
    """One line of what is needed and what there is; a note with what would fit, where the run may not."""
    needed, there = work.memory(config.batch_size), room(device)
    console.print(f"about {gib(needed)} of memory are needed{_there(there)}", highlight=False)
    if there is not None and needed > there:
        show_note(console, f"this may be more than there is; try {advice(config, work, there)}")


def _there(size: float | None) -> str:
    return "" if size is None else f", {gib(size)} are there"


@contextmanager
def within_memory(config: TableConfig, work: Workload, device: torch.device) -> Generator[None]:
    """Raises ``UserError``, with the estimate and with what would fit, where memory runs out inside."""
    there = room(device)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        batch = f"batches of {work.rows(config.batch_size)} x {max(work.lengths)} tokens"
        needed = gib(work.memory(config.batch_size))
        raise UserError(
            f"memory ran out on {device}: a run with {batch} needs about {needed}{_there(there)}",
            expected="a run that fits; what was saved before is intact",
            hint=advice(config, work, there),
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: on an accelerator torch has an error of its own for it, on a CPU it has words."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "not enough memory", "out of memory"))


def fit_into_memory(
    config: C, run: RunFolder, work: Workload, device: torch.device, model: nn.Module, trial: Callable[[int], Tensor]
) -> C:
    """Tries the longest batch, and returns the options; with ``--auto-batch`` those of the largest batch that fits.

    That keeps the rows per step. A resumed run tries nothing and goes on with the batch that it began with, for what
    there is of memory is another figure every day.

    Args:
        trial: the loss of so many of the longest training rows.

    Raises:
        UserError: when memory runs out, with ``--auto-batch`` even for one row at a time.
    """
    per_step, there = config.batch_size * config.accumulate, room(device)
    if run.resume:
        begun = run.options
        same = begun.get("batch_size", 0) * begun.get("accumulate", 0) == per_step
        decided = {name: begun[name] for name in ("batch_size", "accumulate")} if config.auto_batch and same else {}
        return config.model_copy(update={"auto_batch": False, **decided})
    sizes = [config.batch_size]
    if config.auto_batch:
        divisors = [size for size in range(per_step, 0, -1) if per_step % size == 0]
        sizes = [size for size in divisors if there is None or size == 1 or work.memory(size) <= there]
    for size in sizes:
        # What was decided is what the run is repeated with.
        decided = {"batch_size": size, "accumulate": per_step // size, "auto_batch": False}
        chosen = config.model_copy(update=decided)
        try:
            with within_memory(chosen, work, device):
                try_longest(model, trial, size)
            return chosen
        except UserError:
            model.zero_grad(set_to_none=True)
            if size == sizes[-1]:
                raise
    raise AssertionError("there is at least one size to try")


def try_longest(model: nn.Module, trial: Callable[[int], Tensor], batch_size: int) -> None:
    """Runs the longest batch forward and backward beside the optimizer's room, and forgets it."""
    trained = [p for p in model.parameters() if p.requires_grad]
    moments = [torch.empty_like(p) for p in trained for _ in range(2)]
    device = trained[0].device
    drawing = [] if device.type == "cpu" else [device]  # dropout draws; the run is to go as if nothing had been tried
    with torch.random.fork_rng(drawing, device_type="cuda" if device.type == "cpu" else device.type):
        model.train()
        trial(batch_size).backward()
    model.eval()
    model.zero_grad(set_to_none=True)
    del moments


def advice(config: TableConfig, work: Workload, there: float | None) -> str:
    """Up to three settings that would fit, each alone, with what they need."""
    per_step, longest, now = config.batch_size * config.accumulate, max(work.lengths), work.memory(config.batch_size)
    smaller = [n for n in range(config.batch_size - 1, 0, -1) if per_step % n == 0]
    settings = [(f"--batch-size {n} --accumulate {per_step // n}", work.memory(n)) for n in smaller]
    shorter = [longest // 2**n for n in range(1, 10) if longest // 2**n >= SHORTEST]
    settings += [(f"--max-length {n}", work.memory(config.batch_size, n)) for n in shorter]
    settings += [(f"--layers {words}", less.memory(config.batch_size)) for words, less in _fewer(config, work)]
    fits: dict[str, str] = {}
    for words, needed in settings:  # of each option the first, which changes least
        if needed < min(now, now if there is None else there):
            fits.setdefault(words.split()[0], f"{words} ({gib(needed)})")
    return " or ".join(list(fits.values())[:PROPOSED]) or "a smaller --base"


def _fewer(config: TableConfig, work: Workload) -> list[tuple[str, Workload]]:
    """The run with less of the model trained."""
    shape = work.shape
    adapters = (
        18 * config.rank * shape.n_embd * shape.n_layer
    )  # A and B of six matrices, two of them four times as wide
    runs = [("lora", Workload(shape, work.lengths, 0, adapters, work.speaks, work.sides))]
    if config.base.startswith("random:"):  # there is nothing to adapt
        runs = []
    if isinstance(config, ClassifierConfig):
        runs.insert(0, ("1", Workload(shape, work.lengths, shape.n_layer - 1, 12 * shape.n_embd**2)))
    return runs


def gib(size: float) -> str:
    """Bytes as a person reads them."""
    return f"{size / 2**30:.1f} GiB"
