"""The GPT-2 decoder, bottom up: norm, attention, MLP, block, model. Radford et al. 2019.

Letters: B batch, T tokens, C embedding width (n_embd), H heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptailor.model.config import ModelConfig
from gptailor.model.linear import Linear, PackedLinear, product

# New keys and values (B, H, T, D) each -> those of earlier tokens too, (B, H, S, D) each; see ``cache``.
Past = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Attention(nn.Module):
    """Multi-head self-attention; query, key and value are one matrix, side by side."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.qkv = Linear(config.n_embd, 3 * config.n_embd)
        self.out = Linear(config.n_embd, config.n_embd)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, at: Tensor | None = None, past: Past | None = None
    ) -> Tensor:
        """``x`` (B, T, C) -> (B, T, C), or (B, 1, C) with ``at``.

        Args:
            mask: (B, T, T) bool, True where a query (second axis) may see a key (third); None is the causal mask.
            at: (B,) int64, the one position of each text that asks; all positions are still keys and values.
            past: adds the keys and values of earlier tokens; the mask is then (B, T, S), or None where there are none.
        """
        if at is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)  # (B, T, C) each
        else:
            q, k, v = self.query_at(x, at)
            mask = seen_from(at, x.size(1)) if mask is None else pick(mask, at)  # (B, 1, T)
        q, k, v = (self.split_heads(part) for part in (q, k, v))  # (B, H, T, D)
        mask = None if mask is None else mask.unsqueeze(1)
        if past is not None:
            k, v = past(k, v)  # (B, H, S, D)
        if past is not None and mask is not None and q.size(2) == 1:
            mixed = attend_once(q, k, v, mask)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, C)

    def query_at(self, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The query at one position (B, 1, C), key and value at all (B, T, C)."""
        if not isinstance(self.qkv, nn.Linear):  # a wrapped layer has more to do than a product with one matrix
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            return pick(q, at), k, v
        width, weight, bias = x.size(-1), self.qkv.weight, self.qkv.bias
        k, v = product(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        return product(pick(x, at), weight[:width], bias[:width]), k, v

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, H, T, D)."""
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)


class MLP(nn.Module):
    """Two matrices of 4x width with the tanh form of GELU between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(config.n_embd, 4 * config.n_embd)
        self.down = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        fused = isinstance(self.up, Linear | PackedLinear)  # a wrapped layer has more to do than a product
        return self.down(self.up(x, gelu=True) if fused else F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """Pre-norm residual block: attention, then MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.n_embd, eps=config.norm_eps)
        self.attention = Attention(config)
        self.norm_2 = nn.LayerNorm(config.n_embd, eps=config.norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, at: Tensor | None = None, past: Past | None = None
    ) -> Tensor:
        """(B, T, C) -> (B, T, C); with ``at`` (B,) only the output at that position, (B, 1, C)."""
        attended = self.attention(self.norm_1(x), mask, at, past)
        x = (x if at is None else pick(x, at)) + attended
        return x + self.mlp(self.norm_2(x))


class Embedding(nn.Embedding):
    """A table of vectors, which draws none: that alone would load torch's compiler where a model has no memory yet."""

    def reset_parameters(self) -> None:
        """Left to ``Decoder.initialize``, or to what is read from a file."""


class TokenEmbedding(Embedding):
    """One vector for each token; the same matrix, as the output head, makes logits of hidden states."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V)."""
        return product(hidden, self.weight)


class Decoder(nn.Module):
    """Token and position embeddings, blocks, final norm; the output head is the token embedding again."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = TokenEmbedding(config.vocab_size, config.n_embd)
        self.position_embedding = Embedding(config.context_length, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd, eps=config.norm_eps)

    def initialize(self) -> Decoder:
        """Fresh random weights as GPT-2 began: normal of 0.02, residual outputs scaled down by depth."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" in name:
                nn.init.ones_(parameter)
            else:
                residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                depth = 2 * self.config.n_layer if residual else 1
                nn.init.normal_(parameter, std=0.02 / depth**0.5)
        return self

    def embed(self, input_ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Ids (B, T) int64 -> (B, T, C); ``positions`` (B, T) int64 are 0 to T - 1 when they are not given."""
        if positions is None:
            positions = torch.arange(input_ids.size(1), device=input_ids.device)
        return self.token_embedding(input_ids) + self.position_embedding(positions)

    def forward(self, input_ids: Tensor, positions: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Ids (B, T) int64 -> normed hidden states (B, T, C); for ``mask`` see ``Attention``."""
        x = self.embed(input_ids, positions)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V)."""
        return self.token_embedding.logits(hidden)


def attend_once(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of one query in each row, by two products: on a CPU torch's own takes some times as long for bf16.

    Args:
        q: (B, H, 1, D); ``k`` and ``v`` (B, H, S, D), and ``mask`` (B, 1, 1, S) bool.
    """
    weights = (q * q.size(-1) ** -0.5) @ k.transpose(-2, -1)  # (B, H, 1, S)
    return weights.masked_fill_(~mask, -torch.inf).softmax(-1) @ v


def pick(x: Tensor, at: Tensor) -> Tensor:
    """``x`` (B, T, ...) at one position of each row, ``at`` (B,) -> (B, 1, ...)."""
    return x[torch.arange(x.size(0), device=x.device), at].unsqueeze(1)


def seen_from(at: Tensor, n_tokens: int) -> Tensor:
    """(B,) -> (B, 1, T) bool: what the causal mask lets position ``at`` see."""
    return (torch.arange(n_tokens, device=at.device) <= at.unsqueeze(1)).unsqueeze(1)


def real_positions(real: Tensor) -> Tensor:
    """Positions that count real tokens only: ``[0, 1, 1, 1]`` gives ``[0, 0, 1, 2]``; (B, T) bool -> (B, T) int64."""
    return (real.cumsum(1) - 1).clamp(min=0)


def attention_mask(real: Tensor, *, causal: bool) -> Tensor:
    """Which key each query may see, when some positions are padding.

    Every query sees itself, so that a padding query has something to average; nobody reads what it computes.

    Args:
        real: (B, T) bool, True where there is a token and not padding.

    Returns:
        (B, T, T) bool. ``real = [1, 1, 0]`` and causal gives ``[[1,0,0], [1,1,0], [1,1,1]]``.
    """
    n_tokens = real.size(1)
    mask = real.unsqueeze(1).expand(-1, n_tokens, -1)
    if causal:
        mask = mask & torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=real.device).tril()
    return mask | torch.eye(n_tokens, dtype=torch.bool, device=real.device)


def document_mask(documents: Tensor) -> Tensor:
    """The causal mask of packed documents: a token sees those before it in its own document, and itself.

    Args:
        documents: (B, T) int64, the number of each token's document within its row.

    Returns:
        (B, T, T) bool. Documents ``[0, 0, 1]`` give ``[[1,0,0], [1,1,0], [0,0,1]]``.
    """
    same = documents.unsqueeze(2) == documents.unsqueeze(1)
    return same.tril()
