"""Memory: what is told before a run, what happens when it runs out, and the batch that fits."""

from __future__ import annotations

import json
import os
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from gptailor.config import AssistantConfig, ClassifierConfig
from gptailor.errors import UserError
from gptailor.model.config import ModelConfig
from gptailor.tasks import memory
from gptailor.tasks.estimate import Workload
from gptailor.tasks.memory import advice, is_out_of_memory, room, tell, try_longest, within_memory
from gptailor.tasks.rerun import rerun_command
from gptailor.train.loop import StopRequest
from tests.tiny import StopAfter, run

CPU = torch.device("cpu")
SMALL = ModelConfig(n_layer=12, n_head=12, n_embd=768, vocab_size=50257, context_length=1024)
FULL = Workload(SMALL, [1024] * 100, 0, 124_000_000, speaks=True)
GIB = 2**30


def assistant(**options: Any) -> AssistantConfig:
    return AssistantConfig(data="records.json", **options)


def test_the_machine_is_asked_what_there_is() -> None:
    there = room(CPU)
    assert there is not None or sys.platform != "linux"
    assert there is None or 2**20 < there < 2**50
    assert room(torch.device("meta")) is None


def test_a_container_leaves_less_than_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, list[float]] = {
        "meminfo": [4000],  # KiB
        "memory.max": [3_000_000],
        "memory.current": [1_500_000],
        "memory.stat": [500_000],
        "statm": [],
    }
    monkeypatch.setattr(memory, "_figures", lambda file, word="": told[file.name])
    assert room(CPU) == 2_000_000
    told["statm"] = [900, 10, 5]  # pages in all, in memory, shared
    assert room(CPU) == 2_000_000 + 10 * os.sysconf("SC_PAGE_SIZE")
    told |= {"memory.max": [], "statm": []}  # the file says "max"
    assert room(CPU) == 4_096_000
    told["meminfo"] = []
    assert room(CPU) is None


def test_the_figures_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / "memory.stat"
    file.write_text("anon 5\ninactive_file 77\nMemAvailable:   12 kB\n")
    assert memory._figures(file, "inactive_file") == [77] and memory._figures(file, "MemAvailable:") == [12]
    assert memory._figures(file, "none") == memory._figures(tmp_path / "gone") == []


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), True),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error: Exception, ran_out: bool) -> None:
    assert is_out_of_memory(error) == ran_out


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), within_memory(assistant(), FULL, CPU):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_the_advice_fits_and_keeps_what_a_step_sees() -> None:
    for free in (3 * GIB, 4 * GIB, 8 * GIB):
        said = advice(assistant(batch_size=8, accumulate=2), FULL, free)
        for setting in said.split(" or "):
            assert float(setting.rpartition("(")[2].removesuffix(" GiB)")) <= free / GIB + 0.05, setting
    assert advice(assistant(batch_size=8, accumulate=2), FULL, 5 * GIB).startswith("--batch-size 2 --accumulate 8 (")
    assert "--layers lora" in advice(assistant(), FULL, 8 * GIB)
    assert "--layers 1" in advice(
        ClassifierConfig(data="a.csv"), Workload(SMALL, [1024] * 100, 0, 124_000_000), 8 * GIB
    )
    assert "--layers" not in advice(assistant(base="random:tiny"), FULL, 8 * GIB)
    trained_by_lora = Workload(SMALL, [1024] * 100, 0, 2_654_208, speaks=True)
    assert "--layers" not in advice(assistant(layers="lora"), trained_by_lora, 8 * GIB), "that would change nothing"
    pairs = Workload(SMALL, [512] * 100, 0, 124_000_000, speaks=True, sides=2)
    assert "--max-length 256 (" in advice(assistant(), pairs, 6 * GIB)
    assert advice(assistant(), FULL, 0.5 * GIB) == "a smaller --base"


def test_the_error_is_the_one_in_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "room", lambda device: 7.9 * GIB)
    with pytest.raises(UserError) as error, within_memory(assistant(), FULL, torch.device("cuda")):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    guide = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")
    assert str(error.value) in guide


