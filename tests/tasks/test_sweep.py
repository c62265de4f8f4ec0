"""A sweep: what is run, what is not run again, what a stop and a failure leave, and the table of it all."""

from __future__ import annotations

import csv
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gptailor.errors import UserError
from gptailor.tasks import sweep as module
from gptailor.tasks.lock import FolderLock
from gptailor.tasks.sweep import Run, Sweep, _environment, run_processes, sweep_command
from gptailor.train.loop import StopRequest
from tests.tiny import TINY

# What stands for `gptailor train` where only the order of things is tested: it leaves a finished folder.
FINISH = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)
(out / "run.yaml").write_text("seed: 1"); (out / "README.md").write_text("card")
value = {"accuracy": float(sys.argv[2]), "interval": [0.5, 1.0], "n": 20}
(out / "metrics.json").write_text(json.dumps({"finished": True, "test_unseen": value}))
(out / "manifest.json").write_text(json.dumps({"model": {"trainable": 5, "parameters": 9}, "timings": {"train": 2.0}}))
"""
FAIL = "import sys; print('x'); print('Error: found this\\n  expected: that', file=sys.stderr); sys.exit(1)"
SLOW = """
import signal, sys, time
asked = []
def stop(number, frame):
    if asked: sys.exit(9)
    asked.append(number)
signal.signal(signal.SIGINT, stop)
print("ready", flush=True)
begun = time.time()
while not asked and time.time() < begun + 20: time.sleep(0.01)
time.sleep(0.4)  # a second signal would end it here
sys.exit(130)
"""


@pytest.fixture
def recipe(tmp_path: Path, moods: Path) -> Path:
    file = tmp_path / "small.yaml"
    options = json.dumps({"data": str(moods), **TINY})
    file.write_text(
        f"task: classifier\nseeds: 2\ncommon: {options}\nrows: [{{}}, {{read: first}}, {{layers: head}}]\n",
        encoding="utf-8",
    )
    return file


def sweep(file: Path, out: Path, **options: Any) -> int:
    return sweep_command(
        file,
        (),
        out,
        options.pop("workers", 1),
        only_table=options.pop("only_table", False),
        console=Console(quiet=True),
    )


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces training by ``FINISH``, and by ``FAIL`` for the folders that the test puts into ``stand_in.failing``."""
    begun: list[str] = []
    accuracy = {"baseline": 0.9, "read-first": 0.7, "layers-head": 0.8}

    def process(self: Sweep, run: Run) -> list[str]:
        begun.append(run.folder.name)
        fails = run.folder.name == "read-first_seed-124" and begun.count(run.folder.name) == 1
        value = accuracy[run.row.name] + (run.seed - 123) / 100
        return [sys.executable, "-c", FAIL if fails else FINISH, str(run.folder), str(value)]

    monkeypatch.setattr(Sweep, "process", process)
    return begun


def test_a_failed_run_is_told_and_alone_tried_again(recipe: Path, tmp_path: Path, stand_in: list[str]) -> None:
    out = tmp_path / "out"
    assert sweep(recipe, out) == 1
    assert len(stand_in) == 6, "the others went on"
    rows = list(csv.DictReader((out / "table.csv").open(encoding="utf-8")))
    assert [row["seeds"] for row in rows] == ["2", "1", "2"]
    assert rows[1]["failed"] == "seed 124: found this; expected: that"
    for name in ("table.md", "table.html"):
        assert "found this; expected: that" in (out / name).read_text(encoding="utf-8")
    assert sweep(recipe, out) == 0
    assert stand_in[6:] == ["read-first_seed-124"]
    assert sweep(recipe, out, only_table=True) == 0 and len(stand_in) == 7
    rows = list(csv.DictReader((out / "table.csv").open(encoding="utf-8")))
    assert [float(row["mean"]) for row in rows] == pytest.approx([0.905, 0.705, 0.805])
    assert rows[1]["failed"] == "" and float(rows[1]["difference"]) == pytest.approx(-0.2)


