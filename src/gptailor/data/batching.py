"""Examples to batches: similar lengths together, padding on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

WINDOW = 50  # batches within which texts are sorted by length; larger windows pad less and shuffle less


@dataclass
class Batch:
    """What the model sees at once.

    Attributes:
        input_ids: (B, T) int64.
        real: (B, T) bool, True where there is a token and not padding.
        labels: (B,) int64 class ids.
        rows: (B,) int64, which examples these are.
    """

    input_ids: Tensor
    real: Tensor
    labels: Tensor
    rows: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``; ``rows`` stay where they are."""
        return Batch(self.input_ids.to(device), self.real.to(device), self.labels.to(device), self.rows)


def collate(
    ids: Sequence[Sequence[int]], labels: Sequence[int], rows: Sequence[int], pad: int, pad_to: int | None = None
) -> Batch:
    """Batch of the examples ``rows``, padded on the right to ``pad_to`` tokens or to the longest of them."""
    lengths = torch.tensor([len(ids[row]) for row in rows])
    width = max(pad_to or 0, int(lengths.max()))
    input_ids = torch.full((len(rows), width), pad)
    for place, row in enumerate(rows):
        input_ids[place, : len(ids[row])] = torch.tensor(ids[row])
    real = torch.arange(width) < lengths.unsqueeze(1)
    return Batch(input_ids, real, torch.tensor([labels[row] for row in rows]), torch.tensor(rows))


def shuffled(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The rows of each batch of one epoch: a shuffle, sorted by length within windows, and the batches shuffled.

    The result depends on nothing but the arguments, so a resumed run can take up in the middle of an epoch.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    batches: list[list[int]] = []
    for begin in range(0, len(order), WINDOW * batch_size):
        window = sorted(order[begin : begin + WINDOW * batch_size].tolist(), key=lambda row: lengths[row])
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    return [batches[index] for index in random.permutation(len(batches))]
