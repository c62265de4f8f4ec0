"""Memory: what is told before a run, what happens when it runs out, and the batch that fits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from gptailor import cli
from gptailor.config import AssistantConfig, BaseConfig, ClassifierConfig
from gptailor.errors import UserError
from gptailor.model.config import ModelConfig
from gptailor.tasks import memory
from gptailor.tasks.estimate import Workload
from gptailor.tasks.memory import (
    advice,
    fit_into_memory,
    is_out_of_memory,
    room,
    tell,
    try_longest,
    within_memory,
)
from gptailor.tasks.rerun import rerun_command
from gptailor.tasks.run import RunFolder
from gptailor.train.loop import StopRequest
from tests.tiny import TINY, StopAfter, batch_of, run

CPU = torch.device("cpu")
SMALL = ModelConfig(n_layer=12, n_head=12, n_embd=768, vocab_size=50257, context_length=1024)
FULL = Workload(SMALL, [1024] * 100, 0, 124_000_000, speaks=True)
TINY_SHAPE = ModelConfig(n_layer=2, n_head=2, n_embd=16, vocab_size=300, context_length=32)
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
        (RuntimeError("unable to mmap 9 bytes from file <a>: Cannot allocate memory (12)"), True),
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


def base(**options: Any) -> BaseConfig:
    return BaseConfig(data=["texts.txt"], **options)


def test_the_advice_for_a_base_names_only_what_it_can_be_told() -> None:
    fresh = {"base": "random:gpt2-small", "vocab": 50257}
    said = advice(base(**fresh), FULL, 6 * GIB)
    shorter = "--base random:n_layer=12,n_head=12,n_embd=768,context_length=512 ("
    assert said.startswith("--batch-size 4 --accumulate 2 (") and shorter in said and "--max-length" not in said
    assert "--vocab" not in said, "half of the tokens would save less than a tenth"
    alone = base(**fresh, batch_size=1)
    assert "--vocab 25128 (" in advice(alone, FULL, 0.9 * FULL.memory(1))
    assert "--vocab" not in advice(alone.model_copy(update={"tokenizer": "mine"}), FULL, 0.9 * FULL.memory(1))
    further = advice(base(base="gpt2-small"), FULL, 6 * GIB)
    assert "--layers 1 (" in further and "random:" not in further and "--vocab" not in further
    counted = replace(FULL, shape=TINY_SHAPE, trained=10_000, counted=10_000_000)
    few = advice(base(base="random:tiny"), counted, 1 * GIB)
    assert few == "--tokens 2500000 (0.7 GiB)", "nothing else makes the n-gram models smaller"


def test_small_savings_are_no_advice() -> None:
    needed = FULL.memory(8)
    assert "--layers lora" in advice(assistant(), FULL, None)
    most = replace(FULL, trained=7_000_000)  # adapters of the usual rank would be a third of them
    assert "--layers lora" not in advice(assistant(), most, None) and most.memory(8) < needed


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
    try_longest(model, lambda rows: model(torch.ones(rows, 3)).sum(), 4, 24)
    assert torch.equal(state, torch.get_rng_state()) and not model.training
    assert all(p.grad is None and torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


# --- whole runs -------------------------------------------------------------------------------------------------------


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
    assert batch_of(folder) == (4, 4)
    same = run(moods, tmp_path / "same", **how | {"batch_size": 4, "accumulate": 4, "auto_batch": False})
    first, second = (load_file(place / "model.safetensors") for place in (folder, same))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_larger_batch_is_taken_where_there_is_room(moods: Path, tmp_path: Path, limit: list[int]) -> None:
    assert batch_of(run(moods, tmp_path / "run", batch_size=2, accumulate=6, auto_batch=True, epochs=1)) == (12, 1)


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
    assert batch_of(stopped) == (4, 2)
    first, second = (load_file(place / "model.safetensors") for place in (whole, stopped))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_that_found_its_batch_is_repeated_with_it(moods: Path, tmp_path: Path, limit: list[int]) -> None:
    limit[0] = 4
    folder = run(moods, tmp_path / "run", batch_size=8, auto_batch=True, epochs=1)
    limit[0] = 10**6
    again = tmp_path / "again"
    assert rerun_command(folder, again, Console(quiet=True)) == 0
    assert batch_of(again) == batch_of(folder) == (4, 2)


def test_all_seeds_get_the_batch_of_the_first(moods: Path, tmp_path: Path, limit: list[int]) -> None:
    limit[0] = 4
    folder = run(moods, tmp_path / "run", batch_size=8, auto_batch=True, epochs=1, seeds=2)
    assert batch_of(folder) == batch_of(folder / "seeds" / "124") == (4, 2)


def test_what_n_gram_models_need_makes_no_batch_smaller(
    moods: Path, tmp_path: Path, limit: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Workload(TINY_SHAPE, [32] * 8, 0, 10_000, counted=10_000_000)
    monkeypatch.setattr(memory, "room", lambda device: 1 * GIB)
    model, folder = nn.Linear(1, 1), RunFolder(tmp_path / "run", resume=False)
    how: dict[str, Any] = {"model": model, "trial": lambda rows: model(torch.ones(rows, 1)).sum()}
    how["console"] = Console(quiet=True)
    chosen = fit_into_memory(base(batch_size=2, accumulate=4, auto_batch=True), folder, work, CPU, **how)
    assert (chosen.batch_size, chosen.accumulate) == (8, 1)


def test_each_try_is_told_before_it_is_made(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=300)

    def trial(rows: int) -> Tensor:
        said = console.file.getvalue()
        assert said.count("of memory are needed") == {4: 1, 2: 2, 1: 3}[rows]
        raise torch.OutOfMemoryError("out of memory")

    folder, config = RunFolder(tmp_path / "run", resume=False), base(batch_size=4, auto_batch=True)
    with pytest.raises(UserError):
        fit_into_memory(config, folder, Workload(TINY_SHAPE, [32, 32], 0, 9), CPU, nn.Linear(1, 1), trial, console)


# --- outside of training ----------------------------------------------------------------------------------------------


def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and standard error of a command line."""
    monkeypatch.setattr(sys, "argv", ["gptailor", *map(str, arguments)])
    monkeypatch.setattr(cli, "console", Console(stderr=True, width=200))
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capsys.readouterr().err


