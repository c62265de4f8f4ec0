"""The second stage of thimble, on a base of a few thousand parameters."""

from __future__ import annotations

import csv
import importlib
import json
import random
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from gptailor.config import BaseConfig, load_config
from gptailor.tasks.base import run_base
from gptailor.train.loop import StopRequest
from gptailor.weights.base import open_base
from tests.tiny import BAD, GOOD, sentence

OPTIONS = {"steps": 40, "rows": 2, "texts": 16, "optimizer": "adamw", "drop": 0.1, "lr": 0.01, "weight": 5}


def test_second_stage_learns_the_labels_and_keeps_the_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "scripts")
    module = importlib.import_module("make_thimble_labels")
    rng = random.Random(3)
    rows = [(sentence(words, rng), label) for words, label in ((GOOD, "good"), (BAD, "bad")) for _ in range(200)]
    rng.shuffle(rows)
    text, labels, base, out = (tmp_path / name for name in ("text.jsonl", "labels.csv", "base", "taught"))
    text.write_text("".join(json.dumps({"text": words}) + "\n" for words, _ in rows), encoding="utf-8")
    with labels.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    first = {"base": "random:n_layer=2,n_head=2,n_embd=16,context_length=32", "vocab": 320, "tokens": 8000, "lr": 0.01}
    config = load_config(BaseConfig, None, {"data": [str(text)], "out": str(base), "held_out": 0.1, **first})
    run_base(config, resume=False, console=Console(quiet=True), stop=StopRequest())

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
