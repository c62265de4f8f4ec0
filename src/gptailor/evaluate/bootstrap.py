"""Intervals of means by resampling records: how the mean would vary had other records of the same kind been asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

DRAWS = 10_000
SEED = 123
_AT_ONCE = 1_000_000  # numbers drawn at a time, to bound the memory


def mean_with_interval(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """``mean``, ``n`` and the 95 % percentile-bootstrap ``interval`` of one value (N,) for each record.

    None for the mean of nothing, and for the interval of fewer than two records, which say nothing about their spread.
    """
    known = np.asarray(values, dtype=np.float64)
    if len(known) == 0:
        return {"mean": None, "n": 0, "interval": None}
    interval = _ends(_resampled_means(known)) if len(known) > 1 else None
    return {"mean": float(known.mean()), "n": len(known), "interval": interval}


def paired_difference(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """The mean of ``first - second``, both (N,) of the same records in the same order, by paired bootstrap.

    Records are drawn with both their values, so that what is hard for both does not blur the difference between them.

    Returns:
        ``difference``, ``n``, the 95 % ``interval``, and ``p`` in (0, 1]: twice the share of draws in which the
        difference vanishes or turns round. None where ``mean_with_interval`` has None.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    told = mean_with_interval(differences)
    p = None
    if told["interval"] is not None:
        means = _resampled_means(differences)
        turned = min(int((means <= 0).sum()), int((means >= 0).sum()))
        p = min(1.0, 2 * (turned + 1) / (DRAWS + 1))  # one more: no number of draws proves that it never happens
    return {"difference": told["mean"], "n": told["n"], "interval": told["interval"], "p": p}


def _resampled_means(values: np.ndarray) -> np.ndarray:
    """Means (DRAWS,) of as many draws with replacement from ``values`` (N,); the same ones for each N."""
    rng, n = np.random.default_rng(SEED), len(values)
    rows = max(1, _AT_ONCE // n)
    sizes = [min(rows, DRAWS - start) for start in range(0, DRAWS, rows)]
    return np.concatenate([values[rng.integers(0, n, (size, n))].mean(axis=1) for size in sizes])


def _ends(means: np.ndarray) -> list[float]:
    low, high = np.quantile(means, (0.025, 0.975))
    return [float(low), float(high)]
