"""The shape of a decoder, and the sizes that have names."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

from gptailor.errors import UserError, did_you_mean

# The largest values that are believed, so that a broken file asks for no absurd memory; GPT-2 XL has 48, 25, 1600, ...
LIMITS = {
    "n_layer": 1000,
    "n_head": 1000,
    "n_embd": 100_000,
    "vocab_size": 10_000_000,
    "context_length": 1_000_000,
    "norm_eps": 1,
}


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a GPT-2 decoder.

    Raises:
        UserError: when a number is not positive or beyond ``LIMITS``, or ``n_embd`` cannot be shared among the heads.
    """

    n_layer: int  # L, blocks
    n_head: int  # H
    n_embd: int  # C
    vocab_size: int = 50257  # V
    context_length: int = 1024  # the largest T
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        problems = [
            UserError(f"{name} is {getattr(self, name)!s:.40}", expected=f"a positive number, at most {limit:,}")
            for name, limit in LIMITS.items()
            if not 0 < getattr(self, name) <= limit  # also true of NaN
        ]
        if problems:
            raise UserError.joined(problems)
        if self.n_embd % self.n_head:
            raise UserError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")


SIZES = {
    "tiny": ModelConfig(n_layer=2, n_head=4, n_embd=128, context_length=512),
    "gpt2-small": ModelConfig(n_layer=12, n_head=12, n_embd=768),
    "gpt2-medium": ModelConfig(n_layer=24, n_head=16, n_embd=1024),
    "gpt2-large": ModelConfig(n_layer=36, n_head=20, n_embd=1280),
    "gpt2-xl": ModelConfig(n_layer=48, n_head=25, n_embd=1600),
}


def parse_size(text: str) -> ModelConfig:
    """``"tiny"``, ``"gpt2-small"`` ... or numbers: ``"n_layer=4,n_head=4,n_embd=256[,context_length=512]"``.

    Raises:
        UserError: for an unknown name or number.
    """
    if text in SIZES:
        return SIZES[text]
    if "=" not in text:
        hint = did_you_mean(text, SIZES) or "numbers also work: n_layer=4,n_head=4,n_embd=256"
        raise UserError(f"no size is called {text!r}", expected=f"one of {', '.join(SIZES)}", hint=hint)
    known = [field.name for field in fields(ModelConfig) if field.name not in ("vocab_size", "norm_eps")]
    numbers: dict[str, int] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key.strip() not in known or not re.fullmatch("[0-9]{1,9}", value.strip()):
            raise UserError(f"size {text!r} has the part {part!r}", expected=f"NUMBER for one of {', '.join(known)}")
        numbers[key.strip()] = int(value)
    return replace(SIZES["tiny"], **numbers)
