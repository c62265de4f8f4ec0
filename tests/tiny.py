"""Texts that can be told apart in a second of training, and the options for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from gptailor.config import ClassifierConfig, load_config
from gptailor.data.templates import TEMPLATE_FILE, TEMPLATES
from gptailor.model.decoder import Decoder
from gptailor.tasks.classifier import run_classifier
from gptailor.tokenizer import Tokenizer
from gptailor.train.loop import StopRequest
from gptailor.weights.folder import save_language_model

TINY = {"base": "random:n_layer=2,n_head=2,n_embd=16,context_length=32", "vocab": 300, "epochs": 2, "lr": 0.005}
GOOD = ["lovely", "warm", "bright", "kind", "sweet", "calm"]
BAD = ["awful", "cold", "grim", "rude", "bitter", "loud"]


def sentence(words: list[str], rng: random.Random) -> str:
    """Three words of a mood among neutral ones, so that any two labels can be told apart."""
    thing = rng.choice(["soup", "room", "train", "film", "garden", "letter"])
    return f"the {thing} number {rng.randint(1, 999)} was {' and '.join(rng.sample(words, 3))}"


def run(data: Path, out: Path, *, stop: StopRequest | None = None, resume: bool = False, **options: Any) -> Path:
    """One run without output."""
    config = load_config(ClassifierConfig, None, {"data": str(data), "out": str(out), **TINY, **options})
    return run_classifier(config, resume=resume, console=Console(quiet=True), stop=stop or StopRequest())


class StopAfter(StopRequest):
    """Says stop once it has been asked ``times`` times, whatever it is told."""

    def __init__(self, times: int) -> None:
        self.left = times

    @property
    def requested(self) -> bool:  # type: ignore[override]
        self.left -= 1
        return self.left <= 0

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def save_assistant(folder: Path, make_decoder: Callable[..., Decoder], template: str) -> Path:
    """An assistant of random weights that reads 100 tokens: what it says is nonsense, and not always the same."""
    tokenizer = Tokenizer.train([TEMPLATES[template], "the soup number seven was lovely and warm"] * 3, 400)
    decoder = make_decoder(2, vocab_size=tokenizer.vocab_size, context_length=100)
    decoder.position_embedding.weight.data *= 4  # or the same token is said for ever
    decoder.norm.weight.data[::2] *= -1
    texts = {TEMPLATE_FILE: TEMPLATES[template]}
    save_language_model(folder, decoder, tokenizer, task="assistant", dtype=torch.float32, texts=texts)
    return folder


def batch_of(folder: Path) -> tuple[int, int]:
    """Rows of a batch, and batches of a step, of a run in a folder."""
    saved = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
    return saved["batch_size"], saved["accumulate"]
