"""Texts that can be told apart in a second of training, and the options for it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from rich.console import Console

from gptailor.config import ClassifierConfig, load_config
from gptailor.tasks.classifier import run_classifier
from gptailor.train.loop import StopRequest

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
