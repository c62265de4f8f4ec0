"""The key/value cache: what the blocks made of earlier tokens is kept, and only the new ones are computed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gptailor.model.config import ModelConfig
from gptailor.model.decoder import Decoder
from gptailor.model.together import by_length, tokens_at_once


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
        width = config.n_embd // config.n_head
        self.keys = like.new_zeros(config.n_layer, n_rows, config.n_head, n_slots, width)  # (L, B, H, S, D)
        self.values = torch.zeros_like(self.keys)
        self.lengths = [0] * n_rows

    def read(self, decoder: Decoder, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Reads whole prompts into an empty cache, or one more token of each row.

        Returns:
            The normed hidden state of each row's last token, (B, C).
        """
        if any(self.lengths):
            assert all(len(ids) == 1 for ids in tokens), "padding would take the slots of tokens to come"
            return self._read(decoder, range(len(tokens)), tokens)
        hidden = self.keys.new_empty(len(tokens), decoder.config.n_embd)
        for rows in by_length([len(ids) for ids in tokens], tokens_at_once(self.keys.device)):
            hidden[rows] = self._read(decoder, rows, [tokens[row] for row in rows]).to(hidden.dtype)
        return hidden

    def _read(self, decoder: Decoder, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> Tensor:
        """The next tokens of some rows, padded on the right, where no real token looks."""
        counts, before = [len(ids) for ids in tokens], [self.lengths[row] for row in rows]
        longest, device = max(counts), self.keys.device
        input_ids = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in tokens], device=device)  # (B, T)
        positions = torch.tensor(before, device=device).unsqueeze(1) + torch.arange(longest, device=device)  # (B, T)
        n_slots, mask = None, None
        if any(before):
            n_slots = max(before) + longest
            mask = torch.arange(n_slots, device=device) <= positions.unsqueeze(2)  # (B, T, S)
        last = torch.tensor(counts, device=device) - 1
        places = torch.tensor(rows, device=device)
        x = decoder.embed(input_ids, positions)
        for layer, block in enumerate(decoder.blocks):
            # Of a whole prompt, the last block's output is asked for at one token only.
            at = last if longest > 1 and layer == len(decoder.blocks) - 1 else None
            x = block(x, mask, at, past=partial(self._extend, layer, places, positions, n_slots))
        for row, count in zip(rows, counts, strict=True):
            self.lengths[row] += count
        return decoder.norm(x.squeeze(1))

    def _extend(
        self, layer: int, rows: Tensor, positions: Tensor, n_slots: int | None, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Writes new keys and values (B, H, T, D) to the slots ``positions`` (B, T) of ``rows`` (B,).

        Returns:
            The first ``n_slots`` slots of all rows, (B, H, S, D) each; of prompts (None) what was given.
        """
        for store, new in ((self.keys, k), (self.values, v)):
            # autocast makes new ones in bf16
            store[layer][rows.unsqueeze(1), :, positions] = new.transpose(1, 2).to(store.dtype)
        if n_slots is None:
            return k, v
        return self.keys[layer, : len(rows), :, :n_slots], self.values[layer, : len(rows), :, :n_slots]

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
