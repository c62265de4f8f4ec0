"""An accelerator that computes something else than the processor is told of, and the model is back on it afterwards."""

from __future__ import annotations

import math
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from gptailor.config import TASKS, AssistantConfig, RunConfig, load_config
from gptailor.tasks import fit
from gptailor.tasks.fit import COMPARED, Lesson, check_device
from gptailor.tasks.rerun import RUNS
from gptailor.train.loop import StopRequest

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Model(nn.Linear):
    """Says that it is on an accelerator, and notes where it is moved."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.places = [CUDA]

    def to(self, device: torch.device) -> Model:  # ty: ignore
        self.places.append(device)
        return self


class Rows:
    """Each has a loss of 4 on the processor, and ``factor`` times that elsewhere."""

    def __init__(self, model: Model, factor: float, device: torch.device = CUDA) -> None:
        self.model, self.factor, self.device = model, factor, device
        self.tried: list[int] = []

    def trial(self, n_rows: int) -> Tensor:
        assert self.model.places[-1] == self.device and not self.model.training and not torch.is_grad_enabled()
        self.tried.append(n_rows)
        return torch.tensor(4.0 * n_rows * (1 if self.device == CPU else self.factor))


def said(rows: Rows, **options: Any) -> str:
    printed = StringIO()
    config = AssistantConfig(data="records.json", **options)
    check_device(config, rows, rows.model, Console(file=printed, width=1000))
    return printed.getvalue()


@pytest.mark.parametrize(
    ("options", "factor", "odd"),
    [
        ({}, 1.0005, False),
        ({}, 1.002, True),
        ({}, 0.998, True),
        ({}, 5.0, True),  # 20 where the processor has 4
        ({}, math.nan, True),
        ({"precision": "bf16"}, 1.04, False),
        ({"precision": "bf16"}, 1.06, True),
        ({"layers": "lora", "frozen_in": "bf16"}, 1.04, False),
        ({"layers": "lora"}, 1.04, True),
    ],
)
def test_another_loss_than_that_of_the_processor_is_told_once(
    options: dict[str, Any], factor: float, odd: bool
) -> None:
    rows = Rows(Model(), factor)
    text = said(rows, **options)
    assert text.count("note:") == odd and (not odd or f"{8 * factor:.6g} on cuda and 8 on the processor" in text)
    assert rows.model.places == [CUDA, CPU, CUDA] and rows.device == CUDA and rows.tried == [COMPARED, COMPARED]


def test_no_more_rows_are_compared_than_a_batch_has() -> None:
    rows = Rows(Model(), 1.0)
    said(rows, batch_size=1)
    assert rows.tried == [1, 1]


def test_a_sum_near_zero_may_differ_by_as_much_as_one_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(Model(), 1.0)
    monkeypatch.setattr(rows, "trial", lambda n_rows: torch.tensor(1e-5 if rows.device == CPU else 5e-4))
    assert said(rows) == ""


@pytest.mark.parametrize(("device", "spare"), [(CPU, None), (CUDA, 95.0)])
def test_nothing_is_compared_on_the_processor_itself_or_without_memory_for_it(
    device: torch.device, spare: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "room", lambda device: spare)  # 12 parameters have 48 bytes
    rows = Rows(Model(), 5.0, device)
    assert said(rows) == "" and rows.tried == [] and rows.model.places == [CUDA]


@pytest.mark.parametrize("task", TASKS)
def test_each_task_looks_before_it_trains(
    task: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Seen(Exception):
        pass

    def seen(config: RunConfig, lesson: Lesson, model: nn.Module, console: Console) -> None:
        model.eval()
        one, two = float(lesson.trial(1).detach()), float(lesson.trial(2).detach())
        assert config.base == str(files["model"]) and lesson.device == next(model.parameters()).device == CPU
        assert 0 < abs(one) < abs(two) < 1e4
        raise Seen

    monkeypatch.setattr(f"gptailor.tasks.{task}.check_device", seen)
    data = str(files[task])
    own: dict[str, Any] = {"assistant": {"template": "plain"}, "base": {"held_out": 0.1, "precision": "fp32"}}
    given = {"data": [data] if task == "base" else data, "base": str(files["model"]), "out": str(tmp_path / "run")}
    config = load_config(TASKS[task], None, {**given, **own.get(task, {}), "device": "cpu"})
    with pytest.raises(Seen):
        RUNS[task](config, resume=False, console=Console(quiet=True), stop=StopRequest())
    assert not (tmp_path / "run" / "history.jsonl").exists()
