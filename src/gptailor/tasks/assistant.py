"""From instructions to an assistant: configuration -> records -> tokens -> loop -> answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from gptailor.config import AssistantConfig, load_config, user_path, with_absolute_paths
from gptailor.data.batching import shuffled
from gptailor.data.encoding import encode, prompt_ids
from gptailor.data.inputs import read_parts
from gptailor.data.instruction import Record, arrange, collect
from gptailor.data.packing import collate_records, pack
from gptailor.data.receipt import InstructionReceipt
from gptailor.data.templates import Template, open_template
from gptailor.errors import UserError
from gptailor.evaluate.answers import reference_differences, reference_metrics, reference_scores
from gptailor.evaluate.card import write_assistant_card
from gptailor.model.decoder import Decoder, document_mask
from gptailor.model.freeze import count_parameters, frozen_depth
from gptailor.model.generate import generate_batch
from gptailor.model.precision import compute_in
from gptailor.show import show_instructions, visible
from gptailor.tasks.answers import answer
from gptailor.tasks.estimate import Workload
from gptailor.tasks.fit import check_device, fit
from gptailor.tasks.memory import fit_into_memory
from gptailor.tasks.run import RunFolder, run_here
from gptailor.tasks.tailored import begin
from gptailor.tokenizer import Tokenizer
from gptailor.train.log import check_board
from gptailor.train.loop import StopRequest
from gptailor.train.losses import Loss, next_token_loss
from gptailor.train.state import Progress
from gptailor.weights.base import Base, open_base

EVALUATIONS = 4  # in an epoch, when --evaluate-every is left open
SHOWN_TOKENS = 60  # of the answer that is shown at each evaluation


@dataclass
class Prepared:
    """All that is decided before training, and the records with their tokens by part."""

    config: AssistantConfig
    base: Base
    tokenizer: Tokenizer
    template: Template
    parts: dict[str, list[Record]]
    receipt: InstructionReceipt
    max_length: int


def prepare(config: AssistantConfig) -> Prepared:
    """Reads, checks, splits and encodes the records; nothing is trained or written.

    Raises:
        UserError: for anything in data or options that cannot work.
    """
    base = open_base(config.base, config.tokenizer)
    template = open_template(config.template or base.template or "alpaca")
    config = config.for_base(pretrained=base.pretrained, n_layer=base.config.n_layer)
    context, receipt = base.config.context_length, InstructionReceipt()
    if (config.max_length or 0) > context:
        expected = f"at most {context}, the context of {base.name}"
        raise UserError(f"--max-length {config.max_length}", expected=expected)
    tables, _ = read_parts(config, receipt)
    given = {
        part: collect(files, receipt, keep_empty=config.keep_empty, tolerance=config.tolerance)
        for part, files in tables.items()
    }
    shares = {"validation_share": config.validation_share, "test_share": config.test_share}
    parts = arrange(given, receipt, split=config.split, seed=config.seed, **shares)
    tokenizer = base.tokenizer or Tokenizer.train(
        (segment.text for record in parts["train"] for segment in template.segments(record.messages)), config.vocab
    )
    max_length = config.max_length or context
    how: dict[str, Any] = {"learn": config.learn, "overlong": config.overlong, "tolerance": config.tolerance}
    parts = encode(parts, template, tokenizer, max_length, receipt, **how)
    return Prepared(config, base, tokenizer, template, parts, receipt, max_length)


class Lesson:
    """The records as the loop wants them: batches, losses, figures."""

    def __init__(self, prepared: Prepared, decoder: Decoder, device: torch.device) -> None:
        self.prepared, self.config = prepared, prepared.config
        self.decoder, self.device = decoder, device
        self.train = prepared.parts["train"]
        self.lengths = [record.n_inputs for record in self.train]
        # With packing the rows stay the same in every epoch and only their order changes.
        self.rows = (
            pack(self.lengths, prepared.max_length) if self.config.pack else [[i] for i in range(len(self.train))]
        )

    def epoch(self, number: int) -> list[list[list[Record]]]:
        """The batches of an epoch, each some rows of some records."""
        totals = [sum(self.lengths[record] for record in row) for row in self.rows]
        batches = shuffled(totals, self.config.batch_size, self.config.seed, number)
        return [[[self.train[record] for record in self.rows[place]] for place in batch] for batch in batches]

    def loss(self, rows: list[list[Record]]) -> Loss:
        """The summed loss of a batch over its learned tokens."""
        batch = collate_records(rows, self.prepared.tokenizer.end_of_text).to(self.device)
        alone = all(len(row) == 1 for row in rows)  # then the causal mask hides the padding, which comes last
        mask = None if alone else document_mask(batch.documents)
        with compute_in(self.config.precision, self.device):
            hidden = self.decoder(batch.input_ids, None if alone else batch.positions, mask)
            return next_token_loss(hidden, self.decoder.token_embedding.weight, batch.labels)

    @property
    def work(self) -> Workload:
        """What training on them takes."""
        totals = [sum(self.lengths[record] for record in row) for row in self.rows]
        depth, trained = frozen_depth(self.decoder), count_parameters(self.decoder)[1]
        return Workload(self.decoder.config, totals, depth, trained, speaks=True)

    def trial(self, n_rows: int) -> Tensor:
        """The loss of the longest training rows."""
        rows = sorted(self.rows, key=lambda row: -sum(self.lengths[record] for record in row))[:n_rows]
        return self.loss([[self.train[record] for record in row] for row in rows]).total

    def describe(self, rows: list[list[Record]]) -> list[str]:
        """File and line of each record of a batch."""
        return [record.where for row in rows for record in row]

    @torch.no_grad()
    def measure(self, part: str) -> dict[str, float]:
        """Loss in nats per learned token over a whole part, and its perplexity; the batch size does not matter."""
        records = sorted(self.prepared.parts[part], key=lambda record: record.n_inputs)
        size = self.config.batch_size
        losses = [self.loss([[record] for record in records[i : i + size]]) for i in range(0, len(records), size)]
        loss = sum(float(one.total) for one in losses) / sum(one.count for one in losses)
        return {"loss": loss, "perplexity": math.exp(min(loss, 700))}


def train_assistant(data: str | Path, *, resume: bool = False, quiet: bool = False, **options: Any) -> Path:
    """Trains an assistant and returns its folder; the same as ``gptailor train assistant``.

    Args:
        data: a file of instructions or conversations, or a folder with train, validation and test files.
        resume: continue the run in ``out``.
        quiet: print nothing.
        options: those of ``AssistantConfig``, such as ``base="gpt2-medium"``, ``out="runs/mine"``, ``epochs=2``.

    Raises:
        UserError: for anything in data or options that cannot work; nothing is written then.
    """
    config = load_config(AssistantConfig, None, {"data": str(data), **options})
    return run_here(run_assistant, config, resume=resume, quiet=quiet)


def run_assistant(config: AssistantConfig, *, resume: bool, console: Console, stop: StopRequest) -> Path:
    """Trains one assistant, lets it answer the test records, and returns the folder.

    Raises:
        UserError: before anything is written, for what cannot work.
    """
    if config.tensorboard:
        check_board()
    reference_scores([], [])  # says before the training, and not after it, that a library is not there
    config = with_absolute_paths(config)
    folder = user_path(config.out or str(Path("runs") / Path(config.data).name.split(".")[0]))
    with RunFolder(folder, resume=resume) as run:
        _run(config, run, console, stop)
    return folder


def _run(config: AssistantConfig, run: RunFolder, console: Console, stop: StopRequest) -> None:
    with run.timed("data"), console.status("reading the data"):
        prepared = prepare(config)
    config, receipt = prepared.config, prepared.receipt.to_dict()
    tailored = begin(config, prepared.base, prepared.tokenizer, prepared.template)
    lesson = Lesson(prepared, tailored.decoder, tailored.device)
    config = fit_into_memory(config, run, lesson.work, lesson.device, lesson.decoder, lesson.trial, console)
    tailored.config = lesson.config = config
    run.claim(config, receipt)
    if run.finished:
        console.print("this run is finished already: nothing to resume")
        return
    show_instructions(console, receipt)
    tailored.show(console)
    check_device(config, lesson, lesson.decoder, console)
    with run.timed("base answers"):
        before = _judged(lesson, run.checkpoints / "base.jsonl", console, "the base answers the test records")
    progress, kept = _fit(lesson, run, console, stop)
    run.timings["train"] = progress.seconds
    metrics: dict[str, Any] = {"task": "assistant", "finished": not stop.requested, "kept": kept}
    if not stop.requested:
        with run.timed("answers"):
            after = _judged(lesson, run.checkpoints / "tuned.jsonl", console, "answering the test records")
        references = [record.answer for record in prepared.parts["test"][: config.answers]]
        difference = reference_differences(references, after.answers, before.answers)
        metrics |= {"test": after.figures, "base": before.figures, "difference": difference}
        run.write_json("responses.json", _side_by_side(prepared, before.answers, after.answers))
    tailored.save(run, metrics, receipt["files"], write_assistant_card)


@dataclass
class _Judged:
    answers: list[str]
    figures: dict[str, Any]


def _judged(lesson: Lesson, file: Path, console: Console, told: str) -> _Judged:
    """Answers to the first test records, and how near they come to the references; the loss is of all test records."""
    prepared = lesson.prepared
    asked = prepared.parts["test"][: lesson.config.answers]
    prompts = prompt_ids([record.question for record in asked], prepared.template, prepared.tokenizer)
    answers = answer(
        lesson.decoder,
        prepared.tokenizer,
        prompts,
        max_new_tokens=lesson.config.max_new_tokens,
        stop=[prepared.template.closing] if prepared.template.closing else [],
        kept=file,
        console=console,
        told=told,
    )
    references = [record.answer for record in asked]
    return _Judged(answers, {**lesson.measure("test"), "answers": reference_metrics(references, answers)})


def _side_by_side(prepared: Prepared, before: list[str], after: list[str]) -> list[dict[str, Any]]:
    """The test records with what the tuned model and its base said."""
    rows = [record.as_row() for record in prepared.parts["test"]]
    return [
        {**row, "model_response": tuned, "base_response": base}
        for row, tuned, base in zip(rows, after, before, strict=False)
    ]


def _show_sample(lesson: Lesson, record: Record, console: Console) -> None:
    """What the model answers to a record now."""
    prepared, tokenizer = lesson.prepared, lesson.prepared.tokenizer
    (said,) = generate_batch(
        lesson.decoder,
        prompt_ids([record.question], prepared.template, tokenizer),
        max_new_tokens=SHOWN_TOKENS,
        end_of_text=tokenizer.end_of_text,
    )
    asked = " ".join(filter(None, (record.question[-1].content, record.question[-1].input)))
    console.print(visible(" ".join(f"{asked} -> {tokenizer.decode(said.ids)}".split())), style="dim", highlight=False)


def _fit(lesson: Lesson, run: RunFolder, console: Console, stop: StopRequest) -> tuple[Progress, dict[str, Any]]:
    """Trains, and leaves the weights to keep in the decoder."""
    config, sample = lesson.config, lesson.prepared.parts["validation"][0]

    def evaluate() -> tuple[dict[str, float], list[float]]:
        figures = lesson.measure("validation")
        _show_sample(lesson, sample, console)
        return {"validation_loss": figures["loss"], "validation_perplexity": figures["perplexity"]}, [-figures["loss"]]

    steps = -(-len(lesson.epoch(0)) // config.accumulate)
    return fit(
        lesson.decoder,
        config,
        batches=lesson.epoch,
        loss=lesson.loss,
        evaluate=evaluate,
        describe=lesson.describe,
        choices=None if lesson.prepared.base.pretrained else lesson.decoder.config.vocab_size,
        work=lesson.work,
        evaluate_every=config.evaluate_every or -(-steps // EVALUATIONS),
        folder=run.path,
        checkpoints=run.checkpoints,
        console=console,
        stop=stop,
        unit="tokens",
    )
