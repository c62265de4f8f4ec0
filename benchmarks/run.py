"""Speed and memory against the peers: ``python benchmarks/run.py [ROW ...]``; the rows are those of ``rows.py``.

Every measurement is a process of its own, and the contestants of a row take turns, so that a busy neighbour hits all of
them. Each row ends with a table in Markdown and appends one JSON line to a file. Measured is the CPU.

Nothing heavy is imported here: a child's peak memory counts what its parent held when it was started.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from environment import OWN, python_of
from rows import ROWS, Row
from work import HERE, Contestant, Skip, Work

BUSY = 0.05  # share of the machine that others may take before a figure is marked
PACKAGES = ("gptailor", "torch", "transformers", "peft")
COLUMNS = ("spread", "x first", "x best peer", "of the floor", "peak MB", "x first", "others busy")

Runs = dict[str, list[dict[str, Any]]]  # by contestant, each of its measurements


def run(command: list[str], threads: int) -> dict[str, Any]:
    """Runs a command to its end and says what it cost: seconds, peak memory, and what else ran meanwhile.

    Raises:
        Skip: when it fails, with its last words.
    """
    count = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    env = {**os.environ, **count, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "80"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        mine, before, begun = sum(os.times()[:2]), busy_seconds(), time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=env, cwd=HERE.parent)
        _, status, used = os.wait4(child.pid, 0)
        wall, child.returncode = time.perf_counter() - begun, os.waitstatus_to_exitcode(status)
        cpu, after = used.ru_utime + used.ru_stime, busy_seconds()
        said, complained = ("".join((file.seek(0), file.read())[1:]) for file in (out, err))
    if child.returncode:
        raise Skip(f"failed: {(complained.strip() or f'exit code {child.returncode}').splitlines()[-1]}")
    unit = 1 if sys.platform == "darwin" else 1024
    figures = {"wall_s": wall, "cpu_s": cpu, "peak_mb": used.ru_maxrss * unit / 1e6, "said": said}
    if before is not None and after is not None:
        others = after - before - cpu - (sum(os.times()[:2]) - mine)
        figures["foreign"] = max(0.0, others / (wall * (os.cpu_count() or 1)))
    return figures


def busy_seconds() -> float | None:
    """CPU seconds that all processes of the machine have used; None where that cannot be asked."""
    file = Path("/proc/stat")
    if not file.exists():
        return None
    user, nice, system, _, _, *rest = map(int, file.read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


@dataclass
class Bench:
    """What all rows share."""

    work: Work
    machine: dict[str, Any]
    threads: int
    repeats: int
    install: bool

    def command(self, name: str, one: Contestant | list[str]) -> list[str]:
        """The words that start a contestant in row ``name``. Raises ``Skip`` when it has no environment."""
        if isinstance(one, list):
            tool, *rest = (word.format(folder=self.work.folder) for word in one)
            return [str(Path(sys.executable).parent / tool), *rest]
        job = [one.peer, one.work or name, str(self.work.folder), one.precision, json.dumps(dict(one.options))]
        return [str(python_of(one.peer, install=self.install)), str(HERE / "child.py"), *job]

    def once(self, name: str, row: Row, one: Contestant | list[str]) -> dict[str, Any]:
        """One measurement; ``figure`` is in the row's unit. Raises ``Skip`` with the reason when there is none."""
        measured = run(self.command(name, one), self.threads)
        said = measured.pop("said")
        told = {} if isinstance(one, list) else json.loads(said.splitlines()[-1])
        if "skipped" in told:
            raise Skip(told["skipped"])
        return {"figure": measured["wall_s"] if row.unit == "s" else told["done"] / told["seconds"], **measured, **told}

    def measure(self, name: str) -> tuple[Runs, dict[str, str]]:
        """All measurements of a row, A B A B, and who does not take part, with the reason."""
        runs: Runs = {label: [] for label in ROWS[name].contestants}
        skipped: dict[str, str] = {}
        for repeat in range(self.repeats):
            for label, one in ROWS[name].contestants.items():
                if label not in skipped:
                    say(f"{name} {repeat + 1}/{self.repeats}: {label} ...")
                    try:
                        runs[label].append(self.once(name, ROWS[name], one))
                    except Skip as reason:
                        skipped[label] = str(reason)
        say("")
        return {label: measured for label, measured in runs.items() if label not in skipped}, skipped

    def floors(self, row: Row) -> dict[str, float | None]:
        """What the machine allows each contestant, where that is known."""
        contestants = {label: one for label, one in row.contestants.items() if isinstance(one, Contestant)}
        return {label: row.floor(self.work, self.machine, one) for label, one in contestants.items() if row.floor}


