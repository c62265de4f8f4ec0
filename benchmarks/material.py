"""Makes what the contestants work on: ``python benchmarks/material.py full|tiny [ROWS]``; ``run.py`` calls it.

The models have the true shapes of GPT-2 small and random weights, made once, as speed does not depend on values. The
texts are SMS Spam and the book's 1,100 instructions where they are at hand (``GPTAILOR_DATA``, or ``../shared/data``),
and otherwise random words of the same lengths.
"""

from __future__ import annotations

import csv
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import torch
from work import HERE, Work

from gptailor.config import AssistantConfig, ClassifierConfig, load_config
from gptailor.data.encoding import prompt_ids
from gptailor.model.config import SIZES, ModelConfig
from gptailor.model.decoder import Decoder
from gptailor.tasks.assistant import prepare as prepare_records
from gptailor.tasks.prepare import prepare as prepare_texts
from gptailor.tokenizer import Tokenizer
from gptailor.weights.folder import (
    ClassifierFolder,
    ClassifierSettings,
    build_classifier,
    save_classifier,
    save_language_model,
)

DATA = Path(os.environ.get("GPTAILOR_DATA") or HERE.parents[1] / "shared" / "data")
LABELS = ["ham", "spam"]
TINY = ModelConfig(n_layer=2, n_head=2, n_embd=32, vocab_size=512, context_length=256)
SPECS: dict[str, dict[str, Any]] = {
    "full": {
        "shape": SIZES["gpt2-small"],
        "texts": 5574,  # of which the book takes 747 of each label
        "classify": 512,
        "records": 240,  # 204 of them to train on: 26 steps
        "prompts": 110,
        "counts": {"epochs": 5, "new_tokens": 64, "scale": {"texts": 150, "words": 20, "epochs": 2}},
    },
    "tiny": {
        "shape": TINY,
        "texts": 80,
        "classify": 24,
        "records": 24,
        "prompts": 5,
        "counts": {"epochs": 1, "new_tokens": 4, "scale": {"texts": 40, "words": 4, "epochs": 1}},
    },
}


def words(rng: random.Random, count: int) -> str:
    """Random words of two to seven letters."""
    return " ".join("".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 7))) for _ in range(count))


def messages(count: int, *, real: bool) -> list[tuple[str, str]]:
    """Label and text; invented ones have the lengths of SMS Spam, and an eighth of them is spam."""
    file = DATA / "sms_spam" / "SMSSpamCollection"
    if real and file.exists():
        lines = file.read_text(encoding="utf-8").splitlines()
        return [(label, text) for label, _, text in (line.partition("\t") for line in lines)]
    rng = random.Random(0)
    lengths = [min(60, max(2, round(rng.lognormvariate(2.3, 0.7)))) for _ in range(count)]
    return [(LABELS[number % 8 == 0], words(rng, length)) for number, length in enumerate(lengths)]


def instructions(count: int, *, real: bool) -> list[dict[str, str]]:
    """Records with instruction, input and output."""
    file = DATA / "instruction" / "instruction-data.json"
    if real and file.exists():
        return json.loads(file.read_text(encoding="utf-8"))[:count]
    rng = random.Random(1)
    names = {"instruction": 8, "input": 4, "output": 10}
    return [{name: words(rng, length) for name, length in names.items()} for _ in range(count)]


def make_models(folder: Path, shape: ModelConfig, *, real: bool) -> Tokenizer:
    """Writes both models unless they are there, and returns their tokenizer."""
    if not (folder / "classifier" / "config.json").exists():
        torch.manual_seed(0)
        known = DATA / "gpt2_tokenizer"
        rng = random.Random(2)
        trained = not (real and known.exists())
        tokenizer = Tokenizer.train([words(rng, 2000)], TINY.vocab_size) if trained else Tokenizer.load(known)
        decoder = Decoder(shape).initialize()
        save_language_model(folder / "model", decoder, tokenizer, task="base", dtype=torch.float32)
        classifier = build_classifier(decoder, len(LABELS), ClassifierSettings())
        saved = ClassifierFolder(classifier, tokenizer, LABELS, ClassifierSettings())
        save_classifier(folder / "classifier", saved)
    return Tokenizer.load(folder / "model")


def write_data(folder: Path, spec: dict[str, Any], limit: int, *, real: bool) -> list[str]:
    """Writes ``sms.csv`` with at most ``limit`` texts of both labels, and ``instructions.json``; returns all texts."""
    known = messages(spec["texts"], real=real)
    few = [row for label in LABELS for row in [row for row in known if row[0] == label][: limit // 2]]
    with (folder / "sms.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("label", "text"), *(few if limit < len(known) else known)])
    records = instructions(spec["records"], real=real)[:limit]
    (folder / "instructions.json").write_text(json.dumps(records), encoding="utf-8")
    return [text for _, text in known]


def make(size: str, limit: int = 10**9) -> None:
    """All of it, with at most ``limit`` rows of each data set."""
    spec, folder, real = SPECS[size], HERE / ".work" / size, size == "full"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_models(folder, spec["shape"], real=real)
    known = write_data(folder, spec, limit, real=real)
    chosen = known[:: len(known) // spec["classify"]][: min(limit, spec["classify"])]
    book = {"base": str(folder / "model"), "split": "book"}
    records = {"data": str(folder / "instructions.json"), "learn": "all", **book}
    texts = prepare_texts(load_config(ClassifierConfig, None, {"data": str(folder / "sms.csv"), **book}))
    asked = prepare_records(load_config(AssistantConfig, None, records))
    questions = [record.question for record in asked.parts["train"][: spec["prompts"]]]
    work = Work(
        folder=folder,
        shape={name: getattr(spec["shape"], name) for name in vars(TINY) if name != "norm_eps"},
        pad=tokenizer.end_of_text,
        batch_size=8,
        spam={part: list(zip(texts.ids(part), texts.labels(part), strict=True)) for part in texts.parts},
        texts=chosen,
        ids=tokenizer.encode_many(chosen),
        records=[record.ids.tolist() for record in asked.parts["train"]],
        prompts=prompt_ids(questions, asked.template, tokenizer),
        **spec["counts"],
    )
    work.save()


if __name__ == "__main__":
    make(sys.argv[1], *map(int, sys.argv[2:]))
