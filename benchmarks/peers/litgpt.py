"""LitGPT with GPT-2's shapes: full fine-tuning and LoRA in a plain loop; it runs in an environment of its own."""

from __future__ import annotations

import time

import torch
from litgpt.config import Config
from litgpt.lora import GPT as LoraGPT
from litgpt.lora import Config as LoraConfig
from litgpt.lora import mark_only_lora_as_trainable
from litgpt.model import GPT
from litgpt.utils import chunked_cross_entropy
from torch import nn
from work import Work, padded


def shape(work: Work) -> dict[str, object]:
    """Its names for GPT-2's numbers; positions are rotary and the head is untied, as it has no others."""
    numbers = {name: work.shape[name] for name in ("n_layer", "n_head", "n_embd")}
    vocabulary = {"vocab_size": work.shape["vocab_size"], "padded_vocab_size": work.shape["vocab_size"]}
    kinds = {"norm_class_name": "LayerNorm", "mlp_class_name": "GptNeoxMLP", "bias": True, "parallel_residual": False}
    return {**numbers, **vocabulary, **kinds, "block_size": work.shape["context_length"]}


def instructions(work: Work, precision: str) -> dict[str, float]:
    """One epoch with all parameters."""
    torch.manual_seed(0)
    return fine_tune(GPT(Config(**shape(work))), work, precision)


def lora(work: Work, precision: str) -> dict[str, float]:
    """Adapters of rank 16 on every matrix of the blocks, for one epoch."""
    torch.manual_seed(0)
    where = {f"lora_{name}": True for name in ("query", "key", "value", "projection", "mlp")}
    model = LoraGPT(LoraConfig(**shape(work), lora_r=16, lora_alpha=16, **where))
    mark_only_lora_as_trainable(model)
    return fine_tune(model, work, precision)


def fine_tune(model: nn.Module, work: Work, precision: str) -> dict[str, float]:
    """One epoch over the records, with whatever of the model is trained."""
    trained = [parameter for parameter in model.train().parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-5, weight_decay=0.1)
    begun = time.perf_counter()
    for rows in work.batches([len(ids) for ids in work.records], seed=0):
        ids, real = (torch.tensor(part) for part in padded([work.records[row] for row in rows], work.pad))
        targets = ids.masked_fill(real == 0, -100)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(ids)
        chunked_cross_entropy(logits[:, :-1].float(), targets[:, 1:], chunk_size=0, ignore_index=-100).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"seconds": time.perf_counter() - begun, "done": work.learned}
