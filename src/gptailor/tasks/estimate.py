"""How long a run will take and how much memory it needs, before it begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gptailor.model.config import ModelConfig

EFFICIENCY = 0.5  # of the measured matrix rate that whole runs reach, for widths of 128 to 1024 on CPUs
OVERHEAD = 0.0006  # seconds per batch and block, forward and again backward, that small tensors cost
START = 300 * 2**20  # bytes that the interpreter, torch and the libraries take


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of a run; right within a factor of two or so.

    Attributes:
        speed: the machine's measured rate of float32 matrix products, in operations per second.
    """

    seconds: float
    memory: float
    speed: float


def estimate_classifier(
    config: ModelConfig, lengths: Sequence[int], *, depth: int, trained: int, epochs: int, batch_size: int
) -> Estimate:
    """Estimates a classification run.

    A matrix parameter costs 2 operations per token forward and 4 backward. Frozen blocks run once, the others in every
    epoch. Memory is weights, gradients and AdamW's two moments, kept hidden states, and the activations of one batch.

    Args:
        lengths: tokens of each training text.
        depth: frozen blocks.
        trained: number of trained parameters.
    """
    speed = matrix_speed()
    per_block = 12 * config.n_embd**2
    tokens, longest = sum(lengths), max(lengths)
    frozen = 2 * per_block * depth * tokens
    learned = 6 * per_block * (config.n_layer - depth) * tokens * epochs
    steps = epochs * len(lengths) / batch_size
    seconds = (frozen + learned) / (EFFICIENCY * speed) + OVERHEAD * 2 * steps * (config.n_layer - depth + 1)
    parameters = config.n_layer * per_block + (config.vocab_size + config.context_length) * config.n_embd
    states = 4 * tokens * config.n_embd if depth else 0
    activations = 4 * 20 * config.n_embd * batch_size * longest * (config.n_layer - depth + 1)
    return Estimate(seconds, START + 4 * parameters + 12 * trained + states + activations, speed)


def matrix_speed(size: int = 768) -> float:
    """Operations per second of float32 matrix products of this size, measured in a fraction of a second."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    a @ b
    begun = time.perf_counter()
    for _ in range(5):
        a @ b
    return 5 * 2 * size**3 / (time.perf_counter() - begun)
