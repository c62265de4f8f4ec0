"""What physics allows: floating-point operations at the machine's best rate, bytes at its best bandwidth.

Counted are the products with weights for real tokens, once each, and the traffic that cannot be avoided; attention
itself, norms, embeddings and the tokenizer are left out, so that a floor is below what any code can reach.
"""

from __future__ import annotations

from typing import Any

from work import Contestant, Work

Machine = dict[str, Any]
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
ADAMW_BYTES = 28  # for each parameter: weight, gradient and two moments are read, weight and moments written, in fp32


def spam(work: Work, machine: Machine, one: Contestant) -> float | None:
    """Seconds: the frozen blocks once for each text, and the optimizer's traffic for the last block in every step."""
    rate = machine.get(one.precision)
    if rate is None:
        return None
    lengths = [len(ids) for part in work.spam.values() for ids, _ in part]
    tokens = work.longest * len(lengths) if one.options.get("pad_to") == "data" else sum(lengths)
    steps = work.epochs * -(-len(work.spam["train"]) // work.batch_size)
    return 2 * (blocks(work) - block(work)) * tokens / rate + steps * ADAMW_BYTES * block(work) / machine["bandwidth"]


def training(work: Work, machine: Machine, one: Contestant) -> float | None:
    """Tokens/s: forward, and gradients of activations and of weights; AdamW once for each batch."""
    rate = machine.get(one.precision)
    if rate is None:
        return None
    steps = -(-len(work.records) // work.batch_size)
    trained = blocks(work) + head(work)
    return work.learned / (6 * trained * work.learned / rate + steps * ADAMW_BYTES * trained / machine["bandwidth"])


def adapters(work: Work, machine: Machine, one: Contestant) -> float | None:
    """Tokens/s: forward, and gradients of activations only."""
    rate = machine.get(one.options.get("frozen_in", one.precision))
    return rate / (4 * (blocks(work) + head(work))) if rate else None


def classify(work: Work, machine: Machine, one: Contestant) -> float | None:
    """Texts/s: all blocks but the last, which need not be computed for more than one token."""
    rate = machine.get(one.precision)
    return rate * len(work.ids) / (2 * (blocks(work) - block(work)) * sum(map(len, work.ids))) if rate else None


def generate(work: Work, machine: Machine, one: Contestant) -> float:
    """Tokens/s: every weight is read for every token."""
    return machine["bandwidth"] / (BYTES[one.precision] * (blocks(work) + head(work)))


def generate_many(work: Work, machine: Machine, one: Contestant) -> float | None:
    """Tokens/s: as many tokens at once as there are prompts, bound by reading the weights or by the products."""
    rate = machine.get(one.precision)
    return (
        min(len(work.prompts) * generate(work, machine, one), rate / (2 * (blocks(work) + head(work))))
        if rate
        else None
    )


def block(work: Work) -> int:
    """Weights of one block's matrices."""
    return 12 * work.shape["n_embd"] ** 2


def blocks(work: Work) -> int:
    """Weights of all blocks' matrices."""
    return work.shape["n_layer"] * block(work)


def head(work: Work) -> int:
    """Weights of the output head."""
    return work.shape["vocab_size"] * work.shape["n_embd"]
