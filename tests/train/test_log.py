"""What a run tells: one parseable line a step, nothing twice after a resume, and TensorBoard when asked."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from gptailor.errors import UserError
from gptailor.train.log import LINES, RunLog, check_board, read_history
from gptailor.train.losses import Loss

QUIET = Console(quiet=True)


def loss(total: float, weight: float = 4.0, correct: int = 3, count: int = 4) -> Loss:
    return Loss(torch.tensor(total), torch.tensor(weight), torch.tensor(correct), count)


def log_steps(folder: Path, total: int, steps: range, **options: Any) -> None:
    with RunLog(folder, total, console=QUIET, **options) as log:
        for step in steps:
            log.step([loss(float(step))], step=step, epoch=1, examples=4 * step, lr=0.1, seconds=0.5)


def steps_of(folder: Path) -> list[int]:
    return [line["step"] for line in read_history(folder)]


def test_each_line_is_an_object_with_the_numbers_of_its_step(tmp_path: Path) -> None:
    with RunLog(tmp_path, 10, console=QUIET) as log:
        metrics = {"validation_loss": 0.123456789, "validation_accuracy": 2 / 3}
        log.evaluation(metrics, step=0, epoch=0, examples=0, best=True)
        log.step([loss(3.0), loss(2.0, 1.0, 0, 1)], step=1, epoch=1, examples=5, lr=1.23456789e-5, seconds=0.5)
    text = (tmp_path / "history.jsonl").read_text(encoding="utf-8")
    evaluated, trained = (json.loads(line) for line in text.splitlines())
    assert evaluated == {
        "kind": "evaluate",
        "step": 0,
        "epoch": 0,
        "examples": 0,
        "validation_loss": 0.123457,
        "validation_accuracy": 0.666667,
    }
    assert trained.pop("examples_per_second") > 0
    # (3 + 2) / (4 + 1) and (3 + 0) / (4 + 1); the rate is not rounded
    assert trained == {
        "kind": "train",
        "step": 1,
        "epoch": 1,
        "examples": 5,
        "loss": 1.0,
        "accuracy": 0.6,
        "lr": 1.23456789e-5,
    }


def test_steps_of_a_long_run_share_lines(tmp_path: Path) -> None:
    log_steps(tmp_path, 3 * LINES, range(1, 8))
    lines = read_history(tmp_path)
    assert [line["step"] for line in lines] == [3, 6]
    assert [line["loss"] for line in lines] == [(1 + 2 + 3) / 12, (4 + 5 + 6) / 12]


@pytest.mark.parametrize(("total", "every"), [(1, 1), (LINES, 1), (2 * LINES - 1, 1), (2 * LINES, 2), (10**6, 2000)])
def test_about_as_many_lines_however_long_the_run(tmp_path: Path, total: int, every: int) -> None:
    with RunLog(tmp_path, total, console=QUIET) as log:
        assert log.every == every
        assert math.ceil(total / every) <= 2 * LINES


@pytest.mark.parametrize(("resumed_at", "kept"), [(0, []), (1, [1]), (3, [1, 2, 3]), (5, [1, 2, 3, 4, 5])])
def test_lines_after_the_resumed_step_are_removed(tmp_path: Path, resumed_at: int, kept: list[int]) -> None:
    log_steps(tmp_path, 6, range(1, 6))
    log_steps(tmp_path, 6, range(0), resumed_at=resumed_at)
    assert steps_of(tmp_path) == kept
    log_steps(tmp_path, 6, range(resumed_at + 1, 7), resumed_at=resumed_at)
    assert steps_of(tmp_path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("torn", ['{"kind": "train", "st', "{", '{"kind": "train", "step": 3'])
def test_a_torn_last_line_is_left_out_and_written_over(tmp_path: Path, torn: str) -> None:
    log_steps(tmp_path, 6, range(1, 3))
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write(torn)
    assert steps_of(tmp_path) == [1, 2]
    log_steps(tmp_path, 6, range(3, 4), resumed_at=2)
    assert steps_of(tmp_path) == [1, 2, 3]


def test_no_history_is_no_lines(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []


@pytest.mark.parametrize("best", [True, False])
def test_an_evaluation_is_printed_in_one_line(tmp_path: Path, best: bool) -> None:
    printed = io.StringIO()
    with RunLog(tmp_path, 5, console=Console(file=printed, width=200)) as log:
        log.evaluation({"validation_loss": 0.5}, step=3, epoch=1, examples=9, best=best)
    (line,) = printed.getvalue().splitlines()
    assert {"3", "1", "validation", "loss", "0.500"} <= set(line.split())
    assert ("best" in line) == best


def test_tensorboard_holds_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog(tmp_path, 5, console=QUIET, tensorboard=True) as log:
        log.step([loss(3.0)], step=1, epoch=1, examples=4, lr=0.25, seconds=0.5)
        log.step([loss(2.0)], step=2, epoch=1, examples=8, lr=0.125, seconds=0.5)
        log.evaluation({"validation_loss": 0.75}, step=2, epoch=1, examples=8, best=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    told = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert told["train/loss"] == [(1, 0.75), (2, 0.5)]
    assert told["train/lr"] == [(1, 0.25), (2, 0.125)]
    assert told["evaluate/validation_loss"] == [(2, 0.75)]


def test_without_being_asked_no_events_are_written(tmp_path: Path) -> None:
    log_steps(tmp_path, 2, range(1, 3))
    assert [file.name for file in tmp_path.iterdir()] == ["history.jsonl"]


def test_a_missing_tensorboard_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"gptailor\[track\]"):
        check_board()
