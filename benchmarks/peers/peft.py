"""LoRA by PEFT on transformers."""

from __future__ import annotations

import torch
from peers.huggingface import fine_tune
from peft import LoraConfig, get_peft_model
from transformers import GPT2LMHeadModel
from work import Work


def lora(work: Work, precision: str, *, best: bool = False) -> dict[str, float]:
    """Adapters of rank 16 on every matrix of the blocks, for one epoch."""
    torch.manual_seed(0)
    settings = LoraConfig(r=16, lora_alpha=16, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)
    base = GPT2LMHeadModel.from_pretrained(work.folder / "model")
    return fine_tune(get_peft_model(base, settings), work, precision, best)
