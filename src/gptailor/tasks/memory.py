"""Whether a run fits into memory: told before it begins, tried on its longest rows, and mended by --auto-batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from torch import Tensor, nn

from gptailor.config import BaseConfig, ClassifierConfig, RunConfig, TableConfig
from gptailor.errors import UserError
from gptailor.show import show_note
from gptailor.tasks.estimate import START, Workload
from gptailor.tasks.run import RunFolder

C = TypeVar("C", bound=RunConfig)
SHORTEST = 16  # tokens; to cut rows to less would be no advice
PROPOSED = 3  # settings
WORTH = 0.9  # of what the run needs now: to save less is no advice either
RAN_OUT = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "bad_alloc")

LESS = {  # what to try, by the option that the command must have
    "--max-length": "a smaller --max-length",
    "--batch-size": "a smaller --batch-size",
    "--max-new-tokens": "a smaller --max-new-tokens",
    "--workers": "fewer --workers",
    "data": "less data",
    "--file": "a shorter --file",
    "--layers": "a smaller --base",  # where it is trained: merge has no choice
    "--precision": "--precision bf16",
    "--device": "another --device",
}


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


def tell(console: Console, config: RunConfig, work: Workload, device: torch.device) -> None:
    """One line of what is needed and what there is; a note with what would fit, where the run may not."""
    needed, there = work.memory(config.batch_size), room(device)
    console.print(f"about {gib(needed)} of memory are needed{_there(there)}", highlight=False)
    if there is not None and needed > there:
        show_note(console, f"this may be more than there is; try {advice(config, work, there)}")


def _there(size: float | None) -> str:
    return "" if size is None else f", {gib(size)} are there"


@contextmanager
def within_memory(config: RunConfig, work: Workload, device: torch.device) -> Generator[None]:
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
    return any(words in str(error).lower() for words in RAN_OUT)


def fit_into_memory(
    config: C,
    run: RunFolder,
    work: Workload,
    device: torch.device,
    model: nn.Module,
    trial: Callable[[int], Tensor],
    console: Console,
) -> C:
    """Tries the longest batch, and returns the options; with ``--auto-batch`` those of the largest batch that fits.

    That keeps the rows per step. A resumed run tries nothing and goes on with the batch that it began with, for what
    there is of memory is another figure every day.

    Args:
        trial: the loss of so many of the longest training rows.
        console: where each try is told before it is made: a processor may run out of memory without a word.

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
        sizes = [size for size in divisors if there is None or work.memory(size) <= max(there, work.memory(1))]
    for size in sizes:
        # What was decided is what the run is repeated with.
        decided = {"batch_size": size, "accumulate": per_step // size, "auto_batch": False}
        chosen = config.model_copy(update=decided)
        tell(console, chosen, work, device)
        try:
            with within_memory(chosen, work, device):
                try_longest(model, trial, size, work.moments)
            return chosen
        except UserError:
            model.zero_grad(set_to_none=True)
            if size == sizes[-1]:
                raise
    raise AssertionError("there is at least one size to try")


def try_longest(model: nn.Module, trial: Callable[[int], Tensor], batch_size: int, n_moments: int) -> None:
    """Runs the longest batch forward and backward beside the optimizer's room, and forgets it."""
    device = next(p.device for p in model.parameters() if p.requires_grad)
    moments = torch.empty(n_moments, device=device)
    drawing = [] if device.type == "cpu" else [device]  # dropout draws; the run is to go as if nothing had been tried
    with torch.random.fork_rng(drawing, device_type="cuda" if device.type == "cpu" else device.type):
        model.train()
        trial(batch_size).backward()
    model.eval()
    model.zero_grad(set_to_none=True)
    del moments


def advice(config: RunConfig, work: Workload, there: float | None) -> str:
    """Up to three settings that would fit, each alone, with what they need."""
    per_step, now = config.batch_size * config.accumulate, work.memory(config.batch_size)
    smaller = [n for n in range(config.batch_size - 1, 0, -1) if per_step % n == 0]
    settings = [(f"--batch-size {n} --accumulate {per_step // n}", work.memory(n)) for n in smaller]
    if isinstance(config, TableConfig):
        shorter = _halves(max(work.lengths), SHORTEST)
        settings += [(f"--max-length {n}", work.memory(config.batch_size, n)) for n in shorter]
    settings += [(words, less.memory(config.batch_size)) for words, less in _lesser(config, work)]
    most = START + WORTH * (now - START)
    most = most if there is None else min(most, there)
    fits: dict[str, str] = {}
    for words, needed in settings:  # of each option the first, which changes least
        if needed < most:
            fits.setdefault(words.split()[0], f"{words} ({gib(needed)})")
    return " or ".join(list(fits.values())[:PROPOSED]) or "a smaller --base"


def _lesser(config: RunConfig, work: Workload) -> list[tuple[str, Workload]]:
    """The run with less of the model trained, or of a lesser model; each with its option."""
    shape = work.shape
    adapters = (
        18 * config.rank * shape.n_embd * shape.n_layer
    )  # A and B of six matrices, two of them four times as wide
    block = 12 * shape.n_embd**2
    lora = replace(work, depth=0, trained=adapters, single=min(work.single, adapters))
    last = replace(work, depth=shape.n_layer - 1, trained=block, single=min(work.single, block))
    random = config.base.startswith("random:")
    runs = [] if random else [("--layers lora", lora)]  # there must be something to adapt
    if isinstance(config, ClassifierConfig):
        runs.insert(0, ("--layers 1", last))
    if not isinstance(config, BaseConfig):
        return runs
    runs += _of_random_weights(config, work) if random else [("--layers 1", last)]
    return runs + [(f"--tokens {n}", replace(work, counted=min(n, work.counted))) for n in _halves(config.tokens, 1)]


def _of_random_weights(config: BaseConfig, work: Workload) -> list[tuple[str, Workload]]:
    """The run with a shorter context, or with a smaller vocabulary."""
    shape = work.shape

    def less(context: int, vocab: int) -> Workload:
        shorter = replace(shape, context_length=context, vocab_size=vocab)
        gone = 0 if work.depth else (shape.context_length - context + shape.vocab_size - vocab) * shape.n_embd
        return replace(work, shape=shorter, lengths=[context] * len(work.lengths), trained=work.trained - gone)

    size = f"n_layer={shape.n_layer},n_head={shape.n_head},n_embd={shape.n_embd}"
    contexts = _halves(shape.context_length, SHORTEST)
    vocabularies = _halves(config.vocab, 257) if config.tokenizer is None else []
    runs = [(f"--base random:{size},context_length={n}", less(n, shape.vocab_size)) for n in contexts]
    return runs + [(f"--vocab {n}", less(shape.context_length, n)) for n in vocabularies]


def _halves(number: int, least: int) -> list[int]:
    """Half of it, a quarter, and so on."""
    return [number // 2**n for n in range(1, 10) if number // 2**n >= least]


def ran_out(command: str, options: Collection[str]) -> UserError:
    """What is told of memory that ran out before the training, after it, or where nothing is trained.

    Args:
        command: such as ``"gptailor predict"``.
        options: what the command takes, such as ``"--device"`` or ``"data"``.
    """
    return UserError(
        f"memory ran out in {command}",
        expected="what fits into memory; what was saved before is intact",
        hint=" or ".join([words for option, words in LESS.items() if option in options] or ["more memory"]),
    )


def gib(size: float) -> str:
    """Bytes as a person reads them."""
    return f"{size / 2**30:.1f} GiB"
