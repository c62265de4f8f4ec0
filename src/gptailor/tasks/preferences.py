"""From pairs of answers to a model that prefers the better one: configuration -> pairs -> tokens -> loop -> answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from gptailor.config import PreferencesConfig, load_config, user_path, with_absolute_paths
from gptailor.data.batching import shuffled
from gptailor.data.encoding import prompt_ids
from gptailor.data.inputs import read_parts
from gptailor.data.instruction import arrange
from gptailor.data.packing import collate_records
from gptailor.data.preference import Pair, collect_pairs, encode_pairs
from gptailor.data.receipt import PreferenceReceipt
from gptailor.data.templates import Template, open_template
from gptailor.errors import UserError
from gptailor.evaluate.card import write_preferences_card
from gptailor.evaluate.metrics import accuracy_with_interval
from gptailor.model.decoder import Decoder
from gptailor.model.freeze import count_parameters, frozen_depth
from gptailor.model.precision import compute_in, in_bf16
from gptailor.model.together import by_length, tokens_at_once
from gptailor.show import show_pairs
from gptailor.tasks.answers import answer
from gptailor.tasks.estimate import Workload
from gptailor.tasks.fit import check_device, fit
from gptailor.tasks.memory import fit_into_memory
from gptailor.tasks.run import RunFolder, run_here
from gptailor.tasks.tailored import begin
from gptailor.tokenizer import Tokenizer
from gptailor.train.log import check_board
from gptailor.train.loop import StopRequest
from gptailor.train.losses import Loss
from gptailor.train.preference import (
    START,
    START_HALF,
    PairLosses,
    answer_log_probabilities,
    check_start,
    dpo,
    ipo,
    orpo,
    read_reference,
    save_reference,
    simpo,
)
from gptailor.train.state import Progress
from gptailor.weights.base import Base, open_base

EVALUATIONS = 4  # in an epoch, when --evaluate-every is left open
REFERENCE = "reference.safetensors"


@dataclass
class Prepared:
    """All that is decided before training, and the pairs with their tokens by part."""

    config: PreferencesConfig
    base: Base
    tokenizer: Tokenizer
    template: Template
    parts: dict[str, list[Pair]]
    receipt: PreferenceReceipt


def prepare(config: PreferencesConfig) -> Prepared:
    """Reads, checks, splits and encodes the pairs; nothing is trained or written.

    Raises:
        UserError: for anything in data or options that cannot work.
    """
    base = open_base(config.base, config.tokenizer)
    template = _template(config, base)
    config = config.for_base(pretrained=base.pretrained, n_layer=base.config.n_layer)
    context, receipt = base.config.context_length, PreferenceReceipt()
    if (config.max_length or 0) > context:
        expected = f"at most {context}, the context of {base.name}"
        raise UserError(f"--max-length {config.max_length}", expected=expected)
    tables, _ = read_parts(config, receipt)
    given = {part: collect_pairs(files, receipt, tolerance=config.tolerance) for part, files in tables.items()}
    shares = {"validation_share": config.validation_share, "test_share": config.test_share}
    parts = arrange(given, receipt, split=config.split, seed=config.seed, **shares)
    sides = (side for pair in parts["train"] for side in pair.sides)
    tokenizer = base.tokenizer or Tokenizer.train(
        (segment.text for side in sides for segment in template.segments(side.messages)), config.vocab
    )
    how: dict[str, Any] = {"overlong": config.overlong, "tolerance": config.tolerance}
    parts = encode_pairs(parts, template, tokenizer, config.max_length or context, receipt, **how)
    return Prepared(config, base, tokenizer, template, parts, receipt)


def _template(config: PreferencesConfig, base: Base) -> Template:
    """How the base was taught to be asked, where it says so: another way would make it another model."""
    if base.template is None:
        return open_template(config.template or "alpaca")
    own = open_template(base.template)
    if config.template is not None and open_template(config.template).source != own.source:
        found = f"--template {config.template}, but {config.base} was taught with another one"
        raise UserError(found, hint=f"leave --template out: it is taken from {base.template.name} of the base")
    return own


class PairLesson:
    """The pairs as the loop wants them: batches, losses, figures."""

    def __init__(self, prepared: Prepared, decoder: Decoder, device: torch.device) -> None:
        self.prepared, self.config, self.parts = prepared, prepared.config, prepared.parts
        self.decoder, self.device = decoder, device
        self.reference: dict[str, Tensor] = {}  # (N, 2) of each part: what the base gives chosen and rejected answers

    def epoch(self, number: int) -> list[list[int]]:
        """The training pairs of each batch of an epoch."""
        lengths = [pair.n_inputs for pair in self.parts["train"]]
        return shuffled(lengths, self.config.batch_size, self.config.seed, number)

    @property
    def work(self) -> Workload:
        """What training on them takes."""
        lengths = [pair.n_inputs for pair in self.parts["train"]]
        depth, trained = frozen_depth(self.decoder), count_parameters(self.decoder)[1]
        return Workload(self.decoder.config, lengths, depth, trained, speaks=True, sides=2)

    def trial(self, n_rows: int) -> Tensor:
        """What the loss of the longest training pairs is made of."""
        pairs = self.parts["train"]
        rows = sorted(range(len(pairs)), key=lambda row: -pairs[row].n_inputs)[:n_rows]
        return self.log_probabilities("train", rows)[0].sum()

    def describe(self, rows: list[int]) -> list[str]:
        """File and line of each pair of a batch."""
        return [self.parts["train"][row].where for row in rows]

    def loss(self, rows: list[int]) -> Loss:
        """The summed loss of some training pairs."""
        losses, margins = self.pair_losses("train", rows, *self.log_probabilities("train", rows))
        return Loss(losses.sum(), losses.new_tensor(float(len(rows))), (margins > 0).sum(), len(rows))

    def log_probabilities(self, part: str, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Sums over the answers (B, 2), chosen and rejected, and how many tokens they are of (B, 2)."""
        pairs = [self.parts[part][row] for row in rows]
        sides = [[pair.chosen] for pair in pairs] + [[pair.rejected] for pair in pairs]
        batch = collate_records(sides, self.prepared.tokenizer.end_of_text).to(self.device)
        with compute_in(self.config.precision, self.device):
            hidden = self.decoder(batch.input_ids)  # the causal mask hides the padding, which comes last
            sums, counts = answer_log_probabilities(hidden, self.decoder.token_embedding.weight, batch.labels)
        return sums.view(2, -1).T, counts.view(2, -1).T

    def pair_losses(self, part: str, rows: list[int], sums: Tensor, counts: Tensor) -> PairLosses:
        """The losses and margins of some pairs from ``log_probabilities``."""
        config = self.config
        assert config.beta is not None
        means = (sums / counts).unbind(1)
        if config.loss == "orpo":
            return orpo(*means, beta=config.beta)
        if config.loss == "simpo":
            assert config.gamma is not None
            return simpo(*means, beta=config.beta, gamma=config.gamma)
        policy, reference = sums.unbind(1), self.reference[part][rows].to(self.device).unbind(1)
        if config.loss == "ipo":
            return ipo(*policy, *reference, beta=config.beta)
        return dpo(*policy, *reference, beta=config.beta, smoothing=config.smoothing)

    @torch.no_grad()
    def all_log_probabilities(self, part: str) -> tuple[Tensor, Tensor]:
        """``log_probabilities`` (N, 2) of a whole part."""
        self.decoder.eval()
        pairs = self.parts[part]
        sums, counts = torch.empty(len(pairs), 2, device=self.device), torch.empty(len(pairs), 2, device=self.device)
        for rows in by_length([2 * pair.n_inputs for pair in pairs], tokens_at_once(self.device)):
            sums[rows], counts[rows] = (figures.float() for figures in self.log_probabilities(part, rows))
        return sums, counts

    def measure(self, part: str) -> dict[str, Any]:
        """Mean loss and margin over a whole part; how many pairs are told right, and which share that is."""
        sums, counts = self.all_log_probabilities(part)
        losses, margins = self.pair_losses(part, list(range(len(sums))), sums, counts)
        right = accuracy_with_interval(int((margins > 0).sum()), len(margins))
        return {"loss": float(losses.mean()), "margin": float(margins.mean()), **right, "likelier": likelier(sums)}

    def keep_reference(self, file: Path) -> None:
        """What the base gives the answers of all parts: computed once, before anything is trained, and kept.

        Raises:
            UserError: the file cannot be read, or the model is not the one that it came from.
        """
        if not file.exists():
            save_reference(file, {part: self.all_log_probabilities(part)[0].cpu() for part in self.parts})
        self.reference = read_reference(file, {part: len(pairs) for part, pairs in self.parts.items()})
        if self.config.loss == "dpo":
            rows = self.epoch(0)[0]
            with torch.no_grad():
                tolerance = START_HALF if in_bf16(self.config.precision, self.device) else START
                check_start(*self.pair_losses("train", rows, *self.log_probabilities("train", rows)), tolerance)