def fails(*arguments: Any, **options: Any) -> Any:
    """What a processor says that has no more memory."""
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to")


FLAGS = [part for key, value in TINY.items() for part in (f"--{key}", value)]


@pytest.mark.parametrize("place", ["gptailor.tasks.feed.keep_trunk", "gptailor.tasks.classifier.logits_of"])
def test_before_and_after_training_it_is_one_error_and_nothing_is_lost(
    moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    out = tmp_path / "run"
    how = ("train", "classifier", moods, *FLAGS, "--layers", "1", "--out", out)
    with monkeypatch.context() as little:
        little.setattr(place, fails)
        code, said = called(little, capsys, *how)
    assert code == 1 and "Error: memory ran out in gptailor train classifier\n" in said
    assert "what was saved before is intact" in said and "Traceback" not in said
    assert "a smaller --max-length or a smaller --batch-size or less data or a smaller --base" in said
    assert called(monkeypatch, capsys, *how, "--resume")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "place", "hint"),
    [
        (["predict", "folder", "text"], "predict.predict_command", "a shorter --file or --precision bf16 or another"),
        (["generate", "folder", "text"], "generate.generate_command", "a smaller --max-new-tokens or a shorter --file"),
        (["chat", "folder"], "chat.chat_command", "a smaller --max-new-tokens or --precision bf16 or another --device"),
        (["judge", "answers.json", "--with", "rules"], "judge.judge", "fewer --workers"),
        (["merge", "folder", "--out", "whole"], "merge.merge_command", "more memory"),
        (["inspect", "a.csv"], "inspect.inspect_classifier", "a smaller --max-length"),
        (["tokenizer", "train", "a.txt", "--out", "b"], "tokenizer.tokenizer_command", "more memory"),
    ],
)
def test_every_command_says_what_it_can_do_with_less(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], place: str, hint: str
) -> None:
    monkeypatch.setattr(f"gptailor.tasks.{place}", fails)
    code, said = called(monkeypatch, capsys, *arguments)
    name = " ".join(word for word in arguments[:2] if word in ("tokenizer", "train", place.split(".")[0]))
    assert code == 1 and f"memory ran out in gptailor {name}\n" in said and "Traceback" not in said
    assert f"try:      {hint}" in said


def test_another_error_of_a_command_is_no_error_of_the_user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("gptailor.tasks.predict.predict_command", wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        called(monkeypatch, capsys, "predict", "folder", "text")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot be given less memory")
@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("random:n_layer=2,n_head=2,n_embd=4096", "memory ran out in gptailor train base expected: what fits"),
        (
            "random:n_layer=2,n_head=2,n_embd=64,context_length=4096",
            "memory ran out on cpu: a run with batches of 64 x",
        ),
    ],
)
def test_a_process_that_may_have_no_more(tmp_path: Path, base: str, told: str) -> None:
    (tmp_path / "a.txt").write_text("just some words\n" * 100, encoding="utf-8")
    code = (
        "import resource\n"
        "import gptailor.tasks.base, gptailor.tasks.memory\n"
        "from gptailor.cli import main\n"
        "own = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (own + 2**29, own + 2**29))\n"
        "main()\n"
    )
    how = [str(tmp_path / "a.txt"), "--base", base, "--batch-size", "64", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "base", *how],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1 and told in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists(), "nothing was begun"
