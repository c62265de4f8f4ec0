"""One table of names per format: ours, Hugging Face's, and the original TensorFlow checkpoint's.

``transposed`` marks matrices that the other formats store as (in, out) where ``nn.Linear`` has (out, in).
"""

from __future__ import annotations

from typing import NamedTuple


class Name(NamedTuple):
    """One tensor under its three names."""

    ours: str
    huggingface: str
    openai: str
    transposed: bool = False


MODEL = [
    Name("token_embedding.weight", "wte.weight", "wte"),
    Name("position_embedding.weight", "wpe.weight", "wpe"),
    Name("norm.weight", "ln_f.weight", "ln_f/g"),
    Name("norm.bias", "ln_f.bias", "ln_f/b"),
]
BLOCK = [
    Name("norm_1.weight", "ln_1.weight", "ln_1/g"),
    Name("norm_1.bias", "ln_1.bias", "ln_1/b"),
    Name("attention.qkv.weight", "attn.c_attn.weight", "attn/c_attn/w", True),
    Name("attention.qkv.bias", "attn.c_attn.bias", "attn/c_attn/b"),
    Name("attention.out.weight", "attn.c_proj.weight", "attn/c_proj/w", True),
    Name("attention.out.bias", "attn.c_proj.bias", "attn/c_proj/b"),
    Name("norm_2.weight", "ln_2.weight", "ln_2/g"),
    Name("norm_2.bias", "ln_2.bias", "ln_2/b"),
    Name("mlp.up.weight", "mlp.c_fc.weight", "mlp/c_fc/w", True),
    Name("mlp.up.bias", "mlp.c_fc.bias", "mlp/c_fc/b"),
    Name("mlp.down.weight", "mlp.c_proj.weight", "mlp/c_proj/w", True),
    Name("mlp.down.bias", "mlp.c_proj.bias", "mlp/c_proj/b"),
]


def gpt2_names(n_layer: int) -> list[Name]:
    """Every tensor of a GPT-2 decoder with ``n_layer`` blocks."""
    blocks = [
        Name(f"blocks.{i}.{ours}", f"h.{i}.{theirs}", f"h{i}/{original}", transposed)
        for i in range(n_layer)
        for ours, theirs, original, transposed in BLOCK
    ]
    return MODEL + blocks
