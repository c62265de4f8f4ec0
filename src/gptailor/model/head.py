"""A class head on a decoder, and which token it reads."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gptailor.model.decoder import Decoder, attention_mask, pick, real_positions

Read = Literal["last", "first", "mean", "last+mean"]


class Classifier(nn.Module):
    """A decoder whose hidden states, read at one place, become the logits of K classes.

    Args:
        read: the last or first real token, the mean over the real tokens, or the mean of last and mean.
        causal: False lets every token see the whole text.
    """

    def __init__(self, decoder: Decoder, n_classes: int, *, read: Read = "last", causal: bool = True) -> None:
        super().__init__()
        self.decoder, self.read, self.causal = decoder, read, causal
        # No bias, as in transformers' GPT2ForSequenceClassification, which is to open the folder.
        self.head = nn.Linear(decoder.config.n_embd, n_classes, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, input_ids: Tensor, real: Tensor) -> Tensor:
        """Ids (B, T) int64 and which of them are no padding (B, T) bool -> logits (B, K)."""
        return self.top(self.trunk(input_ids, real, 0), real, 0)

    def plain(self, input_ids: Tensor, real: Tensor) -> Tensor:
        """The plain twin of ``forward``: every block at every position."""
        hidden = self.decoder(input_ids, real_positions(real), attention_mask(real, causal=self.causal))
        return self.classify(self.pool(hidden.float(), real))

    def trunk(self, input_ids: Tensor, real: Tensor, depth: int) -> Tensor:
        """Embeddings and the first ``depth`` blocks: (B, T) -> (B, T, C)."""
        mask = self.mask(real)
        x = self.decoder.embed(input_ids, None if mask is None else real_positions(real))
        for block in self.decoder.blocks[:depth]:
            x = block(x, mask)
        return x

    def top(self, x: Tensor, real: Tensor, depth: int) -> Tensor:
        """Everything above the first ``depth`` blocks: (B, T, C) -> logits (B, K)."""
        return self.classify(self.below_head(x, real, depth))

    def below_head(self, x: Tensor, real: Tensor, depth: int) -> Tensor:
        """What the head reads, from the first ``depth`` blocks: (B, T, C) -> (B, C) in float32.

        When one position is read, the last block computes its query, MLP and norm for that position alone.
        """
        mask, at = self.mask(real), self.position(real)
        blocks = list(self.decoder.blocks[depth:])
        for block in blocks[:-1]:
            x = block(x, mask)
        if blocks:
            x = blocks[-1](x, mask, at)
        elif at is not None:
            x = pick(x, at)
        hidden = self.decoder.norm(x).float()
        return hidden.squeeze(1) if at is not None else self.pool(hidden, real)

    def classify(self, pooled: Tensor) -> Tensor:
        """(B, C) -> logits (B, K): in float32, whatever the blocks are computed in, for bf16 tells few logits apart."""
        with torch.autocast(pooled.device.type, enabled=False):
            return self.head(pooled)

    def mask(self, real: Tensor) -> Tensor | None:
        """(B, T, T), or None where the plain causal mask suffices: padding on the right is seen by no real token."""
        if self.causal and bool(real[:, 0].all()):
            return None
        return attention_mask(real, causal=self.causal)

    def position(self, real: Tensor) -> Tensor | None:
        """(B,) int64, the one position that is read, or None when the mean needs all of them."""
        if self.read == "last":
            return last_token(real)
        return real.int().argmax(1) if self.read == "first" else None

    def pool(self, hidden: Tensor, real: Tensor) -> Tensor:
        """What the head reads: (B, T, C) -> (B, C)."""
        at = self.position(real)
        if at is not None:
            return pick(hidden, at).squeeze(1)
        weight = real.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        return mean if self.read == "mean" else (pick(hidden, last_token(real)).squeeze(1) + mean) / 2


def last_token(real: Tensor) -> Tensor:
    """(B, T) bool -> (B,) the last True of each row: ``[0, 1, 1, 0]`` gives 2."""
    return real.size(1) - 1 - real.int().flip(1).argmax(1)