def say(text: str) -> None:
    """A line that the next one overwrites, for whoever waits."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def table(row: Row, runs: Runs, skipped: dict[str, str], floors: dict[str, float | None]) -> str:
    """The row for people. Ratios above 1 are better than the first contestant or the best peer, of memory below 1."""
    figures = {label: median(measured, "figure") for label, measured in runs.items()}
    peaks = {label: median(measured, "peak_mb") for label, measured in runs.items()}
    first = next(iter(row.contestants))
    peers = [figures[label] for label, one in row.contestants.items() if label in figures and is_peer(one)]
    best = (min if row.unit == "s" else max)(peers, default=None)

    def faster(figure: float, than: float | None) -> float | None:
        return None if than is None else (than / figure if row.unit == "s" else figure / than)

    lines = [
        f"### {row.about}",
        "",
        f"| | {row.unit} | {' | '.join(COLUMNS)} |",
        "|---|---:" + "|---:" * len(COLUMNS) + "|",
    ]
    for label, measured in runs.items():
        figure, every = figures[label], [one["figure"] for one in measured]
        foreign = [one["foreign"] for one in measured if "foreign" in one]
        cells = [
            f"{figure:.4g}",
            f"{min(every):.4g} to {max(every):.4g}",
            shown(faster(figure, figures.get(first))),
            shown(faster(figure, best)),
            shown(faster(figure, floors.get(label)), 100, " %"),
            f"{peaks[label]:.0f}",
            shown(peaks[label] / peaks[first] if first in peaks else None),
            shown(max(foreign, default=None), 100, " % !" if max(foreign, default=0) > BUSY else " %"),
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += [f"| {label} | {reason} |{' |' * len(COLUMNS)}" for label, reason in skipped.items()]
    return "\n".join([*lines, ""])


def median(measured: list[dict[str, Any]], key: str) -> float:
    """Of one kind of figure."""
    return statistics.median(one[key] for one in measured)


def is_peer(one: Contestant | list[str]) -> bool:
    """Whether it is not ours."""
    return isinstance(one, Contestant) and one.peer != "gptailor"


def shown(value: float | None, times: int = 1, unit: str = "") -> str:
    """Two digits behind the point, or none of a share in percent; nothing where there is nothing."""
    return "" if value is None else f"{times * value:.{0 if unit else 2}f}{unit}"


def prepare(options: argparse.Namespace) -> Bench:
    """The material and the machine's ceilings, each made by a process of its own."""
    size = "tiny" if options.tiny else "full"
    made = [sys.executable, str(HERE / "material.py"), size, *([str(options.rows)] if options.rows else [])]
    say("making the material ...")
    run(made, options.threads)
    say("measuring what the machine can do ...")
    ceilings = [sys.executable, str(HERE / "machine.py"), "0.01" if options.tiny else "1"]
    machine = json.loads(run(ceilings, options.threads)["said"])
    work = Work.load(HERE / ".work" / size)
    return Bench(work, machine, options.threads, options.repeats, install=not options.tiny)


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed and memory against the peers.")
    parser.add_argument("names", nargs="*", metavar="ROW", help=f"[default: all] {', '.join(ROWS)}")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each contestant [default: 3]")
    parser.add_argument("--rows", type=int, help="use at most so many rows of the data, for a quicker look")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--threads", type=int, default=cores, help="[default: all cores]")
    parser.add_argument("--tiny", action="store_true", help="tiny model and texts: does everything run?")
    parser.add_argument("--out", type=Path, default=Path("runs/bench.jsonl"), help="file that each row adds a line to")
    options = parser.parse_args()
    unknown = set(options.names) - set(ROWS)
    if unknown:
        parser.error(f"no row is called {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    try:
        bench = prepare(options)
    except Skip as reason:
        parser.exit(1, f"{reason}\n")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    versions = {name: version(name) for name in PACKAGES} | {"python": sys.version.split()[0], "own": OWN}
    about = {"date": now, "command": sys.argv, "tiny": options.tiny, "machine": bench.machine, "versions": versions}
    ceilings = [f"{bench.machine[kind] / 1e9:.0f} GFLOP/s {kind}" for kind in ("fp32", "bf16")]
    ceilings.append(f"{bench.machine['bandwidth'] / 1e9:.0f} GB/s from memory")
    print(f"{bench.machine['processor']}, {options.threads} threads: {', '.join(ceilings)}; {now}\n")
    failed = False
    for name in options.names or ROWS:
        runs, skipped = bench.measure(name)
        floors = bench.floors(ROWS[name])
        print(table(ROWS[name], runs, skipped, floors), flush=True)
        line = {"row": name, "unit": ROWS[name].unit, "runs": runs, "floors": floors, "skipped": skipped, **about}
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        failed = failed or any(reason.startswith("failed") for reason in skipped.values())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
