"""The n-gram baseline against the formula written out for one token at a time."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from gptailor.evaluate import ngram
from gptailor.evaluate.ngram import NGram

END, V = 0, 12


def documents(seed: int, count: int) -> list[list[int]]:
    """Each token mostly follows from the one before, so that contexts matter."""
    random = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        ids = [int(random.integers(1, V))]
        while len(ids) < random.integers(1, 9):
            ids.append(int(1 + (ids[-1] * 3 + random.integers(0, 3)) % (V - 1)))
        result.append([*ids, END])
    return result


def written_out(train: list[list[int]], test: list[list[int]], order: int) -> float:
    """Kneser-Ney by dictionaries: summed -log P of all tokens but the first of each document."""
    grams = [Counter(tuple(d[i : i + n]) for d in train for i in range(len(d) - n + 1)) for n in range(1, order + 1)]
    tables = [Counter(gram[1:] for gram in longer) for longer in grams[1:]] + [grams[-1]]
    after = []
    for table in tables:
        contexts: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
        for gram, count in table.items():
            contexts[gram[:-1]][gram[-1]] = count
        after.append(contexts)

    def probability(context: tuple[int, ...], token: int) -> float:
        n = len(context)
        below = probability(context[1:], token) if context else 1 / V
        if context not in after[n]:
            return below
        once, twice = (sum(count == k for count in tables[n].values()) for k in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        counts = after[n][context]
        kept = max(counts.get(token, 0) - discount, 0)
        return (kept + discount * len(counts) * below) / sum(counts.values())

    return -sum(
        math.log(probability(tuple(d[max(0, i - order + 1) : i]), d[i])) for d in test for i in range(1, len(d))
    )


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("chunk", [1 << 20, 7])
def test_it_is_kneser_ney(order: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "CHUNK", chunk)
    train, test = documents(1, 60), documents(2, 30)
    model = NGram(np.concatenate(train).astype(np.uint16), order, V, END)
    expected = written_out(train, test, order)
    assert model.loss(np.concatenate(test).astype(np.uint16)) == pytest.approx(expected)


def test_longer_contexts_help_where_they_matter() -> None:
    train, test = np.concatenate(documents(1, 400)), np.concatenate(documents(2, 100))
    losses = [NGram(train, order, V, END).loss(test) for order in (1, 2)]
    assert losses[1] < 0.7 * losses[0]


def test_what_was_never_seen_still_has_a_probability() -> None:
    model = NGram(np.array([1, 2, 1, 2, END]), 3, V, END)
    assert math.isfinite(model.loss(np.array([5, 6, 7, END])))
