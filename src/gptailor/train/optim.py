"""Optimizer and learning rate."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW


def adamw(model: nn.Module, lr: float, weight_decay: float) -> AdamW:
    """AdamW over the trainable parameters; matrices decay, biases and norms do not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=lr, betas=(0.9, 0.95), fused=True)


def rate(step: int, total: int, *, peak: float, warmup: float, schedule: str) -> float:
    """The learning rate of a step.

    It rises linearly over the first ``warmup`` share of the steps, then stays (``"constant"``) or falls along a
    half cosine to a tenth of the peak at the last step (``"cosine"``).

    Args:
        step: 0 to total - 1.
    """
    rising = round(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    if schedule == "constant":
        return peak
    progress = (step - rising) / max(1, total - 1 - rising)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))
