"""A language model on its way from a base to a folder: what training on answers and on pairs have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gptailor.config import ConversationConfig
from gptailor.data.templates import Template
from gptailor.evaluate.report import write_report
from gptailor.model.decoder import Decoder
from gptailor.model.device import choose_device
from gptailor.model.freeze import count_parameters
from gptailor.model.precision import in_bf16
from gptailor.show import show_plan
from gptailor.tasks.run import RunFolder
from gptailor.tasks.tuning import adapter_base, freeze_as
from gptailor.tokenizer import TEMPLATE_FILE, Tokenizer
from gptailor.weights.base import Base
from gptailor.weights.folder import AdapterBase, save_language_model


@dataclass
class Tailored:
    """The decoder, with what is not trained frozen, and what its folder is to say of it."""

    config: ConversationConfig
    decoder: Decoder
    tokenizer: Tokenizer
    template: Template
    adapter_on: AdapterBase | None
    parameters: tuple[int, int]  # all, trained
    device: torch.device

    def show(self, console: Console) -> None:
        """What is about to be trained."""
        bf16 = in_bf16(self.config.precision, self.device)
        layers = str(self.config.layers)
        show_plan(console, self.config, self.parameters, str(self.device), layers=layers, bf16=bf16)

    def save(
        self, run: RunFolder, metrics: dict[str, Any], files: list[dict[str, Any]], write_card: Callable[[Path], Path]
    ) -> None:
        """Writes weights, metrics, manifest, report and card; the card last, for a folder with one is finished.

        Args:
            files: the inputs, of the receipt.
        """
        save_language_model(
            run.path,
            self.decoder,
            self.tokenizer,
            task="assistant",
            dtype=torch.float32,
            texts={TEMPLATE_FILE: self.template.source},
            adapter_on=self.adapter_on,
        )
        run.write_metrics(metrics)
        described = dict(zip(("base", "parameters", "trainable"), (self.config.base, *self.parameters), strict=True))
        run.write_manifest(self.config, str(self.device), files, described)
        write_report(run.path)
        write_card(run.path)
        if metrics["finished"] and not self.config.keep_checkpoints:
            run.remove_checkpoints()


def begin(config: ConversationConfig, base: Base, tokenizer: Tokenizer, template: Template) -> Tailored:
    """Loads the base and freezes what is not trained; nothing is written.

    Raises:
        UserError: for layers that the base does not have.
    """
    torch.manual_seed(config.seed)
    decoder = base.load(tokenizer)
    adapter_on = adapter_base(config, decoder)
    freeze_as(config, decoder)
    device, parameters = choose_device(config.device), count_parameters(decoder)
    return Tailored(config, decoder.to(device), tokenizer, template, adapter_on, parameters, device)
