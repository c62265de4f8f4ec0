"""The key/value cache: what the blocks made of earlier tokens is kept, and only the new ones are computed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gptailor.model.config import ModelConfig
from gptailor.model.decoder import Decoder, pick


class Cache:
    """Keys and values of the tokens that each row has read.

    The token at position p lies in slot p of its row, so rows of any length stand side by side, and none has to know
    of its neighbours::

        a b c d . .     lengths[0] = 4
        a b . . . .     lengths[1] = 2: the next token goes to slot 2, and sees slots 0 to 2

    It holds 2 x n_layer x n_rows x n_slots x n_embd numbers: 36 MiB a row for GPT-2 small with 512 slots in float32.

    Args:
        n_slots: the most tokens that a row will read.
        like: a tensor of the kind and on the device of the weights.
    """

    def __init__(self, config: ModelConfig, n_rows: int, n_slots: int, like: Tensor) -> None:
        # Zeros and not what the memory holds: a key that is not seen counts 0 times its value, and 0 x NaN is NaN.
        self.keys = like.new_zeros(config.n_layer, n_rows, n_slots, config.n_embd)  # (L, B, S, C)
        self.values = torch.zeros_like(self.keys)
        self.lengths = [0] * n_rows

    def read(self, decoder: Decoder, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Reads whole prompts into an empty cache, or one more token of each row.

        Prompts may differ in length: the shorter are padded on the right, where no real token looks.

        Returns:
            The normed hidden state of each row's last token, (B, C).
        """
        fresh = not any(self.lengths)
        counts = [len(ids) for ids in tokens]
        assert fresh or set(counts) == {1}, "padding would take the slots of tokens to come"
        longest, device = max(counts), self.keys.device
        input_ids = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in tokens], device=device)  # (B, T)
        before = torch.tensor(self.lengths, device=device).unsqueeze(1)
        positions = before + torch.arange(longest, device=device)  # (B, T)
        slots = torch.arange(max(self.lengths) + longest, device=device)  # (S,)
        mask = None if fresh else slots <= positions.unsqueeze(2)  # (B, T, S)
        x = decoder.embed(input_ids, positions)
        for layer, block in enumerate(decoder.blocks):
            x = block(x, mask, past=partial(self._extend, layer, positions, len(slots)))
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]
        return decoder.norm(pick(x, torch.tensor(counts, device=device) - 1).squeeze(1))

    def _extend(self, layer: int, positions: Tensor, n_slots: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes new keys and values (B, T, C) to the slots ``positions`` (B, T) and gives all slots (B, S, C)."""
        n_rows = positions.size(0)
        rows = torch.arange(n_rows, device=positions.device).unsqueeze(1)
        for store, new in ((self.keys, k), (self.values, v)):
            store[layer][rows, positions] = new.to(store.dtype)  # autocast makes new ones in bf16
        return self.keys[layer, :n_rows, :n_slots], self.values[layer, :n_rows, :n_slots]

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Forgets all rows but ``rows``; the last ones fill the gaps, so that little is copied.

        Returns:
            Which row now stands in each place: of 5 rows, ``keep([0, 2, 4])`` gives ``[0, 4, 2]``.
        """
        kept, behind = set(rows), [row for row in rows if row >= len(rows)]
        order = [place if place in kept else behind.pop() for place in range(len(rows))]
        for place, row in enumerate(order):
            if place != row:
                self.keys[:, place] = self.keys[:, row]
                self.values[:, place] = self.values[:, row]
        self.lengths = [self.lengths[row] for row in order]
        return order
