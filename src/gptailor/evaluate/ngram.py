"""An n-gram model of token ids: what a base model must beat on held-out text to have learned more than counting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHUNK = 1 << 20  # tokens that are measured at once


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length, each with a number.

    Attributes:
        keys: (G,) sorted, ``number of the n-gram without its last token * V + last token``.
        counts: (G,) how often each was seen; of shorter ones, after how many different tokens.
        totals: the sum of counts after each context, by the number of the context.
        types: how many different tokens were seen after each context.
        discount: taken from every count and given to the shorter n-grams.
    """

    keys: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    types: np.ndarray
    discount: float


class NGram:
    """Interpolated Kneser-Ney, one discount for each order (Chen and Goodman 1999), below it the uniform distribution.

    P_n(w | context) = max(c - D, 0) / total + D * types / total * P_(n-1)(w | context without its first token). The
    longest n-grams count how often they were seen, the shorter ones after how many different tokens. Nothing reaches
    over an end of text.

    Args:
        tokens: (N,) ids, each document closed by ``end_of_text``; about 50 bytes of memory for each and its n.
        order: n, 1 or more.
        vocab_size: V.
    """

    def __init__(self, tokens: np.ndarray, order: int, vocab_size: int, end_of_text: int) -> None:
        self.vocab_size, self.end_of_text = vocab_size, end_of_text
        tokens = tokens.astype(np.int64)
        numbers, n_contexts = np.zeros(len(tokens), np.int64), 1  # of the context of each token: nothing, at first
        found: list[tuple[np.ndarray, np.ndarray, int, np.ndarray]] = []
        for _ in range(order):
            valid = np.flatnonzero(numbers >= 0)
            keys, first, inverse, seen = np.unique(
                numbers[valid] * vocab_size + tokens[valid], return_index=True, return_inverse=True, return_counts=True
            )
            own = np.full(len(tokens), -1)
            own[valid] = inverse
            if found:  # the n-grams of the order below are counted by the tokens they follow
                below = found[-1]
                suffixes = below[3][valid[first]]
                found[-1] = (below[0], np.bincount(suffixes, minlength=len(below[0])), below[2], below[3])
            found.append((keys, seen, n_contexts, own))
            numbers, n_contexts = self._as_contexts(own, tokens), len(keys)
        self.orders = [_order(keys, counts, n, vocab_size) for keys, counts, n, _ in found]

    def _as_contexts(self, numbers: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The number of the n-gram that ends before each token; -1 for none, unknown, or another document's."""
        contexts = np.full(len(tokens), -1)
        contexts[1:] = np.where(tokens[:-1] == self.end_of_text, -1, numbers[:-1])
        return contexts

    def loss(self, tokens: np.ndarray) -> float:
        """Summed -log P in nats of all tokens (N,) but the first of each document."""
        total, reach = 0.0, len(self.orders)
        for start in range(0, len(tokens), CHUNK):
            begin = max(0, start - reach)
            part = tokens[begin : start + CHUNK].astype(np.int64)
            targets = np.flatnonzero(np.append(True, part[:-1] == self.end_of_text) == 0)
            targets = targets[targets >= start - begin]
            total -= float(np.log(self._probabilities(part)[targets]).sum())
        return total

    def _probabilities(self, tokens: np.ndarray) -> np.ndarray:
        probability = np.full(len(tokens), 1 / self.vocab_size)
        numbers = np.zeros(len(tokens), np.int64)
        for order in self.orders:
            own = _look_up(order.keys, np.where(numbers < 0, -1, numbers * self.vocab_size + tokens))
            known = np.flatnonzero((numbers >= 0) & (order.totals[numbers] > 0))
            context, counts = numbers[known], np.where(own[known] < 0, 0, order.counts[own[known]])
            kept = np.maximum(counts - order.discount, 0)
            passed_on = order.discount * order.types[context] * probability[known]
            probability[known] = (kept + passed_on) / order.totals[context]
            numbers = self._as_contexts(own, tokens)
        return probability


def _order(keys: np.ndarray, counts: np.ndarray, n_contexts: int, vocab_size: int) -> _Order:
    contexts = keys // vocab_size
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return _Order(
        keys,
        counts,
        np.bincount(contexts, weights=counts, minlength=n_contexts),
        np.bincount(contexts, weights=counts > 0, minlength=n_contexts),
        once / (once + 2 * twice) if once else 0.5,
    )


def _look_up(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each wanted key, -1 where it is not there."""
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)
