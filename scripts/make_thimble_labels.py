"""The second stage of thimble: it goes on with the next token, and learns to tell labelled texts apart.

Next-token loss alone leaves so small a model without a judgement of a text as a whole: what it has seen does not reach
the last token, which a classifier reads. Here a head on the last token tells the texts of make_text_labels.py apart,
beside the text of the first stage. The head is thrown away; what the blocks have learned for it stays.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gptailor.config import BaseConfig, load_config
from gptailor.data.batching import collate, shuffled
from gptailor.model.head import Classifier
from gptailor.model.precision import compute_in
from gptailor.tasks.base import corpus_of, optimizer_of, store_of
from gptailor.tasks.corpus import parse_sources
from gptailor.tasks.run import digest
from gptailor.train.durable import put_in_place
from gptailor.train.log import RunLog
from gptailor.train.loop import LoopSettings, stop_on_interrupt, train
from gptailor.train.losses import Loss, class_loss
from gptailor.train.state import Progress, has_state, load_best, load_state
from gptailor.weights.base import open_base
from gptailor.weights.folder import save_language_model

HELD_OUT = 50  # one labelled text in so many is not learned from
LONGEST = 200  # tokens of a labelled text
EVALUATIONS = 10


class Lesson:
    """Both texts, and the model that learns from them.

    Args:
        options: of the round, as make_thimble.yaml has them: steps, rows of text and labelled texts in each, optimizer,
            lr, the share of a labelled text's tokens that is left out, and how much the loss of the labels counts.
    """

    def __init__(self, base: Path, data: list[str], labels: Path, out: Path, options: dict[str, Any]) -> None:
        self.options = options
        opened, sources = open_base(str(base)), parse_sources(data)
        assert opened.tokenizer
        tokens = options["steps"] * options["rows"] * opened.config.context_length
        given = {"data": data, "base": str(base), "tokens": tokens, "batch_size": options["rows"]}
        given |= {key: options[key] for key in ("optimizer", "lr")}
        self.config = load_config(BaseConfig, None, given)
        self.tokenizer, console = opened.tokenizer, Console(stderr=True)
        stores = [store_of(self.config, source, self.tokenizer, out, console) for source in sources]
        self.corpus = corpus_of(self.config, opened, self.tokenizer, stores, [source.weight for source in sources])
        with labels.open(encoding="utf-8", newline="") as file:
            rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
        self.names = sorted({label for _, label in rows})
        self.labels = [self.names.index(label) for _, label in rows]
        self.ids = [self.tokenizer.encode(text)[-LONGEST:] for text, _ in rows]
        self.learned = [row for row in range(len(rows)) if row % HELD_OUT]
        self.held_out = [row for row in range(len(rows)) if row % HELD_OUT == 0]
        self.model = Classifier(self.corpus.decoder, len(self.names)).to(self.corpus.device)
        self.batches = self._batches()

    def _batches(self) -> list[list[int]]:
        """The labelled texts of each step: as many passes as the steps take."""
        lengths, batches, epoch = [len(self.ids[row]) for row in self.learned], [], 0
        while len(batches) < self.options["steps"]:
            batches += shuffled(lengths, self.options["texts"], self.config.seed, epoch)
            epoch += 1
        return [[self.learned[place] for place in batch] for batch in batches[: self.options["steps"]]]

    def label_loss(self, rows: list[int], drop: float = 0.0) -> Loss:
        """Of some labelled texts, with a share of their tokens left out, so that no single word gives a label away."""
        rng = random.Random(hash(tuple(rows)))  # the same tokens in a resumed run
        ids = [[token for token in self.ids[row] if rng.random() >= drop] or self.ids[row] for row in rows]
        labels = [self.labels[row] for row in rows]
        batch = collate(ids, labels, range(len(rows)), self.tokenizer.end_of_text).to(self.corpus.device)
        with compute_in(self.config.precision, self.corpus.device):
            logits = self.model(batch.input_ids, batch.real)
        return class_loss(logits, batch.labels)

    def loss(self, step: int) -> Loss:
        """Nats per token of the text, and so many times the nats per labelled text."""
        text, told = self.corpus.loss(step), self.label_loss(self.batches[step], self.options["drop"])
        total = text.total / text.weight + self.options["weight"] * told.total / told.weight
        return Loss(total, torch.ones_like(total), told.correct, told.count)

    @torch.no_grad()
    def evaluate(self) -> tuple[dict[str, float], list[float]]:
        """The figures of the held-out text, loss and accuracy on the labelled texts that are not learned from, and as
        the validation loss what is trained: both losses together."""
        metrics, _ = self.corpus.evaluate()
        rows = self.held_out
        parts = [self.label_loss(rows[i : i + 64]) for i in range(0, len(rows), 64)]
        metrics["label_loss"] = sum(float(part.total) for part in parts) / len(rows)
        metrics["label_accuracy"] = sum(int(part.correct) for part in parts) / len(rows)
        metrics["text_loss"] = metrics["validation_loss"]
        metrics["validation_loss"] += self.options["weight"] * metrics["label_loss"]
        return metrics, [-metrics["validation_loss"]]


def teach(base: Path, data: list[str], labels: Path, out: Path, options: dict[str, Any]) -> bool:
    """Runs a round, or goes on with it; False when it was stopped before its end.

    Raises:
        SystemExit: ``out`` holds a round that began otherwise.
    """
    out.mkdir(parents=True, exist_ok=True)
    begins = {"options": options, "base": digest(base / "model.safetensors"), "labels": digest(labels), "data": data}
    begun = out / "begins.json"
    if not begun.exists():
        write(begun, begins)
    elif json.loads(begun.read_text(encoding="utf-8")) != begins:
        sys.exit(f"{out} holds a round of another base, other texts or other options: remove it to begin anew")
    lesson = Lesson(base, data, labels, out, options)
    optimizer = optimizer_of(lesson.config, lesson.model, lesson.corpus.device)
    progress, console = Progress(), Console(stderr=True)
    if has_state(out):
        progress = load_state(out, lesson.model, optimizer, console.print)
    steps = options["steps"]
    settings = LoopSettings(
        epochs=1,
        steps_per_epoch=steps,
        accumulate=1,
        lr=options["lr"],
        warmup=0.03,
        schedule="cosine",
        clip=1.0,
        evaluate_every=steps // EVALUATIONS,
        patience=None,
    )
    with (
        stop_on_interrupt() as stop,
        RunLog(out, steps, console=console, resumed_at=progress.step, sums=progress.sums) as log,
    ):
        train(
            lesson.model,
            optimizer,
            settings,
            batches=lambda epoch: range(steps),
            loss=lesson.loss,
            evaluate=lesson.evaluate,
            describe=lambda step: [f"step {step}"],
            folder=out,
            log=log,
            progress=progress,
            stop=stop,
        )
    if stop.requested:
        return False
    load_best(out, lesson.model, progress.best_step)
    metrics, _ = lesson.evaluate()
    before = json.loads((out / "history.jsonl").read_text(encoding="utf-8").splitlines()[0])
    told = {"before": before["text_loss"], "labels": len(lesson.names), "texts": len(lesson.learned), **metrics}
    told["tokens"] = lesson.config.tokens
    told |= {"held_out_texts": len(lesson.held_out), "finished": True}
    save_language_model(out, lesson.corpus.decoder, lesson.tokenizer, task="base", dtype=torch.bfloat16)
    write(out / "metrics.json", told)
    return True


def write(file: Path, value: dict[str, Any]) -> None:
    """A JSON file, whole or not at all."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(value, indent=1), encoding="utf-8")
    put_in_place(unfinished, file)
