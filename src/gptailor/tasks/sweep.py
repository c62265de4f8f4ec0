"""``gptailor sweep``: the runs of a recipe, each a process of its own, and the table of what they gave."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from gptailor.config import dump_config, user_path, with_absolute_paths
from gptailor.errors import UserError
from gptailor.evaluate.format import duration, plural
from gptailor.evaluate.table import METRICS, Line, Metric, headline, read_result, write_table
from gptailor.show import visible
from gptailor.tasks.lock import LOCK, FolderLock
from gptailor.tasks.recipe import Recipe, Row, arguments, read_recipe
from gptailor.tasks.run import SHOWN_ONLY, RunFolder
from gptailor.train.loop import StopRequest, stop_on_interrupt

RECORD = "sweep.json"
POLL = 0.1  # seconds between two looks at the processes
LONGEST_REASON = 300  # characters


@dataclass(frozen=True, eq=False)
class Run:
    """One row with one seed."""

    row: Row
    seed: int
    folder: Path

    @property
    def log(self) -> Path:
        """What the run's process prints."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def told(self) -> str:
        """How the run is called on the terminal."""
        return f"row {self.row.number}, {self.row.change}, seed {self.seed}"

    def begun(self) -> bool:
        """Whether there is something to resume."""
        return (self.folder / "run.yaml").exists()

    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.begun() and RunFolder(self.folder, resume=True).finished

    def options(self) -> dict[str, Any]:
        """Every option, for comparison with an earlier sweep in the same folder."""
        values = yaml.safe_load(dump_config(with_absolute_paths(self.row.config)))
        return {name: value for name, value in values.items() if name not in SHOWN_ONLY}


class Sweep:
    """A recipe in its folder. ``record`` holds, by the name of each run, its options and why it failed if it did."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.runs = [Run(row, seed, folder / f"{row.name}_seed-{seed}") for row in recipe.rows for seed in recipe.seeds]
        file = folder / RECORD
        self.record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def claim(self) -> None:
        """Notes the options of every run. Raises ``UserError`` when a run of the same name has had other ones."""
        problems = []
        for run in self.runs:
            options, before = run.options(), self.record.get(run.folder.name, {}).get("options")
            differ = [key for key in options if before and before.get(key, options[key]) != options[key]]
            if differ and run.folder.exists():
                changes = "; ".join(f"{key} was {before[key]!r} and is now {options[key]!r}" for key in differ)
                problems.append(UserError(f"{run.folder} had other options: {changes}", hint="another --out"))
            else:
                self.record[run.folder.name] = {"options": options, "failed": None}
        if problems:
            raise UserError.joined(problems)
        self.save()

    def save(self) -> None:
        """Writes the record whole or not at all."""
        unfinished = self.folder / f".{RECORD}.unfinished"
        unfinished.write_text(json.dumps(self.record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        unfinished.replace(self.folder / RECORD)

    def failed(self, run: Run) -> str | None:
        """Why a run failed when it was last tried."""
        return self.record.get(run.folder.name, {}).get("failed")

    def lines(self) -> list[Line]:
        """The rows of the table, from what is there."""
        metric, lines = METRICS[self.recipe.task], []
        for row in self.recipe.rows:
            line = Line(row.number, row.change, row.means, self.command(row), len(self.recipe.seeds))
            for run in (run for run in self.runs if run.row is row):
                result = read_result(run.folder, metric, run.seed) if run.finished() else None
                if result:
                    line.results.append(result)
                elif reason := self.failed(run):
                    line.failed[run.seed] = reason
            lines.append(line)
        return lines

    def command(self, row: Row) -> str:
        """What repeats the row's first run by itself."""
        seed = ["--seed", str(self.recipe.seeds[0])]
        return shlex.join(["gptailor", "train", self.recipe.task, *arguments(row), *seed])

    def process(self, run: Run) -> list[str]:
        """The command line of a run."""
        how = ["--seed", str(run.seed), "--out", str(run.folder), *(["--resume"] if run.begun() else [])]
        return [sys.executable, "-m", "gptailor", "train", self.recipe.task, *arguments(run.row), *how]

    def write_table(self) -> list[Path]:
        """The table as it stands now."""
        return write_table(self.folder, self.recipe.file.stem, self.lines(), METRICS[self.recipe.task])


def sweep_command(
    file: Path, data: Sequence[str], out: Path | None, workers: int, *, only_table: bool, console: Console
) -> int:
    """Runs what is left of a sweep and writes its table; see ``gptailor sweep --help``.

    Returns:
        The exit status: 0, 1 when a run has failed, 130 when it was stopped.

    Raises:
        UserError: before the first run, for everything in the file that cannot work.
    """
    recipe = read_recipe(file, data)
    folder = user_path(str(out)) if out else Path("runs") / file.stem
    if only_table and not (folder / RECORD).exists():
        raise UserError(f"{folder} holds no sweep", hint="leave --table out to begin one, or name its folder by --out")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / RECORD).exists() and any(file.name != LOCK for file in folder.iterdir()):
        raise UserError(f"{folder} holds other files than those of a sweep", hint="a new folder as --out")
    sweep = Sweep(recipe, folder)
    if only_table:
        _show(sweep, console)
        return 0
    lock = FolderLock(folder)
    try:
        sweep.claim()
        with stop_on_interrupt() as stop:
            _run_all(sweep, workers, stop, console)
    finally:
        lock.release()
    _show(sweep, console)
    if stop.requested and not all(run.finished() for run in sweep.runs):
        console.print("Stopped. The same command goes on.")
        return 130
    return int(any(sweep.failed(run) for run in sweep.runs))


