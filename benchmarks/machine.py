"""What the machine can do at best, measured now: ``python benchmarks/machine.py SECONDS`` prints one JSON line.

It takes so many seconds for each of thirteen figures. A product is what the faster of torch's libraries makes of it.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

SHAPES = [(1024, 768, 768), (1024, 768, 3072), (1024, 3072, 768)]  # rows, in, out of GPT-2 small's matrices
READ_BYTES = 1 << 30  # far beyond any cache


def best(work: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest of many runs: a ceiling is what is possible, not what is usual."""
    fastest, ends = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < ends:
        begun = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - begun)
    return fastest


def products(dtype: torch.dtype, seconds: float) -> float:
    """FLOP/s of matrix products."""
    rates = []
    for rows, width, out in SHAPES:
        x, weight = torch.randn(rows, width).to(dtype), torch.randn(out, width).to(dtype)
        ways = [torch.nn.functional.linear]
        if torch.backends.mkldnn.is_available():
            ways.append(lambda x, weight: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], ""))
        rates += [2 * rows * width * out / best(partial(way, x, weight), seconds) for way in ways]
    return max(rates)


def reading(seconds: float) -> float:
    """Bytes/s from memory."""
    block = torch.ones(READ_BYTES // 4)
    return READ_BYTES / best(block.sum, seconds)


def processor() -> str:
    """Its name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    with torch.no_grad():
        given = float(sys.argv[1])
        figures = {"fp32": products(torch.float32, given), "bf16": products(torch.bfloat16, given)}
        figures["bandwidth"] = reading(given)
    print(json.dumps({"processor": processor(), "threads": torch.get_num_threads(), **figures}))
