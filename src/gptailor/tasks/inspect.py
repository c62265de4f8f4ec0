"""``gptailor inspect``: what a training run would see and need, without training."""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console

from gptailor.config import ClassifierConfig
from gptailor.evaluate.format import duration
from gptailor.model.decoder import Decoder
from gptailor.model.head import Classifier, count_parameters, freeze
from gptailor.show import show_pieces, show_plan, show_receipt
from gptailor.tasks.estimate import estimate_classifier
from gptailor.tasks.prepare import Prepared, prepare

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
    assert config.epochs  # decided by ``for_base``
    shape = prepared.model_config()
    with torch.device("meta"):
        model = Classifier(Decoder(shape), len(prepared.names))
    depth = freeze(model, config.layers or "all")
    lengths = [max(len(text), prepared.width or 0) for text in prepared.ids("train")]
    estimate = estimate_classifier(
        shape,
        lengths,
        depth=depth,
        trained=count_parameters(model)[1],
        epochs=config.epochs,
        batch_size=min(config.batch_size, len(lengths)),
    )
    show_plan(console, config, count_parameters(model), config.device)
    memory, speed = f"{estimate.memory / 2**30:.1f} GiB", f"{estimate.speed / 1e9:.0f} GFLOP/s"
    console.print(
        f"estimate for training on this CPU: [bold]{duration(estimate.seconds)}[/] and [bold]{memory}[/] of memory "
        f"(from {speed} measured; expect a factor of two either way)",
        highlight=False,
    )
