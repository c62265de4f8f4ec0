"""Batches: each row once, similar lengths together, and nothing but their arguments decides them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptailor.data.batching import WINDOW, Batch, collate, shuffled
from gptailor.model.together import by_length

LENGTHS = st.lists(st.integers(0, 300), max_size=150)


def flat(batches: Iterable[Iterable[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def padding_share(lengths: list[int], batches: list[list[int]]) -> float:
    computed = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    return 1 - sum(lengths) / computed


# --- collate ----------------------------------------------------------------------------------------------------------


def test_a_worked_batch() -> None:
    batch = collate([[5, 6, 7], [8], [9, 10]], labels=[0, 1, 2], rows=[2, 0], pad=99)
    assert batch.input_ids.tolist() == [[9, 10, 99], [5, 6, 7]]
    assert batch.real.tolist() == [[True, True, False], [True, True, True]]
    assert batch.labels.tolist() == [2, 0]
    assert batch.rows.tolist() == [2, 0]
    assert batch.input_ids.dtype == batch.labels.dtype == batch.rows.dtype == torch.int64
    assert batch.real.dtype == torch.bool


@pytest.mark.parametrize(("pad_to", "width"), [(None, 2), (1, 2), (2, 2), (5, 5)])
def test_a_batch_is_at_least_as_wide_as_asked_and_never_cuts(pad_to: int | None, width: int) -> None:
    batch = collate([[5, 6], [7]], labels=[0, 1], rows=[0, 1], pad=0, pad_to=pad_to)
    assert batch.input_ids.shape == batch.real.shape == (2, width)
    assert batch.real.sum(1).tolist() == [2, 1]


def test_a_token_that_equals_the_padding_is_still_real() -> None:
    batch = collate([[0, 0], [0]], labels=[0, 1], rows=[0, 1], pad=0)
    assert batch.real.tolist() == [[True, True], [True, False]]


def test_a_batch_moves_with_its_rows_left_behind() -> None:
    batch = Batch(*(torch.zeros(1, dtype=torch.int64) for _ in range(4))).to(torch.device("meta"))
    assert [batch.input_ids.device.type, batch.real.device.type, batch.labels.device.type] == ["meta"] * 3
    assert batch.rows.device.type == "cpu"


# --- order ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(lengths=LENGTHS, batch_size=st.integers(1, 20), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 100))
def test_an_epoch_has_every_row_once(lengths: list[int], batch_size: int, seed: int, epoch: int) -> None:
    batches = shuffled(lengths, batch_size, seed, epoch)
    assert sorted(flat(batches)) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) == -(-len(lengths) // batch_size)
    assert batches == shuffled(lengths, batch_size, seed, epoch)


def test_epochs_and_seeds_differ_in_order_and_in_who_shares_a_batch() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 400).tolist()
    first, next_epoch, other_seed = shuffled(lengths, 8, 1, 0), shuffled(lengths, 8, 1, 1), shuffled(lengths, 8, 2, 0)
    assert len({str(flat(batches)) for batches in (first, next_epoch, other_seed)}) == 3
    together = [{frozenset(batch) for batch in batches} for batches in (first, next_epoch, other_seed)]
    assert len(together[0] & together[1]) < len(first) / 10
    assert len(together[0] & together[2]) < len(first) / 10


def test_an_epoch_of_several_windows_has_every_row_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 2 * 8 * WINDOW + 3).tolist()
    batches = shuffled(lengths, 8, seed=0, epoch=0)
    assert sorted(flat(batches)) == list(range(len(lengths)))
    assert sorted(map(len, batches)) == [3, *[8] * (2 * WINDOW)]


def test_batches_of_similar_length_pad_little() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 200, 1000).tolist()
    order = random.permutation(1000).tolist()
    at_random = [order[i : i + 8] for i in range(0, 1000, 8)]
    assert padding_share(lengths, at_random) > 0.4
    assert padding_share(lengths, shuffled(lengths, 8, seed=0, epoch=0)) < 0.05


def test_batches_do_not_come_sorted_by_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 400).tolist()
    widths = [max(lengths[row] for row in batch) for batch in shuffled(lengths, 8, seed=0, epoch=0)]
    rises = sum(left < right for left, right in pairwise(widths))
    assert len(widths) / 4 < rises < 3 * len(widths) / 4


@settings(deadline=None)
@given(lengths=LENGTHS, max_tokens=st.integers(1, 2000))
def test_all_rows_fit_the_budget_longest_first(lengths: list[int], max_tokens: int) -> None:
    batches = by_length(lengths, max_tokens)
    assert sorted(flat(batches)) == list(range(len(lengths)))
    in_order = [lengths[row] for row in flat(batches)]
    assert in_order == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= max_tokens


@pytest.mark.parametrize(
    ("max_tokens", "batches"),
    [(10, [[1], [2, 3], [0]]), (20, [[1, 2], [3, 0]]), (30, [[1, 2, 3], [0]]), (1, [[1], [2], [3], [0]])],
)
def test_worked_batches_by_length(max_tokens: int, batches: list[list[int]]) -> None:
    assert by_length([3, 9, 5, 4], max_tokens) == batches
