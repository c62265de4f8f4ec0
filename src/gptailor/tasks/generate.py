"""``gptailor generate``: a language model continues a text."""

from __future__ import annotations

import torch

from gptailor.errors import UserError
from gptailor.model.device import choose_device
from gptailor.model.generate import generate
from gptailor.weights.base import open_base


def generate_command(
    name: str,
    prompt: str,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    device: str,
) -> str:
    """The prompt and its continuation; see ``gptailor generate --help``."""
    base = open_base(name)
    if base.tokenizer is None:
        raise UserError(f"{name} has nothing to say: its weights are random", expected="a trained language model")
    ids = base.tokenizer.encode(prompt)
    if not ids:
        raise UserError("the prompt is empty", expected="a text to continue")
    decoder = base.load(base.tokenizer).to(choose_device(device))
    generator = torch.Generator(decoder.token_embedding.weight.device).manual_seed(seed)
    new = generate(
        decoder,
        ids,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        end_of_text=base.tokenizer.end_of_text,
        generator=generator,
    )
    return prompt + base.tokenizer.decode(new)
