"""Where to compute."""

from __future__ import annotations

import torch

from gptailor.errors import UserError


def choose_device(name: str) -> torch.device:
    """``"auto"`` takes cuda, then mps, then cpu.

    Raises:
        UserError: when the device is not there, or is known to compute wrongly.
    """
    # GPT-2 on mps was silently wrong before torch 2.9: first losses of 20 where the CPU has 4.
    trusted_mps = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 9)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(d for d in there if there[d] and (d != "mps" or trusted_mps)))
    if name not in there:
        raise UserError(f"no device is called {name!r}", expected=f"auto, {', '.join(there)}")
    if not there[name]:
        raise UserError(f"no {name} device is available here", hint="--device auto")
    if name == "mps" and not trusted_mps:
        raise UserError(f"torch {torch.__version__} computes GPT-2 wrongly on mps", hint="pip install -U 'torch>=2.9'")
    return torch.device(name)
