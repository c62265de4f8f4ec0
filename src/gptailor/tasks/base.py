"""Pretraining: text files -> tokens on disk -> next-token loop -> a base model folder."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.optim import AdamW

from gptailor.config import BaseConfig, user_path, with_absolute_paths
from gptailor.data.documents import PASSAGE, DocumentReceipt, identity, read_documents
from gptailor.data.rows import Schedule
from gptailor.data.store import Store, build_store
from gptailor.errors import UserError
from gptailor.evaluate.card import write_base_card
from gptailor.evaluate.report import write_report
from gptailor.model.decoder import Decoder
from gptailor.model.device import choose_device
from gptailor.model.freeze import count_parameters
from gptailor.model.generate import generate
from gptailor.model.precision import in_bf16
from gptailor.show import show_dropped, show_note, visible
from gptailor.tasks.corpus import (
    Corpus,
    Source,
    about_counted,
    batch_loss,
    beginning,
    parse_sources,
    trial_batch,
)
from gptailor.tasks.estimate import Workload
from gptailor.tasks.fit import check_device, keep_weights
from gptailor.tasks.memory import fit_into_memory, within_memory
from gptailor.tasks.run import RunFolder
from gptailor.tasks.tuning import adapter_base, freeze_as
from gptailor.tokenizer import Tokenizer
from gptailor.train.log import RunLog, check_board
from gptailor.train.loop import LoopSettings, StopRequest, train
from gptailor.train.optim import adamw, muon
from gptailor.train.state import Progress, has_state, load_state
from gptailor.weights.base import Base, open_base
from gptailor.weights.folder import save_language_model

USUAL_RATE = {True: 1e-4, False: 1e-3}  # of a pretrained base, of random weights
EVALUATIONS = 20  # in a run, when --evaluate-every is left open
SAMPLE_TOKENS = 40


def run_base(config: BaseConfig, *, resume: bool, console: Console, stop: StopRequest) -> Path:
    """Trains a base model and returns its folder.

    Raises:
        UserError: for files or options that cannot work; of the files' contents, what is unreadable is only reported.
    """
    if config.tensorboard:
        check_board()
    sources = parse_sources(config.data)
    base = open_base(config.base, config.tokenizer)
    config.check_base(pretrained=base.pretrained)
    data = [f"{source.path.resolve()}@{source.weight!r}" for source in sources]
    decided = {"data": data, "lr": config.lr or USUAL_RATE[base.pretrained]}
    config = with_absolute_paths(config.model_copy(update=decided))
    with RunFolder(user_path(config.out or "runs/base"), resume=resume) as run:
        _run(config, base, sources, run, console, stop)
    return run.path


def _run(
    config: BaseConfig, base: Base, sources: list[Source], run: RunFolder, console: Console, stop: StopRequest
) -> None:
    config, work = _into_memory(config, base, sources, run, console)
    files = [{"path": str(source.path.resolve()), "sha256": identity([source.path])[1]} for source in sources]
    if not run.resume:  # a file that gives nothing is told before the folder is taken
        for source in sources:
            next(beginning(source.path, config.text))
    run.claim(config, {"files": files})
    if run.finished:
        console.print("this run is finished already: nothing to resume")
        return
    with run.timed("data"):
        tokenizer = base.tokenizer or _tokenizer(config, sources, run.checkpoints / "tokenizer", console)
        stores = [store_of(config, source, tokenizer, run.checkpoints, console) for source in sources]
    corpus = corpus_of(config, base, tokenizer, stores, [source.weight for source in sources])
    run.write_json("receipt.json", {"files": files, "sources": _receipts(corpus, sources)})
    _show(console, corpus, sources)
    check_device(config, corpus, corpus.decoder, console)
    choices = None if base.pretrained else corpus.decoder.config.vocab_size
    with within_memory(config, work, corpus.device):
        progress = _train(corpus, tokenizer, run, choices, console, stop)
        run.timings["train"] = progress.seconds
        kept = keep_weights(corpus.decoder, run.checkpoints, progress, last=stop.requested and not progress.best_step)
        metrics = _finish(corpus, tokenizer, run, progress, kept, finished=not stop.requested)
    total, trained = count_parameters(corpus.decoder)
    run.write_manifest(
        config, str(corpus.device), files, {"base": config.base, "parameters": total, "trainable": trained}
    )
    write_report(run.path)
    write_base_card(run.path)
    if metrics["finished"] and not config.keep_checkpoints:
        run.remove_checkpoints()


def _into_memory(
    config: BaseConfig, base: Base, sources: list[Source], run: RunFolder, console: Console
) -> tuple[BaseConfig, Workload]:
    """The options with a batch that fits, and what the run takes.

    All batches are of one size, so that it can be tried before the files are read: on random weights of the same shape.
    """
    vocab_size = base.tokenizer.vocab_size if base.tokenizer else config.vocab
    shape = base.config if base.pretrained else replace(base.config, vocab_size=vocab_size)
    device, decoder = choose_device(config.device), Decoder(shape).initialize()
    depth = freeze_as(config, decoder)
    decoder.to(device)
    groups = optimizer_of(config, decoder, device).param_groups
    work = Workload(
        shape,
        [shape.context_length] * (config.batch_size * config.accumulate),
        depth,
        trained=count_parameters(decoder)[1],
        speaks=True,
        single=sum(p.numel() for group in groups if group.get("orthogonal") for p in group["params"]),
        counted=about_counted(sources, config.tokens) if device.type == "cpu" else 0,
    )

    def trial(n_rows: int) -> Tensor:
        batch = trial_batch(n_rows, shape.context_length).to(device)
        return batch_loss(decoder, batch, config.precision).total

    return fit_into_memory(config, run, work, device, decoder, trial, console), work


def _tokenizer(config: BaseConfig, sources: list[Source], folder: Path, console: Console) -> Tokenizer:
    """A new tokenizer from the beginning of each file, or the one that an interrupted run has left."""
    if folder.exists():
        return Tokenizer.load(folder)
    with console.status("training a tokenizer"):
        texts = chain.from_iterable(beginning(source.path, config.text) for source in sources)
        tokenizer = Tokenizer.train(texts, config.vocab)
    unfinished = folder.with_name("tokenizer.unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    tokenizer.save(unfinished, context_length=1)
    unfinished.rename(folder)
    return tokenizer


def store_of(config: BaseConfig, source: Source, tokenizer: Tokenizer, folder: Path, console: Console) -> Store:
    """The tokens of a file: those that ``folder`` keeps from an earlier call, or encoded now."""
    inputs, receipt = identity([source.path], text=config.text), DocumentReceipt()
    documents = read_documents(source.path, receipt, text=config.text)
    place = folder / "tokens" / inputs[1][:16]
    place.parent.mkdir(exist_ok=True)
    with console.status(f"encoding {visible(source.path.name)}"):
        return build_store(place, documents, tokenizer, config.held_out, config.seed, inputs=inputs, receipt=receipt)


def corpus_of(
    config: BaseConfig, base: Base, tokenizer: Tokenizer, stores: list[Store], weights: list[float]
) -> Corpus:
    """All files together and the model that is to learn them; raises ``UserError`` where nothing is held out."""
    if not any(store.held_out.tokens > store.held_out.documents for store in stores):
        documents = sum(store.train.documents for store in stores)
        found = f"none of the {documents} documents is held out to measure on"
        raise UserError(
            found, hint=f"a larger --held-out; a plain text needs more than {PASSAGE:,} characters to be held out from"
        )
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    decoder = base.load(tokenizer)
    adapter_on = adapter_base(config, decoder)
    freeze_as(config, decoder.to(device))
    context = decoder.config.context_length
    per_step = config.batch_size * config.accumulate
    n_batches = config.accumulate * max(1, -(-config.tokens // (per_step * context)))
    counts = [store.train.tokens for store in stores]
    schedule = Schedule(counts, weights, context, config.batch_size, n_batches, config.seed)
    return Corpus(config, decoder, stores, schedule, device, adapter_on)


def _receipts(corpus: Corpus, sources: list[Source]) -> list[dict[str, Any]]:
    """What became of each file, and how often the whole run goes through it."""
    return [
        {
            **store.receipt,
            "weight": source.weight,
            "passes": passes,
            "train": asdict(store.train),
            "held_out": asdict(store.held_out),
        }
        for source, store, passes in zip(sources, corpus.stores, corpus.schedule.passes, strict=True)
    ]


def _show(console: Console, corpus: Corpus, sources: list[Source]) -> None:
    """The receipt of the documents, and how often each file is gone through."""
    table = Table("file", box=None, pad_edge=False, header_style="dim")
    for column in ("documents", "tokens", "held out", "left out", "passes"):
        table.add_column(column, justify="right")
    for source, store, passes in zip(sources, corpus.stores, corpus.schedule.passes, strict=True):
        dropped = sum(entry["count"] for entry in store.receipt["files"][0]["dropped"])
        numbers = (store.train.documents, store.train.tokens, store.held_out.documents, dropped)
        table.add_row(visible(source.path.name), *(f"{number:,}" for number in numbers), f"{passes:.2f}")
    console.print(table)
    for store in corpus.stores:
        show_dropped(console, store.receipt["files"][0])
    total, _ = count_parameters(corpus.decoder)
    config, steps = corpus.config, len(corpus.schedule) // corpus.config.accumulate
    tokens = len(corpus.schedule) * config.batch_size * corpus.context_length
    products = "bf16" if in_bf16(config.precision, corpus.device) else "fp32"
    told = f"{total:,} parameters, {steps:,} steps, {tokens:,} tokens, on {corpus.device} in {products}, "
    told += f"rate {config.lr:g}"
    console.print(f"[bold]{visible(config.base)}[/]: {told}", highlight=False)


def optimizer_of(config: BaseConfig, model: nn.Module, device: torch.device) -> AdamW:
    """The optimizer that the options name, for every trainable weight of ``model``."""
    assert config.lr
    if config.optimizer == "muon":
        return muon(model, config.lr, config.weight_decay, bf16=in_bf16(config.precision, device))
    return adamw(model, config.lr, config.weight_decay)


def _train(
    corpus: Corpus, tokenizer: Tokenizer, run: RunFolder, choices: int | None, console: Console, stop: StopRequest
) -> Progress:
    config = corpus.config
    assert config.lr
    optimizer, progress = optimizer_of(config, corpus.decoder, corpus.device), Progress()
    if has_state(run.checkpoints):
        progress = load_state(run.checkpoints, corpus.decoder, optimizer, lambda text: show_note(console, text))
    steps = len(corpus.schedule) // config.accumulate
    settings = LoopSettings(
        epochs=1,
        steps_per_epoch=steps,
        accumulate=config.accumulate,
        lr=config.lr,
        warmup=config.warmup,
        schedule=config.schedule,
        clip=config.clip,
        evaluate_every=config.evaluate_every or max(1, steps // EVALUATIONS),
        patience=None,
    )

    def evaluate() -> tuple[dict[str, float], list[float]]:
        metrics, score = corpus.evaluate()
        ids = tokenizer.encode(config.sample)
        new = generate(corpus.decoder, ids, max_new_tokens=SAMPLE_TOKENS, end_of_text=tokenizer.end_of_text)
        told = config.sample + tokenizer.decode(new)
        console.print(visible(" ".join(told.split())), style="dim", highlight=False)
        run.add_sample(progress.step, told)
        return metrics, score

    how = {"console": console, "tensorboard": config.tensorboard, "unit": "tokens"}
    with RunLog(run.path, steps, resumed_at=progress.step, sums=progress.sums, **how) as log:
        return train(
            corpus.decoder,
            optimizer,
            settings,
            batches=lambda epoch: range(len(corpus.schedule)),
            loss=corpus.loss,
            evaluate=evaluate,
            describe=corpus.describe,
            choices=choices,
            folder=run.checkpoints,
            log=log,
            progress=progress,
            stop=stop,
        )


def _finish(
    corpus: Corpus, tokenizer: Tokenizer, run: RunFolder, progress: Progress, kept: dict[str, Any], *, finished: bool
) -> dict[str, Any]:
    """Measures the weights that are kept and writes the folder."""
    with run.timed("evaluate"):
        measured, _ = corpus.evaluate()
        baselines = corpus.baselines()
    dtype = torch.bfloat16 if corpus.config.save_in == "bf16" else torch.float32
    save_language_model(run.path, corpus.decoder, tokenizer, task="base", dtype=dtype, adapter_on=corpus.adapter_on)
    seen = progress.step * corpus.config.accumulate * corpus.config.batch_size * corpus.context_length
    held_out = {
        "documents": sum(store.held_out.documents for store in corpus.stores),
        "tokens": sum(store.held_out.tokens for store in corpus.stores),
        "bytes": sum(store.held_out.bytes for store in corpus.stores),
    }
    metrics = {
        "task": "base",
        "finished": finished,
        "kept": kept,
        **measured,
        "baselines": baselines,
        "held_out": held_out,
        "tokens_seen": seen,
    }
    run.write_metrics(metrics)
    return metrics