def _run_all(sweep: Sweep, workers: int, stop: StopRequest, console: Console) -> None:
    left = [run for run in sweep.runs if not run.finished()]
    done = len(sweep.runs) - len(left)
    before = f", {done} of them finished before" if done else ""
    console.print(f"{plural(len(sweep.runs), 'run')} in {visible(str(sweep.folder))}{before}", highlight=False)

    def ended(run: Run, status: int, seconds: float) -> None:
        nonlocal done
        done += 1
        reason = None if run.finished() or stop.requested else _reason(run.log, status)
        sweep.record[run.folder.name]["failed"] = reason
        sweep.save()
        sweep.write_table()
        said = f"failed: {reason}" if reason else _value(run, METRICS[sweep.recipe.task])
        told = f"{done}/{len(sweep.runs)}  {run.told}: {said} ({duration(seconds)})"
        console.print(visible(told), highlight=False, soft_wrap=True, style="red" if reason else None)

    run_processes(left, sweep.process, workers, stop, ended)


def _value(run: Run, metric: Metric) -> str:
    if not run.finished():
        return "stopped"
    result = read_result(run.folder, metric, run.seed)
    return metric.write(result.value) if result else f"no {metric.counted} to measure"


def run_processes(
    runs: Sequence[Run],
    command: Callable[[Run], list[str]],
    workers: int,
    stop: StopRequest,
    ended: Callable[[Run, int, float], None],
) -> None:
    """Runs every command, at most ``workers`` at a time, and says of each how it ended: status and seconds.

    When ``stop`` is requested no more are begun, and those that run are asked once to save and stop. An exception, such
    as the KeyboardInterrupt of a second Ctrl-C, is passed on to them as a second signal.
    """
    waiting, running, asked = deque(runs), dict[Run, tuple[subprocess.Popen[bytes], float]](), False
    environment = _environment(workers)
    try:
        while running or (waiting and not stop.requested):
            while waiting and len(running) < workers and not stop.requested:
                run = waiting.popleft()
                running[run] = _start(command(run), run.log, environment), time.monotonic()
            if stop.requested and not asked:
                asked = True
                _signal(running.values())
            for run, (process, begun) in list(running.items()):
                if process.poll() is not None:
                    del running[run]
                    ended(run, process.returncode, time.monotonic() - begun)
            time.sleep(POLL)
    except BaseException:
        for _ in range(1 if asked else 2):  # a run stops at once at its second signal
            _signal(running.values())
            time.sleep(POLL)
        for process, _ in running.values():
            process.wait()
        raise


def _start(command: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches this process alone, which passes it on once. Two signals would end the run
    # without saving.
    with log.open("wb") as opened:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=opened,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _signal(running: Any) -> None:
    for process, _ in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)


def _environment(workers: int) -> dict[str, str]:
    """The threads of this machine divided among the workers, unless the user has said how many each may have."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    divided = {"OMP_NUM_THREADS": str(max(1, cores // workers))} if workers > 1 else {}
    return divided | dict(os.environ)


def _reason(log: Path, status: int) -> str:
    """Why a run failed, on one line: its error message, or else the last thing that it said."""
    if status < 0:
        return f"ended by signal {-status}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    errors = [place for place, line in enumerate(lines) if line.startswith("Error: ")]
    said = [line.strip() for line in (lines[errors[-1] :] if errors else lines) if line.strip()]
    told = "; ".join(said if errors else said[-1:]).removeprefix("Error: ")
    return told[:LONGEST_REASON] or f"exit status {status}"


def _show(sweep: Sweep, console: Console) -> None:
    files = sweep.write_table()
    metric = METRICS[sweep.recipe.task]
    table = Table("row", "change", box=None, pad_edge=False, header_style="dim")
    for column in (f"{metric.name} (95 % interval)", "seeds", "time", "trained"):
        table.add_column(column, justify="right")
    for line in sweep.lines():
        results = line.results
        seeds = f"{len(results)} of {line.wanted}"
        took = duration(sum(result.seconds for result in results) / len(results)) if results else "–"
        trained = f"{results[0].trainable:,}" if results else "–"
        style = "red" if line.failed else None
        table.add_row(str(line.number), visible(line.change), headline(line, metric), seeds, took, trained, style=style)
    console.print(table)
    for line in sweep.lines():
        if line.why:
            told = f"row {line.number} failed, {line.why}"
            console.print(visible(told), style="red", highlight=False, soft_wrap=True)
    console.print(f"table  {visible(str(files[-1]))} (and .md, .csv)", highlight=False)
