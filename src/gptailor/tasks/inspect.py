"""``gptailor inspect``: what a training run would see and need, without training."""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console
from torch import nn

from gptailor.config import AssistantConfig, ClassifierConfig, TableConfig
from gptailor.evaluate.format import duration
from gptailor.model.decoder import Decoder
from gptailor.model.device import choose_device
from gptailor.model.freeze import count_parameters
from gptailor.model.head import Classifier
from gptailor.model.precision import in_bf16
from gptailor.show import show_instructions, show_learned, show_pieces, show_plan, show_receipt
from gptailor.tasks import assistant
from gptailor.tasks.estimate import Workload, matrix_speed
from gptailor.tasks.memory import gib
from gptailor.tasks.prepare import Prepared, prepare
from gptailor.tasks.tuning import freeze_as

SHOWN = 5
READ_AT = {"last": -1, "last-position": -1, "last+mean": -1, "first": 0}


def inspect_classifier(config: ClassifierConfig, console: Console) -> None:
    """Prints the data receipt, some training texts in tokens, and an estimate of time and memory.

    Raises:
        UserError: for what a training run would refuse.
    """
    prepared = prepare(config)
    show_receipt(console, prepared.receipt.to_dict())
    console.print()
    _show_examples(prepared, console)
    console.print()
    _show_estimate(prepared, console)


def inspect_assistant(config: AssistantConfig, console: Console, *, ids: bool) -> None:
    """Prints the data receipt and some training records in tokens, those that are learned in colour.

    Args:
        ids: show the number of each token too.

    Raises:
        UserError: for what a training run would refuse.
    """
    prepared = assistant.prepare(config)
    show_instructions(console, prepared.receipt.to_dict())
    records = sorted(prepared.parts["train"], key=lambda record: record.n_inputs)
    console.print(f"\n[bold]Training records as the model sees them[/], template {prepared.template.name}")
    for place in np.linspace(0, len(records) - 1, min(SHOWN, len(records))).astype(int):
        record = records[place]
        pieces = prepared.tokenizer.pieces(record.ids.tolist())
        show_learned(console, record.where, pieces, record.learned.tolist(), record.ids.tolist() if ids else None)
    console.print()
    with torch.device("meta"):
        decoder = Decoder(prepared.base.shape_with(prepared.tokenizer))
        freeze_as(prepared.config, decoder)
    lesson = assistant.Lesson(prepared, decoder, torch.device("meta"))
    _show_workload(prepared.config, lesson.work, decoder, console)


def _show_examples(prepared: Prepared, console: Console) -> None:
    """Texts from all over the length range, the longest last, with the token that the class is read from marked."""
    examples, ids = prepared.parts["train"], prepared.ids("train")
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    chosen = [order[int(place)] for place in np.linspace(0, len(order) - 1, min(SHOWN, len(order)))]
    read = READ_AT.get(prepared.config.read)
    console.print(f"[bold]Training texts as the model sees them[/], read from: {prepared.config.read}")
    for row in chosen:
        pieces = prepared.tokenizer.pieces(ids[row])
        show_pieces(
            console, examples[row].label, examples[row].where, pieces, None if read is None else read % len(pieces)
        )


def _show_estimate(prepared: Prepared, console: Console) -> None:
    config = prepared.config
    shape = prepared.model_config()
    with torch.device("meta"):
        model = Classifier(Decoder(shape), len(prepared.names))
        depth = freeze_as(config, model)
    lengths = [max(len(text), prepared.width or 0) for text in prepared.ids("train")]
    _show_workload(config, Workload(shape, lengths, depth, count_parameters(model)[1]), model, console)


def _show_workload(config: TableConfig, work: Workload, model: nn.Module, console: Console) -> None:
    """What is about to be trained, and how long it will take in how much memory."""
    assert config.epochs  # decided by ``for_base``
    device, speed = choose_device(config.device), matrix_speed()
    bf16 = in_bf16(config.precision, device)
    show_plan(console, config, count_parameters(model), str(device), layers=str(config.layers), bf16=bf16)
    seconds, memory = work.seconds(config.epochs, config.batch_size, speed), gib(work.memory(config.batch_size))
    console.print(
        f"estimate for training on this CPU: [bold]{duration(seconds)}[/] and [bold]{memory}[/] of memory "
        f"(from {speed / 1e9:.0f} GFLOP/s measured; expect a factor of two either way)",
        highlight=False,
    )
