"""Generation, the plain loop: the whole text goes through the model for every new token."""

from __future__ import annotations

import torch
from torch import Tensor

from gptailor.model.decoder import Decoder


@torch.no_grad()
def generate(
    decoder: Decoder,
    input_ids: list[int],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    end_of_text: int | None = None,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Continues one prompt; the context is cropped to the model's length from the left.

    Args:
        input_ids: the prompt, at least one id.
        temperature: 0 is greedy; above, logits are divided by it and one id is drawn.
        top_k: draw from the k most likely ids only.
        top_p: draw from the fewest ids whose probabilities reach p, in (0, 1].
        end_of_text: stop before this id.

    Returns:
        The new ids, without the prompt.
    """
    ids = list(input_ids)
    decoder.eval()
    device = decoder.token_embedding.weight.device
    for _ in range(max_new_tokens):
        window = torch.tensor([ids[-decoder.config.context_length :]], device=device)
        logits = decoder.logits(decoder(window)[0, -1])  # (V,)
        token = choose(logits, temperature, top_k, top_p, generator)
        if token == end_of_text:
            break
        ids.append(token)
    return ids[len(input_ids) :]


def choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> int:
    """One id from logits (V,)."""
    if temperature == 0:
        return int(logits.argmax())
    logits = logits / temperature
    if top_k is not None:
        weakest = logits.topk(min(top_k, logits.numel())).values[-1]
        logits = logits.masked_fill(logits < weakest, -torch.inf)
    probabilities = logits.softmax(-1)
    if top_p is not None:
        probabilities = nucleus(probabilities, top_p)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zeroes all but the fewest ids that together reach ``top_p`` (Holtzman et al. 2020).

    (0.5, 0.3, 0.2) with 0.7 keeps the first two: the second is needed to reach 0.7, the third is not.
    """
    ordered, order = probabilities.sort(descending=True)
    needed = ordered.cumsum(-1) - ordered < top_p
    return torch.zeros_like(probabilities).scatter(-1, order, ordered * needed)
