"""What of a model a run trains, as its configuration says."""

from __future__ import annotations

import torch

from gptailor.config import RunConfig
from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.freeze import freeze, freeze_for_lora
from gptailor.model.head import Classifier
from gptailor.model.lora import LoraSettings, adapted
from gptailor.weights.base import identity
from gptailor.weights.folder import AdapterBase


def lora_settings(config: RunConfig) -> LoraSettings:
    """The adapters that the options ask for."""
    return LoraSettings(config.rank, config.alpha, config.dropout, config.rank_stabilised, config.dora)


def adapter_base(config: RunConfig, decoder: Decoder) -> AdapterBase | None:
    """What the run's adapter will be on, where it trains one: to be asked before the adapter is put on it."""
    return AdapterBase(config.base, identity(config.base, decoder)) if config.layers == "lora" else None


def freeze_as(config: RunConfig, model: Decoder | Classifier) -> int:
    """Freezes what is not trained and returns how many of the first blocks never change, so that they can be kept.

    Raises:
        UserError: for layers that the model does not have, and for a base whose output head has an adapter.
    """
    if adapted(model):
        found = f"--base {config.base}: its output head has an adapter, which cannot be merged into GPT-2's layout"
        raise UserError(found, hint="train on the base below it, or on an adapter without --targets head")
    if config.layers != "lora":
        return freeze(model, config.layers or "all")
    targets, unfreeze = words(config.targets), words(config.unfreeze)
    if config.unfreeze == "auto":
        unfreeze = ["head"] if isinstance(model, Classifier) and "head" not in targets else []
    frozen_in = torch.bfloat16 if config.frozen_in == "bf16" else torch.float32
    freeze_for_lora(model, lora_settings(config), targets=targets, unfreeze=unfreeze, frozen_in=frozen_in)
    return 0


def words(text: str) -> list[str]:
    """``"attention, mlp"`` as a list; ``"none"`` is an empty one."""
    return [] if text == "none" else [word.strip() for word in text.split(",") if word.strip()]
