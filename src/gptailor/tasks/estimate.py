"""How long a run will take and how much memory it needs, before it begins; right within a factor of two or so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gptailor.model.config import ModelConfig
from gptailor.model.linear import product

EFFICIENCY = 0.5  # of the measured matrix rate that whole runs reach, for widths of 128 to 1024 on CPUs
OVERHEAD = 0.0006  # seconds per batch and block, forward and again backward, that small tensors cost
START = 300 * 2**20  # bytes that the interpreter, torch and the libraries take
KEPT = 20  # values per channel, token and block that are kept for the gradients
LOGITS = 512  # positions whose logits are there at the same time, see ``losses.next_token_loss``
GAPS, MOST_GAPS = 2.5, 400 * 2**20  # of what a batch leaves: what the allocator holds besides, and at most in bytes
COUNTED = 180  # bytes for each token that a 5-gram model counts


@dataclass(frozen=True)
class Workload:
    """What a run has to compute.

    Attributes:
        shape: of the decoder.
        lengths: tokens of each training row, with padding that the model reads; of a pair, of its longer answer.
        depth: frozen blocks below the trained ones; a classifier's are computed once, and what they gave kept.
        trained: number of trained parameters.
        speaks: whether the next token is predicted, for which there are logits of the whole vocabulary.
        sides: texts in each row: 2 of pairs.
        single: trained parameters of which the optimizer keeps one moment and not two, as Muon does of matrices.
        counted: tokens that n-gram models count when the training is over.
    """

    shape: ModelConfig
    lengths: Sequence[int]
    depth: int
    trained: int
    speaks: bool = False
    sides: int = 1
    single: int = 0
    counted: int = 0

    def seconds(self, epochs: int, batch_size: int, speed: float) -> float:
        """A matrix parameter costs 2 operations per token forward and 4 backward; frozen blocks only run forward.

        Args:
            speed: of matrix products, in operations per second; see ``matrix_speed``.
        """
        tokens, trained_blocks = self.sides * sum(self.lengths), self.shape.n_layer - self.depth
        frozen = 2 * self._per_block * self.depth * tokens * (epochs if self.speaks else 1)
        learned = 6 * (self._per_block * trained_blocks + self._head) * tokens * epochs
        steps = epochs * len(self.lengths) / batch_size
        return (frozen + learned) / (EFFICIENCY * speed) + OVERHEAD * 2 * steps * (trained_blocks + 1)

    def memory(self, batch_size: int, longest: int | None = None) -> float:
        """Bytes: weights, gradients and moments, kept hidden states, and the activations of the longest batch.

        Measured over whole runs, an allocator holds more than is in use: freed small tensors leave gaps.

        Args:
            longest: tokens that the rows would be cut to.
        """
        width, longest = self.shape.n_embd, min(longest or max(self.lengths), max(self.lengths))
        tokens, rows = sum(min(length, longest) for length in self.lengths), self.rows(batch_size)
        parameters = self.shape.n_layer * self._per_block + (self.shape.vocab_size + self.shape.context_length) * width
        states = tokens * width if self.depth and not self.speaks else 0
        batch = KEPT * width * rows * longest * (self.shape.n_layer - self.depth + 1)
        if self.speaks:
            batch += (2 * min(rows * longest, LOGITS) + width) * self.shape.vocab_size  # logits
        training = 4 * (self.trained + self.moments + states + batch) + min(4 * GAPS * batch, MOST_GAPS)
        return START + 4 * parameters + max(training, COUNTED * self.counted)

    def rows(self, batch_size: int) -> int:
        """Texts that a batch brings through the model."""
        return self.sides * min(batch_size, len(self.lengths))

    @property
    def moments(self) -> int:
        """Values that the optimizer keeps."""
        return 2 * self.trained - self.single

    @property
    def _per_block(self) -> int:
        return 12 * self.shape.n_embd**2

    @property
    def _head(self) -> int:
        return self.shape.vocab_size * self.shape.n_embd if self.speaks else 0


def matrix_speed(size: int = 768) -> float:
    """Operations per second of float32 matrix products of this size, measured in a fraction of a second."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    product(a, b)
    begun = time.perf_counter()
    for _ in range(5):
        product(a, b)
    return 5 * 2 * size**3 / (time.perf_counter() - begun)
