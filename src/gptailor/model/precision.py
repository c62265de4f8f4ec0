"""In which precision matrix products are computed."""

from __future__ import annotations

import torch


def compute_in(name: str, device: torch.device) -> torch.autocast:
    """A context in which matrix products run in ``name``: ``"fp32"``, ``"bf16"``, or ``"auto"``.

    Auto takes bf16 where the hardware has instructions for it: elsewhere it is emulated, and slower than fp32.
    Weights, sums of losses and the optimizer stay in fp32.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16" or (name == "auto" and fast_bf16(device)))


def fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False
