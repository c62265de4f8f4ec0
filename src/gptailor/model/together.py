"""Which rows go through a model together where nothing is learned: those of similar length, as many as pay."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def tokens_at_once(device: torch.device) -> int:
    """How many tokens, with padding, go through a model together: on a CPU more of them leave its caches."""
    return 512 if device.type == "cpu" else 16_384


def by_length(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """All rows in batches of similar length, longest first, each of at most ``max_tokens`` with its padding.

    A text longer than that is a batch of its own. Longest first, so that memory runs out at once or never.
    """
    batches: list[list[int]] = []
    width = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batches and (len(batches[-1]) + 1) * width <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
            width = max(1, lengths[row])
    return batches