def likelier(sums: Tensor) -> dict[str, Any]:
    """How often the chosen answer is likelier than the rejected one, from ``log_probabilities`` (N, 2)."""
    return accuracy_with_interval(int((sums[:, 0] > sums[:, 1]).sum()), len(sums))


def by_length_alone(prepared: Prepared) -> dict[str, Any]:
    """How many test pairs length alone tells right: always the longer one, or the shorter, as training has it."""
    ahead = {part: [_length_ahead(pair) for pair in pairs] for part, pairs in prepared.parts.items()}
    sign = 1 if sum(one > 0 for one in ahead["train"]) >= sum(one < 0 for one in ahead["train"]) else -1
    right = accuracy_with_interval(sum(sign * one > 0 for one in ahead["test"]), len(ahead["test"]))
    return {"takes": "longer" if sign > 0 else "shorter", **right}


def _length_ahead(pair: Pair) -> int:
    """By how many tokens the chosen answer is longer."""
    return len(pair.chosen.ids) - len(pair.rejected.ids)


def train_preferences(data: str | Path, *, resume: bool = False, quiet: bool = False, **options: Any) -> Path:
    """Trains a model to prefer better answers and returns its folder; the same as ``gptailor train preferences``.

    Args:
        data: a file of pairs, or a folder with train, validation and test files.
        resume: continue the run in ``out``.
        quiet: print nothing.
        options: those of ``PreferencesConfig``, such as ``base="runs/helper"``, ``loss="simpo"``, ``beta=0.2``.

    Raises:
        UserError: for anything in data or options that cannot work; nothing is written then.
    """
    config = load_config(PreferencesConfig, None, {"data": str(data), **options})
    return run_here(run_preferences, config, resume=resume, quiet=quiet)


