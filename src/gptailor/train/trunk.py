"""Frozen blocks computed once: their hidden states are kept and reused in every epoch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

IN_MEMORY = 2 * 2**30  # bytes of hidden states kept in memory; more are mapped from disk
SHARE_OF_DISK = 0.5  # of the free space that the mapped file may take


class Trunk:
    """Hidden states of N texts, end to end: text i holds rows ``offsets[i]`` to ``offsets[i + 1]`` of (sum T, C)."""

    def __init__(self, states: Tensor, lengths: Sequence[int]) -> None:
        self.states = states
        self.offsets = [0, *torch.tensor(lengths).cumsum(0).tolist()]

    def fill(self, rows: Tensor, hidden: Tensor) -> None:
        """Stores what the frozen blocks gave for a batch: ``hidden`` (B, T, C), padded on the right."""
        for row, state in zip(rows.tolist(), hidden, strict=True):
            begin, end = self.offsets[row], self.offsets[row + 1]
            self.states[begin:end] = state[: end - begin]

    def batch(self, rows: Tensor, n_tokens: int) -> Tensor:
        """The states of some texts in float32, padded on the right with zeros: (B, T, C) on the CPU."""
        batch = torch.zeros(len(rows), n_tokens, self.states.size(1))
        for place, row in enumerate(rows.tolist()):
            begin, end = self.offsets[row], self.offsets[row + 1]
            batch[place, : end - begin] = self.states[begin:end]
        return batch


def _mapped(file: Path, n_values: int, dtype: torch.dtype) -> Tensor:
    """A tensor in a file that is reserved whole, so that it cannot run out, and gone when nobody uses it."""
    with file.open("wb") as opened:
        reserve = getattr(os, "posix_fallocate", lambda number, begin, size: os.ftruncate(number, size))
        reserve(opened.fileno(), 0, dtype.itemsize * n_values)
    states = torch.from_file(str(file), shared=True, size=n_values, dtype=dtype)
    file.unlink()
    return states


def keep_trunk(
    lengths: Sequence[int],
    width: int,
    batches: Iterable[tuple[Tensor, Tensor]],
    file: Path,
    dtype: torch.dtype = torch.float32,
) -> Trunk | None:
    """Computes and keeps the hidden states of all texts, in memory or, when they are large, mapped from ``file``.

    Args:
        lengths: tokens of each text.
        width: C.
        batches: the rows (B,) of each batch and their states (B, T, C); a generator, so that nothing is computed when
            nothing can be kept.
        dtype: in which they are kept; bf16 takes half the room.

    Returns:
        None when there is no room on the disk either; the blocks are then computed anew in every epoch.
    """
    n_values = sum(lengths) * width
    n_bytes = dtype.itemsize * n_values
    if n_bytes <= IN_MEMORY:
        states = torch.empty(n_values, dtype=dtype)
    elif n_bytes <= SHARE_OF_DISK * shutil.disk_usage(file.parent).free:
        states = _mapped(file, n_values, dtype)
    else:
        return None
    trunk = Trunk(states.view(-1, width), lengths)
    for rows, hidden in batches:
        trunk.fill(rows, hidden)
    return trunk
