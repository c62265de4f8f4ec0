"""Sampling: from logits to the next id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

# Logits divided by a temperature near 0 leave the range of float32; from here down the largest is as good as certain.
COLDEST = 1e-6


@dataclass(frozen=True)
class Sampling:
    """How a text is continued.

    Attributes:
        max_new_tokens: the most tokens that are added; None leaves it to what the model is.
        temperature: as ``top_k``, ``top_p`` and ``repetition_penalty``, see ``generate.generate_batch``.
        stop: strings that end the text and do not belong to it.
        seed: of the draws; of several texts, each has the next one.
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 123

    def options(self) -> dict[str, Any]:
        """All but the seed, as keywords of ``generate.generate_batch``."""
        return {name: value for name, value in asdict(self).items() if name != "seed"}


def choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> int:
    """One id from logits (V,)."""
    return draw(logits.unsqueeze(0), temperature, top_k, top_p, [generator])[0]


def draw(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generators: Sequence[torch.Generator | None],
) -> list[int]:
    """One id from each row of logits (B, V), by the generator of that row."""
    if temperature < COLDEST:
        return logits.argmax(-1).tolist()
    shares = probabilities(logits, temperature, top_k, top_p)
    drawn = [torch.multinomial(row, 1, generator=own) for row, own in zip(shares, generators, strict=True)]
    return torch.cat(drawn).tolist()


def probabilities(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """What ids are drawn with, (..., V) -> (..., V); after ``top_p`` they no longer add up to 1."""
    logits = logits / temperature
    if top_k is not None:
        weakest = logits.topk(min(top_k, logits.size(-1))).values[..., -1:]
        logits = logits.masked_fill(logits < weakest, -torch.inf)
    shares = logits.softmax(-1)
    return shares if top_p is None else nucleus(shares, top_p)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zeroes all but the fewest ids that together reach ``top_p`` (Holtzman et al. 2020).

    (0.5, 0.3, 0.2) with 0.7 keeps the first two: the second is needed to reach 0.7, the third is not.
    """
    ordered, order = probabilities.sort(descending=True)
    needed = ordered.cumsum(-1) - ordered < top_p
    return torch.zeros_like(probabilities).scatter(-1, order, ordered * needed)


def penalize(logits: Tensor, said: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Makes the ids that each row has already said less likely (Keskar et al. 2019); logits (B, V).

    With a penalty of 2, the logit 3 becomes 1.5 and -3 becomes -6, once, however often the id was said.
    """
    repeated = torch.zeros_like(logits, dtype=torch.bool)
    for row, ids in enumerate(said):
        repeated[row, list(ids)] = True
    return torch.where(repeated, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