def run_preferences(config: PreferencesConfig, *, resume: bool, console: Console, stop: StopRequest) -> Path:
    """Trains one model on pairs, lets it answer the test prompts, and returns the folder.

    Raises:
        UserError: before anything is written, for what cannot work.
    """
    if config.tensorboard:
        check_board()
    config = with_absolute_paths(config)
    folder = user_path(config.out or str(Path("runs") / Path(config.data).name.split(".")[0]))
    with RunFolder(folder, resume=resume) as run:
        _run(config, run, console, stop)
    return folder


def _run(config: PreferencesConfig, run: RunFolder, console: Console, stop: StopRequest) -> None:
    with run.timed("data"), console.status("reading the data"):
        prepared = prepare(config)
    config, receipt = prepared.config, prepared.receipt.to_dict()
    tailored = begin(config, prepared.base, prepared.tokenizer, prepared.template)
    lesson = PairLesson(prepared, tailored.decoder, tailored.device)
    config = fit_into_memory(config, run, lesson.work, lesson.device, lesson.decoder, lesson.trial, console)
    tailored.config = lesson.config = config
    run.claim(config, receipt)
    if run.finished:
        console.print("this run is finished already: nothing to resume")
        return
    show_pairs(console, receipt)
    tailored.show(console)
    check_device(config, lesson, lesson.decoder, console)
    with run.timed("reference"), console.status("the base reads the answers"):
        lesson.keep_reference(run.checkpoints / REFERENCE)
    with run.timed("base answers"):
        before = _answers(lesson, run.checkpoints / "base.jsonl", console, "the base answers the test prompts")
    progress, kept = _fit(lesson, run, console, stop)
    run.timings["train"] = progress.seconds
    metrics: dict[str, Any] = {"task": "preferences", "finished": not stop.requested, "kept": kept}
    if not stop.requested:
        with run.timed("answers"):
            after = _answers(lesson, run.checkpoints / "tuned.jsonl", console, "answering the test prompts")
            metrics |= {"test": lesson.measure("test"), "base": {"likelier": likelier(lesson.reference["test"])}}
        changed = sum(tuned != base for tuned, base in zip(after, before, strict=True))
        metrics |= {"length": by_length_alone(prepared), "answers": {"n": len(after), "changed": changed}}
        run.write_json("responses.json", _side_by_side(prepared, before, after))
    tailored.save(run, metrics, receipt["files"], write_preferences_card)


def _answers(lesson: PairLesson, file: Path, console: Console, told: str) -> list[str]:
    """What the model as it is says to the first test prompts."""
    prepared = lesson.prepared
    asked = [pair.chosen.question for pair in prepared.parts["test"][: lesson.config.answers]]
    return answer(
        lesson.decoder,
        prepared.tokenizer,
        prompt_ids(asked, prepared.template, prepared.tokenizer),
        max_new_tokens=lesson.config.max_new_tokens,
        stop=[prepared.template.closing] if prepared.template.closing else [],
        kept=file,
        console=console,
        told=told,
    )


def _side_by_side(prepared: Prepared, before: list[str], after: list[str]) -> list[dict[str, Any]]:
    """The test pairs with what the tuned model and its base said."""
    rows = zip(prepared.parts["test"], after, before, strict=False)
    return [{**pair.as_row(), "model_response": tuned, "base_response": base} for pair, tuned, base in rows]


def _fit(lesson: PairLesson, run: RunFolder, console: Console, stop: StopRequest) -> tuple[Progress, dict[str, Any]]:
    """Trains, and leaves the weights to keep in the decoder: those with the smallest validation loss.

    Not those that tell the most pairs right: a small validation part has few different accuracies, and the one before
    the first step, where all margins are 0, is an accident.
    """
    config = lesson.config

    def evaluate() -> tuple[dict[str, float], list[float]]:
        figures = lesson.measure("validation")
        return {f"validation_{name}": figures[name] for name in ("loss", "margin", "accuracy")}, [-figures["loss"]]

    steps = -(-len(lesson.epoch(0)) // config.accumulate)
    return fit(
        lesson.decoder,
        config,
        batches=lesson.epoch,
        loss=lesson.loss,
        evaluate=evaluate,
        describe=lesson.describe,
        choices=None,
        work=lesson.work,
        evaluate_every=config.evaluate_every or -(-steps // EVALUATIONS),
        folder=run.path,
        checkpoints=run.checkpoints,
        console=console,
        stop=stop,
        unit="pairs",
    )