def test_a_run_under_the_same_name_with_other_options_is_refused(
    recipe: Path, tmp_path: Path, stand_in: list[str]
) -> None:
    sweep(recipe, tmp_path / "out")
    recipe.write_text(recipe.read_text(encoding="utf-8").replace('"lr": 0.005', '"lr": 0.004'), encoding="utf-8")
    with pytest.raises(UserError, match=r"baseline_seed-123 had other options: lr was 0.005 and is now 0.004"):
        sweep(recipe, tmp_path / "out")
    assert len(stand_in) == 6


def test_two_sweeps_do_not_share_a_folder(recipe: Path, tmp_path: Path, stand_in: list[str]) -> None:
    (tmp_path / "out").mkdir()
    lock = FolderLock(tmp_path / "out")
    with pytest.raises(UserError, match="going on in"):
        sweep(recipe, tmp_path / "out")
    lock.release()
    assert stand_in == []


def test_a_folder_with_other_files_is_left_alone(recipe: Path, trained: Path) -> None:
    before = sorted(trained.iterdir())
    with pytest.raises(UserError, match="holds other files than those of a sweep"):
        sweep(recipe, trained)
    assert sorted(trained.iterdir()) == before


def test_the_table_needs_a_sweep(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no sweep"):
        sweep(recipe, tmp_path / "none", only_table=True)
    assert not (tmp_path / "none").exists()


def some_runs(folder: Path, count: int) -> list[Run]:
    return [Run(None, seed, folder / str(seed)) for seed in range(count)]  # type: ignore[arg-type]


def test_a_stop_is_passed_on_once_and_nothing_more_is_begun(tmp_path: Path) -> None:
    stop, ended, runs = StopRequest(), [], some_runs(tmp_path, 3)

    def ask() -> None:
        logs = [tmp_path / f"{seed}.log" for seed in range(2)]
        while not all(log.exists() and log.read_text(encoding="utf-8") for log in logs):
            time.sleep(0.01)
        stop.requested = True

    asking = threading.Thread(target=ask)
    asking.start()
    run_processes(
        runs, lambda run: [sys.executable, "-c", SLOW], 2, stop, lambda run, status, _: ended.append((run.seed, status))
    )
    asking.join()
    assert sorted(ended) == [(0, 130), (1, 130)]


def test_an_interrupt_ends_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, processes, start = some_runs(tmp_path, 1), [], module._start
    monkeypatch.setattr(module, "_start", lambda *given: processes.append(start(*given)) or processes[-1])

    class Interrupting(StopRequest):
        @property
        def requested(self) -> bool:  # type: ignore[override]
            if (tmp_path / "0.log").exists() and (tmp_path / "0.log").read_text(encoding="utf-8"):
                raise KeyboardInterrupt
            return False

        @requested.setter
        def requested(self, value: bool) -> None:
            pass

    with pytest.raises(KeyboardInterrupt):
        run_processes(runs, lambda run: [sys.executable, "-c", SLOW], 1, Interrupting(), lambda *_: None)
    assert processes[0].poll() == 9


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert _environment(3)["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in _environment(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert _environment(3)["OMP_NUM_THREADS"] == "5"


def test_a_sweep_trains(tmp_path: Path, moods: Path) -> None:
    """Whole processes: one run that ends well, and one that the model itself refuses."""
    file = tmp_path / "real.yaml"
    options = json.dumps({"data": str(moods), **TINY, "epochs": 1})
    file.write_text(f"task: classifier\ncommon: {options}\nrows: [{{}}, {{layers: 9}}]\n", encoding="utf-8")
    assert sweep(file, tmp_path / "out", workers=2) == 1
    first, second = csv.DictReader((tmp_path / "out" / "table.csv").open(encoding="utf-8"))
    metrics = json.loads((tmp_path / "out" / "baseline_seed-123" / "metrics.json").read_text(encoding="utf-8"))
    unseen = metrics["test_unseen"]
    assert [float(first[key]) for key in ("mean", "low", "high")] == pytest.approx(
        [unseen["accuracy"], *unseen["interval"]]
    )
    assert int(first["n"]) == unseen["n"] and float(first["seconds"]) > 0 and int(first["trainable"]) > 0
    assert first["command"].startswith("gptailor train classifier ") and first["command"].endswith("--seed 123")
    assert second["failed"].startswith("seed 123: --layers 9: the model has")
