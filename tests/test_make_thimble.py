"""The second stage of thimble, on a base of a few thousand parameters."""

from __future__ import annotations

import csv
import importlib
import json
import random
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from gptailor.config import BaseConfig, load_config
from gptailor.tasks.base import run_base
from gptailor.train.loop import StopRequest
from gptailor.weights.base import open_base
from tests.tiny import BAD, GOOD, StopAfter, sentence

OPTIONS = {"steps": 40, "rows": 2, "texts": 16, "optimizer": "adamw", "drop": 0.1, "lr": 0.01, "weight": 5}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "scripts")
    return importlib.import_module("make_thimble_labels")


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base of a few thousand parameters, the text that it learned, and labelled texts."""
    tmp_path, rng = tmp_path_factory.mktemp("lessons"), random.Random(3)
    rows = [(sentence(words, rng), label) for words, label in ((GOOD, "good"), (BAD, "bad")) for _ in range(200)]
    rng.shuffle(rows)
    text, labels, base = (tmp_path / name for name in ("text.jsonl", "labels.csv", "base"))
    text.write_text("".join(json.dumps({"text": words}) + "\n" for words, _ in rows), encoding="utf-8")
    with labels.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    first = {"base": "random:n_layer=2,n_head=2,n_embd=16,context_length=32", "vocab": 320, "tokens": 8000, "lr": 0.01}
    config = load_config(BaseConfig, None, {"data": [str(text)], "out": str(base), "held_out": 0.1, **first})
    run_base(config, resume=False, console=Console(quiet=True), stop=StopRequest())
    return base, text, labels


def test_second_stage_learns_the_labels_and_keeps_the_language(
    module: ModuleType, lessons: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    (base, text, labels), out = lessons, tmp_path / "taught"
    assert module.teach(base, [str(text)], labels, out, OPTIONS)
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["labels"] == 2 and metrics["texts"] == 392 and metrics["held_out_texts"] == 8
    assert metrics["label_accuracy"] == 1.0
    assert metrics["validation_loss"] < metrics["before"] + 0.1  # in nats: guessing would be worse by far more
    assert metrics["tokens"] == 40 * 2 * 32 and metrics["finished"]
    opened = open_base(str(out))
    assert opened.tokenizer and opened.load(opened.tokenizer).config.n_layer == 2
    weights = load_file(out / "model.safetensors")
    assert not any("score" in name for name in weights), "the head that named the labels is left behind"
    assert all(tensor.dtype == torch.bfloat16 for tensor in weights.values())

    lesson = module.Lesson(base, [str(text)], labels, out, OPTIONS)
    whole, dropped, again = (float(lesson.label_loss(list(range(8)), drop).total.detach()) for drop in (0.0, 0.5, 0.5))
    assert dropped != whole, "tokens are left out"
    assert dropped == again, "the same ones in a resumed run"


def test_a_stopped_round_goes_on_to_the_same_weights(
    module: ModuleType, lessons: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, text, labels = lessons
    options = OPTIONS | {"optimizer": "muon", "steps": 10}
    assert module.teach(base, [str(text)], labels, tmp_path / "whole", options)
    with monkeypatch.context() as patch:
        patch.setattr(module, "stop_on_interrupt", lambda: nullcontext(StopAfter(4)))
        assert not module.teach(base, [str(text)], labels, tmp_path / "run", options)
    assert not (tmp_path / "run" / "metrics.json").exists()
    with pytest.raises(SystemExit, match="other options"):
        module.teach(base, [str(text)], labels, tmp_path / "run", options | {"drop": 0.2})
    assert module.teach(base, [str(text)], labels, tmp_path / "run", options)
    whole, run = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], run[name]) for name in whole)
