"""Optimizers and learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)  # the coefficients of Jordan's iteration, made for a steep slope at zero


def adamw(model: nn.Module, lr: float, weight_decay: float) -> AdamW:
    """AdamW over the trainable parameters; matrices decay, biases and norms do not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=lr, betas=(0.9, 0.95), fused=True)


def muon(model: nn.Module, lr: float, weight_decay: float, *, bf16: bool = False) -> Muon:
    """Muon for the matrices of the blocks, AdamW for embeddings, biases and norms; matrices decay.

    Args:
        bf16: whether a matrix is made orthogonal by products in bf16, which suffices.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inner = [p for name, p in trainable if p.dim() == 2 and "embedding" not in name]
    tables = [p for name, p in trainable if p.dim() == 2 and "embedding" in name]
    vectors = [p for _, p in trainable if p.dim() != 2]
    groups = [
        {"params": inner, "weight_decay": weight_decay, "orthogonal": True},
        {"params": tables, "weight_decay": weight_decay, "orthogonal": False},
        {"params": vectors, "weight_decay": 0.0, "orthogonal": False},
    ]
    optimizer = Muon([group for group in groups if group["params"]], lr=lr, betas=(0.9, 0.95), fused=True)
    optimizer.bf16 = bf16
    return optimizer


class Muon(AdamW):
    """AdamW, save that groups with ``orthogonal`` step by their orthogonalized momentum. Jordan et al. 2024.

    A step of a matrix (m, n) has about the root mean square of AdamW's, 0.2 (Liu et al. 2025), so that one learning
    rate serves both. ``torch.optim.Muon`` computes in bf16, which many processors only emulate; this one
    only where it is told to.
    """

    bf16 = False

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; gradients of orthogonal groups are used up (None afterwards)."""
        for group in self.param_groups:
            for p in group["params"] if group["orthogonal"] else []:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:  # AdamW expects a count in every state
                    state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(p)}
                state["step"] += 1
                momentum = state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
                with torch.autocast(p.device.type, torch.bfloat16, enabled=self.bf16):
                    update = orthogonalize(p.grad.lerp(momentum, MOMENTUM))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * group["lr"] * max(p.shape) ** 0.5)
                p.grad = None  # AdamW passes over it
        return super().step(closure)


def orthogonalize(matrix: Tensor) -> Tensor:
    """A matrix (m, n) with the same singular vectors and all singular values near 1: five Newton-Schulz iterations."""
    a, b, c = QUINTIC
    wide = matrix if matrix.size(0) <= matrix.size(1) else matrix.T
    x = wide / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide is matrix else x.T


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