def test_it_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, noted in ((64 * GIB, False), (4 * GIB, True)):
        monkeypatch.setattr(memory, "room", lambda device, free=free: free)
        console = Console(file=StringIO(), width=300)
        tell(console, assistant(), FULL, CPU)
        said = console.file.getvalue()
        assert f"GiB of memory are needed, {free / GIB:.1f} GiB are there" in said
        assert ("--batch-size" in said) == noted


def test_a_trial_leaves_nothing_behind() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    before, state = [p.clone() for p in model.parameters()], torch.get_rng_state()
    try_longest(model, lambda rows: model(torch.ones(rows, 3)).sum(), 4)
    assert torch.equal(state, torch.get_rng_state()) and not model.training
    assert all(p.grad is None and torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


# --- whole runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine on which a batch of more rows than the number in the list runs out of memory."""
    limit = [10**6]
    real = memory.try_longest

    def narrow(model: nn.Module, trial: Any, rows: int) -> None:
        def tried(n_rows: int) -> Tensor:
            if n_rows > limit[0]:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return trial(n_rows)

        real(model, tried, rows)

    monkeypatch.setattr(memory, "try_longest", narrow)
    return limit


def options_of(folder: Path) -> tuple[int, int]:
    saved = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
    return saved["batch_size"], saved["accumulate"]


def test_running_out_says_what_would_fit(moods: Path, tmp_path: Path, limit: list[int]) -> None:
    limit[0] = 4
    with pytest.raises(UserError) as error:
        run(moods, tmp_path / "run", batch_size=8)
    said = str(error.value)
    assert "memory ran out on cpu: a run with batches of 8 x " in said and "GiB" in said
    assert "--batch-size 4 --accumulate 2" in said
    assert not (tmp_path / "run").exists(), "nothing was begun"


def test_the_batch_that_fits_is_found_and_kept(moods: Path, tmp_path: Path, limit: list[int]) -> None:
    limit[0] = 5
    how: dict[str, Any] = {"batch_size": 8, "accumulate": 2, "auto_batch": True, "epochs": 1}
    folder = run(moods, tmp_path / "run", **how)
    assert options_of(folder) == (4, 4)
    same = run(moods, tmp_path / "same", **how | {"batch_size": 4, "accumulate": 4, "auto_batch": False})
    first, second = (load_file(place / "model.safetensors") for place in (folder, same))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_larger_batch_is_taken_where_there_is_room(moods: Path, tmp_path: Path, limit: list[int]) -> None:
    assert options_of(run(moods, tmp_path / "run", batch_size=2, accumulate=6, auto_batch=True, epochs=1)) == (12, 1)


def test_not_one_row_fits(moods: Path, tmp_path: Path, limit: list[int]) -> None:
    limit[0] = 0
    with pytest.raises(UserError, match="batches of 1 x "):
        run(moods, tmp_path / "run", auto_batch=True)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_keeps_its_batch(moods: Path, tmp_path: Path, limit: list[int]) -> None:
    limit[0] = 4
    how: dict[str, Any] = {"batch_size": 8, "auto_batch": True, "epochs": 2}
    whole = run(moods, tmp_path / "whole", **how)
    stopped = run(moods, tmp_path / "stopped", stop=StopAfter(5), **how)
    assert not json.loads((stopped / "metrics.json").read_text())["finished"]
    limit[0] = 10**6  # there is more room now
    run(moods, stopped, resume=True, stop=StopRequest(), **how)
    assert options_of(stopped) == (4, 2)
    first, second = (load_file(place / "model.safetensors") for place in (whole, stopped))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_that_found_its_batch_is_repeated_with_it(moods: Path, tmp_path: Path, limit: list[int]) -> None:
    limit[0] = 4
    folder = run(moods, tmp_path / "run", batch_size=8, auto_batch=True, epochs=1)
    limit[0] = 10**6
    again = tmp_path / "again"
    assert rerun_command(folder, again, Console(quiet=True)) == 0
    assert options_of(again) == options_of(folder) == (4, 2)


def test_all_seeds_get_the_batch_of_the_first(moods: Path, tmp_path: Path, limit: list[int]) -> None:
    limit[0] = 4
    folder = run(moods, tmp_path / "run", batch_size=8, auto_batch=True, epochs=1, seeds=2)
    assert options_of(folder) == options_of(folder / "seeds" / "124") == (4, 2)
