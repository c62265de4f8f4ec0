"""SIGKILL lets nothing be saved: what is on the disk at any moment must do.

A run is killed again and again and resumed each time. It must leave what an undisturbed run leaves: the same weights to
the bit, the same history, metrics and answers, and no other files. All on one thread: a sum depends on how it is split.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gptailor.config import TASKS, load_config
from gptailor.tasks.lock import LOCK
from gptailor.tasks.rerun import RUNS
from gptailor.train.loop import StopRequest
from gptailor.train.state import LAST, UNFINISHED

KILLS = 9  # of each run, in the slow test
SMALL = {"base": "random:n_layer=2,n_head=2,n_embd=16,context_length=64"}
LORA = {"layers": "lora", "rank": 2, "dropout": 0.1}  # dropout draws, and must draw on
OPTIONS: dict[str, dict[str, Any]] = {  # of each run; where no base is named, it is one that is kept
    "classifier": SMALL | {"vocab": 300, "epochs": 4, "lr": 0.005, "evaluate_every": 3},
    "assistant": SMALL
    | {"vocab": 400, "template": "plain", "epochs": 4, "lr": 0.005, "evaluate_every": 5, "max_new_tokens": 12},
    "preferences": {"epochs": 4, "lr": 0.001, "evaluate_every": 5, "max_new_tokens": 12},
    "base": SMALL
    | {
        "vocab": 320,
        "tokens": 64 * 8 * 40,
        "batch_size": 8,
        "held_out": 0.1,
        "lr": 0.01,
        "evaluate_every": 5,
        "precision": "fp32",
    },
    "classifier-lora": LORA | {"epochs": 4, "lr": 0.005, "evaluate_every": 3},
    "assistant-lora": LORA
    | {"template": "plain", "epochs": 4, "lr": 0.005, "evaluate_every": 5, "max_new_tokens": 12, "pack": True},
    "preferences-lora": LORA | {"epochs": 4, "lr": 0.005, "evaluate_every": 5, "max_new_tokens": 12},
    "base-lora": LORA
    | {"tokens": 100 * 8 * 20, "held_out": 0.1, "lr": 0.005, "evaluate_every": 5, "precision": "fp32"},
}
Moment = Callable[[Path, int], bool]  # has it come, for the run in a folder, by this process?


def run_here(name: str, files: dict[str, Path], out: Path) -> Path:
    """Begins the run, or goes on with it, in this process."""
    task = name.removesuffix("-lora")
    data = str(files[task])
    given = {"data": [data] if task == "base" else data, "base": str(files["model"]), "out": str(out), **OPTIONS[name]}
    resume = (out / "run.yaml").exists()
    config = load_config(TASKS[task], None, given)
    return RUNS[task](config, resume=resume, console=Console(quiet=True), stop=StopRequest())


def killed(name: str, files: dict[str, Path], out: Path, moment: Moment) -> bool:
    """Begins the run, or goes on with it, in a process that is killed at a moment. False when it ended before."""
    task = name.removesuffix("-lora")
    command = [sys.executable, "-m", "gptailor", "train", task, str(files[task]), "--out", str(out)]
    for key, value in {"base": files["model"], **OPTIONS[name]}.items():
        command += ["--" + key.replace("_", "-"), *([] if value is True else [str(value)])]
    command += ["--resume"] if (out / "run.yaml").exists() else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not moment(out, process.pid):
            time.sleep(0.0005)
        process.kill()
        _, said = process.communicate()
    assert process.returncode in (0, -9), said.decode()
    return process.returncode == -9


def left(out: Path) -> dict[str, Any]:
    """What a run leaves, but for what says when and how fast it was."""
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    same = ("metrics.json", "receipt.json", "predictions.csv", "responses.json", "samples.json")
    return {
        "files": sorted(str(file.relative_to(out)) for file in out.rglob("*")),
        "weights": {file.name: file.read_bytes() for file in out.glob("*.safetensors")},
        "history": [{key: value for key, value in line.items() if key != "examples_per_second"} for line in lines],
        **{name: (out / name).read_text() for name in same if (out / name).exists()},
    }


# --- a few moments ----------------------------------------------------------------------------------------------------


def evaluated(out: Path, pid: int) -> bool:
    """In the middle: some evaluations are behind it."""
    history = out / "history.jsonl"
    return history.exists() and history.read_text().count('"evaluate"') > 3


def writing(out: Path, pid: int) -> bool:
    """While a second state is written."""
    checkpoints = out / "checkpoints"
    return (checkpoints / LAST).exists() and (checkpoints / UNFINISHED).exists()


def answering(out: Path, pid: int) -> bool:
    """After the training, in its evaluation."""
    return (out / "checkpoints" / "tuned.jsonl").exists()


def encoding(out: Path, pid: int) -> bool:
    """Before the training, when there is a tokenizer."""
    return (out / "checkpoints" / "tokenizer").exists()


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("classifier", [writing]),
        ("assistant-lora", [evaluated]),
        ("preferences", [answering]),
        ("base", [encoding, evaluated]),
    ],
    ids=["classifier", "assistant-lora", "preferences", "base"],
)
def test_a_run_that_is_killed_ends_as_an_undisturbed_one(
    files: dict[str, Path], tmp_path: Path, name: str, moments: list[Moment]
) -> None:
    whole = run_here(name, files, tmp_path / "whole")
    for moment in moments:
        assert killed(name, files, tmp_path / "run", moment), "it ended before it could be killed"
    assert left(run_here(name, files, tmp_path / "run")) == left(whole)


# --- any moment -------------------------------------------------------------------------------------------------------


def after(seconds: float) -> Moment:
    """So long after the process has taken the folder: before that, it only imports."""
    taken: list[float] = []

    def come(out: Path, pid: int) -> bool:
        lock = out / LOCK
        if not taken and lock.exists() and f"process {pid} " in lock.read_text():
            taken.append(time.monotonic())
        return bool(taken) and time.monotonic() - taken[0] > seconds

    return come


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_that_is_killed_again_and_again_ends_as_an_undisturbed_one(
    files: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """Runs of several kills each, until there were enough of them."""
    begun = time.monotonic()
    expected = left(run_here(name, files, tmp_path / "whole"))
    lasts, rng, kills, runs = time.monotonic() - begun, random.Random(7), 0, 0
    while kills < KILLS:
        runs += 1
        out = tmp_path / f"run{runs}"
        while kills < KILLS and killed(name, files, out, after(rng.uniform(0, lasts))):
            kills += 1
        assert left(run_here(name, files, out)) == expected, f"run {runs}, after {kills} kills in all"
